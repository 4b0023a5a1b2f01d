using System.Runtime.CompilerServices;
using System.Runtime.InteropServices;

namespace NopeGpt.Data.Tokenization;

/// <summary>The ids of short words already encoded, for one thread: buckets of two words, the one used last in front; a new word takes the place of the
/// other. So it never grows, and nothing is allocated for a word.</summary>
internal sealed class WordCache
{
    /// <summary>Ids that a word in the cache may have.</summary>
    public const int MostIds = 3;

    private const int EntryBytes = 32, BucketBytes = 2 * EntryBytes;

    /// <summary>Most tokenizers that are loaded see a few short texts only: the first table is small, the second one is of the final size.</summary>
    private const int FirstBits = 8, LastBits = 15;

    // Pinned, so that a bucket can lie in one cache line.
    private byte[] _memory = [];
    private int _first, _shift, _left;

    public WordCache() => Allocate(FirstBits);

    /// <summary>Writes the word's ids where it is known.</summary>
    /// <param name="ids">Has room for <see cref="MostIds"/>, all of which may be written.</param>
    /// <returns>How many ids it has; 0 where it is not known.</returns>
    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    public int Find(WordKey key, int length, ref int ids)
    {
        ref Entry entry = ref Bucket(key, length);
        if (entry.Key == key && entry.Length == length) return entry.Write(ref ids);
        ref Entry second = ref Unsafe.Add(ref entry, 1);
        if (second.Key != key || second.Length != length) return 0;
        (entry, second) = (second, entry);
        return entry.Write(ref ids);
    }

    /// <summary>Remembers a word of at most <see cref="MostIds"/> ids.</summary>
    public void Add(WordKey key, int length, ReadOnlySpan<int> ids)
    {
        if (_left-- == 0) Allocate(LastBits);
        ref Entry entry = ref Bucket(key, length);
        Unsafe.Add(ref entry, 1) = entry;
        entry = new() { Key = key, Length = (short)length, Count = (short)ids.Length, First = ids[0], Second = ids.Length > 1 ? ids[1] : 0, Third = ids.Length > 2 ? ids[2] : 0 };
    }

    private void Allocate(int bits)
    {
        _memory = GC.AllocateArray<byte>(((1 << bits) + 1) * BucketBytes, pinned: true);
        _first = (int)(-Marshal.UnsafeAddrOfPinnedArrayElement(_memory, 0) & (BucketBytes - 1));
        _shift = 64 - bits;
        _left = bits == FirstBits ? 1 << bits : int.MaxValue;
    }

    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    private ref Entry Bucket(WordKey key, int length) =>
        ref Unsafe.As<byte, Entry>(ref Unsafe.Add(ref MemoryMarshal.GetArrayDataReference(_memory), _first + ((nint)(key.Hash(length) >> _shift) * BucketBytes)));

    /// <summary>32 bytes. A length of 0 is no word.</summary>
    [StructLayout(LayoutKind.Sequential)]
    private struct Entry
    {
        public WordKey Key;
        public short Length, Count;
        public int First, Second, Third;

        [MethodImpl(MethodImplOptions.AggressiveInlining)]
        public readonly int Write(ref int ids)
        {
            ids = First;
            Unsafe.Add(ref ids, 1) = Second;
            Unsafe.Add(ref ids, 2) = Third;
            return Count;
        }
    }
}
