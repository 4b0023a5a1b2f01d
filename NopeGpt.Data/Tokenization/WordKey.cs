using System.Buffers.Binary;
using System.Runtime.CompilerServices;
using System.Runtime.InteropServices;

namespace NopeGpt.Data.Tokenization;

/// <summary>A word of at most 16 bytes as two numbers, filled up with zeros. Words of different lengths may have the same key: the length belongs to it.</summary>
internal readonly record struct WordKey(ulong Low, ulong High)
{
    public const int Longest = 2 * sizeof(ulong);

    /// <summary>The bytes of a text from start on.</summary>
    /// <param name="length">1 to 16, not beyond the text.</param>
    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    public static WordKey Of(ReadOnlySpan<byte> text, int start, int length)
    {
        if (start > text.Length - Longest) return OfEnd(text.Slice(start, length));
        ref byte at = ref Unsafe.Add(ref MemoryMarshal.GetReference(text), start);
        ulong low = Unsafe.ReadUnaligned<ulong>(ref at), high = Unsafe.ReadUnaligned<ulong>(ref Unsafe.Add(ref at, sizeof(ulong)));
        // A shift counts modulo 64, so that 8 and 16 bytes take all of a number.
        return length <= sizeof(ulong) ? new(low & (ulong.MaxValue >> (64 - (8 * length))), 0) : new(low, high & (ulong.MaxValue >> (128 - (8 * length))));
    }

    /// <summary>The word's bytes, filled up with zeros.</summary>
    public void CopyTo(Span<byte> bytes)
    {
        BinaryPrimitives.WriteUInt64LittleEndian(bytes, Low);
        BinaryPrimitives.WriteUInt64LittleEndian(bytes[sizeof(ulong)..], High);
    }

    /// <summary>Spread over all 64 bits; a table takes the upper ones.</summary>
    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    public ulong Hash(int length)
    {
        ulong mixed = (Low ^ ((ulong)length << 56)) * 0x9E3779B97F4A7C15;
        mixed = (mixed ^ (mixed >> 32) ^ High) * 0xD6E8FEB86659FD93;
        return (mixed ^ (mixed >> 32)) * 0xC2B2AE3D27D4EB4F;
    }

    /// <summary>The hash of any number of bytes.</summary>
    public static ulong Hash(ReadOnlySpan<byte> bytes)
    {
        int length = bytes.Length;
        if (length == 0) return 0;
        if (length <= Longest) return Of(bytes, 0, length).Hash(length);
        ulong mixed = (ulong)length;
        for (; bytes.Length > Longest; bytes = bytes[Longest..]) mixed = (mixed * 31) ^ Of(bytes, 0, Longest).Hash(Longest);
        return (mixed * 31) ^ Of(bytes, 0, bytes.Length).Hash(bytes.Length);
    }

    private static WordKey OfEnd(ReadOnlySpan<byte> word)
    {
        Span<byte> padded = stackalloc byte[Longest];
        padded.Clear();
        word.CopyTo(padded);
        return new(BinaryPrimitives.ReadUInt64LittleEndian(padded), BinaryPrimitives.ReadUInt64LittleEndian(padded[sizeof(ulong)..]));
    }
}
