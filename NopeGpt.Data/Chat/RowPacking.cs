using System.Numerics;

namespace NopeGpt.Data.Chat;

/// <summary>Samples put into rows of one length, each whole: best fit in order of decreasing length (Johnson: "Near-optimal bin packing
/// algorithms", 1973), which needs at most 11/9 of the fewest rows possible. The same samples in the same order give the same rows.</summary>
internal sealed class RowPacking
{
    private readonly int[] _items;
    private readonly int[] _starts;

    /// <param name="lengths">of the samples, 1 to <paramref name="capacity"/> each</param>
    /// <param name="capacity">of a row</param>
    public RowPacking(ReadOnlySpan<int> lengths, int capacity)
    {
        int[] byLength = ByDecreasingLength(lengths, capacity), rowOf = new int[lengths.Length];
        // For every room that is left the rows that have just so much, as a stack: its top, and what is below each row.
        int[] top = new int[capacity + 1];
        Array.Fill(top, -1);
        List<int> below = [];
        ulong[] open = new ulong[(capacity / 64) + 1];
        foreach (int item in byLength)
        {
            int room = Smallest(open, lengths[item]), row;
            if (room < 0)
            {
                (row, room) = (below.Count, capacity);
                below.Add(-1);
            }
            else
            {
                row = top[room];
                top[room] = below[row];
                if (top[room] < 0) open[room / 64] &= ~(1ul << (room % 64));
            }
            rowOf[item] = row;
            room -= lengths[item];
            below[row] = top[room];
            top[room] = row;
            // A row without room is never looked for.
            if (room > 0) open[room / 64] |= 1ul << (room % 64);
        }
        _starts = new int[below.Count + 1];
        foreach (int row in rowOf) _starts[row + 1]++;
        for (int row = 0; row < below.Count; row++) _starts[row + 1] += _starts[row];
        int[] next = [.. _starts];
        _items = new int[lengths.Length];
        foreach (int item in byLength) _items[next[rowOf[item]]++] = item;
    }

    public int Rows => _starts.Length - 1;

    /// <summary>The numbers of the samples in a row, from left to right.</summary>
    public ReadOnlySpan<int> this[int row] => _items.AsSpan(_starts[row].._starts[row + 1]);

    private static int[] ByDecreasingLength(ReadOnlySpan<int> lengths, int capacity)
    {
        int[] starts = new int[capacity + 2], sorted = new int[lengths.Length];
        foreach (int length in lengths) starts[capacity - length + 1]++;
        for (int i = 0; i <= capacity; i++) starts[i + 1] += starts[i];
        for (int i = 0; i < lengths.Length; i++) sorted[starts[capacity - lengths[i]]++] = i;
        return sorted;
    }

    /// <summary>The smallest room of at least this, or -1.</summary>
    private static int Smallest(ulong[] open, int length)
    {
        int word = length / 64;
        ulong bits = open[word] & (ulong.MaxValue << (length % 64));
        while (bits == 0)
        {
            if (++word == open.Length) return -1;
            bits = open[word];
        }
        return (word * 64) + BitOperations.TrailingZeroCount(bits);
    }
}
