using System.Numerics;
using System.Runtime.InteropServices;

namespace NopeGpt.Data;

/// <summary>Ids from one width to another, several at a time: the compiler does not do that by itself, and a batch is made of little else.</summary>
internal static class Ids
{
    public static void Widen(ReadOnlySpan<ushort> from, Span<int> into)
    {
        ReadOnlySpan<Vector<ushort>> vectors = MemoryMarshal.Cast<ushort, Vector<ushort>>(from);
        Span<Vector<uint>> wide = MemoryMarshal.Cast<int, Vector<uint>>(into);
        for (int i = 0; i < vectors.Length; i++)
        {
            Vector.Widen(vectors[i], out Vector<uint> low, out Vector<uint> high);
            (wide[2 * i], wide[(2 * i) + 1]) = (low, high);
        }
        for (int i = vectors.Length * Vector<ushort>.Count; i < from.Length; i++) into[i] = from[i];
    }

    public static void Widen(ReadOnlySpan<int> from, Span<long> into)
    {
        ReadOnlySpan<Vector<int>> vectors = MemoryMarshal.Cast<int, Vector<int>>(from);
        Span<Vector<long>> wide = MemoryMarshal.Cast<long, Vector<long>>(into);
        for (int i = 0; i < vectors.Length; i++)
        {
            Vector.Widen(vectors[i], out Vector<long> low, out Vector<long> high);
            (wide[2 * i], wide[(2 * i) + 1]) = (low, high);
        }
        for (int i = vectors.Length * Vector<int>.Count; i < from.Length; i++) into[i] = from[i];
    }

    /// <summary>Ids that two bytes hold.</summary>
    public static void Narrow(ReadOnlySpan<int> from, Span<ushort> into)
    {
        ReadOnlySpan<Vector<uint>> vectors = MemoryMarshal.Cast<int, Vector<uint>>(from);
        Span<Vector<ushort>> narrow = MemoryMarshal.Cast<ushort, Vector<ushort>>(into[..from.Length]);
        for (int i = 0; i < narrow.Length; i++) narrow[i] = Vector.Narrow(vectors[2 * i], vectors[(2 * i) + 1]);
        for (int i = narrow.Length * Vector<ushort>.Count; i < from.Length; i++) into[i] = (ushort)from[i];
    }

    /// <summary>True when all are in a vocabulary; negative ids are not.</summary>
    public static bool AreBelow(ReadOnlySpan<int> ids, int vocabularySize)
    {
        ReadOnlySpan<Vector<uint>> vectors = MemoryMarshal.Cast<int, Vector<uint>>(ids);
        Vector<uint> greatest = Vector<uint>.Zero;
        foreach (Vector<uint> vector in vectors) greatest = Vector.Max(greatest, vector);
        if (Vector.GreaterThanOrEqualAny(greatest, new Vector<uint>((uint)vocabularySize))) return false;
        foreach (int id in ids[(vectors.Length * Vector<uint>.Count)..])
            if ((uint)id >= (uint)vocabularySize) return false;
        return true;
    }
}
