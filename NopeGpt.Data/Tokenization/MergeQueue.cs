namespace NopeGpt.Data.Tokenization;

/// <summary>Pairs that wait to be merged, the most frequent first, the smaller pair of equal ones. Each waits with the words in which it was
/// found.</summary>
internal sealed class MergeQueue
{
    /// <summary>The end of a list of words.</summary>
    public const int None = -1;

    private const int Children = 4;

    private Entry[] _heap = new Entry[1 << 10];
    private int[] _word = new int[1 << 12], _next = new int[1 << 12];
    private int _free = None, _used;

    public int Count { get; private set; }

    /// <summary>Puts a word in front of a list.</summary>
    /// <returns>The list's new beginning.</returns>
    public int AddWord(int word, int list)
    {
        int node = _free;
        if (node != None) _free = _next[node];
        else
        {
            if (_used == _word.Length)
            {
                Array.Resize(ref _word, 2 * _used);
                Array.Resize(ref _next, 2 * _used);
            }
            node = _used++;
        }
        (_word[node], _next[node]) = (word, list);
        return node;
    }

    /// <summary>The first word of a list.</summary>
    public int WordOf(int list) => _word[list];

    /// <summary>Gives up the first word of a list.</summary>
    /// <returns>The rest of it.</returns>
    public int Drop(int list)
    {
        int rest = _next[list];
        (_next[list], _free) = (_free, list);
        return rest;
    }

    public void Add(Entry entry)
    {
        if (Count == _heap.Length) Array.Resize(ref _heap, 2 * Count);
        int at = Count++;
        for (int parent; at > 0 && entry.IsBefore(_heap[parent = (at - 1) / Children]); at = parent) _heap[at] = _heap[parent];
        _heap[at] = entry;
    }

    /// <summary>Takes the first; there must be one.</summary>
    public Entry Take()
    {
        Entry first = _heap[0], last = _heap[--Count];
        int at = 0;
        while (true)
        {
            int child = (Children * at) + 1, end = Math.Min(child + Children, Count);
            if (child >= Count) break;
            for (int other = child + 1; other < end; other++)
                if (_heap[other].IsBefore(_heap[child])) child = other;
            if (!_heap[child].IsBefore(last)) break;
            _heap[at] = _heap[child];
            at = child;
        }
        _heap[at] = last;
        return first;
    }

    /// <param name="Occurrences">When it was put into the queue.</param>
    /// <param name="Pair">The left token in the upper half.</param>
    /// <param name="Words">A list of them.</param>
    public readonly record struct Entry(long Occurrences, ulong Pair, int Words)
    {
        public bool IsBefore(in Entry other) => Occurrences != other.Occurrences ? Occurrences > other.Occurrences : Pair < other.Pair;
    }
}
