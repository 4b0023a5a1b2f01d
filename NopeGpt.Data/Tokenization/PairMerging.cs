namespace NopeGpt.Data.Tokenization;

/// <summary>Byte-pair encoding proper: the neighbours of lowest rank merge, the leftmost first, until none are left. Its memory is kept from word to
/// word. Not safe for concurrent use.</summary>
internal sealed class PairMerging
{
    /// <summary>Up to this length, looking at every pair for each merge is quicker than a queue.</summary>
    private const int Short = 64;

    private const int Never = int.MaxValue;

    /// <summary>Memory for words up to this length is kept.</summary>
    private const int Kept = 1 << 16;

    private int[] _next = [], _previous = [], _ranks = [], _results = [];
    private readonly LongHeap _queue = new();

    /// <summary>Merges in place.</summary>
    /// <param name="least">Stops when no more symbols than this are left.</param>
    /// <returns>How many symbols are left, at the beginning of the span.</returns>
    public int Merge<TRules>(Span<int> symbols, TRules rules, int least = 1) where TRules : struct, IPairRules, allows ref struct =>
        symbols.Length <= Short ? MergeShort(symbols, rules, least) : MergeLong(symbols, rules, least);

    private static int MergeShort<TRules>(Span<int> symbols, TRules rules, int least) where TRules : struct, IPairRules, allows ref struct
    {
        int count = symbols.Length;
        // Entry i is of the pair that begins at symbol i; starts has the places of the symbols in the word, with its end after the last.
        Span<int> ranks = stackalloc int[Short], results = stackalloc int[Short], starts = stackalloc int[Short + 1];
        for (int i = 0; i <= count; i++) starts[i] = i;
        for (int i = 0; i + 1 < count; i++)
            if (!rules.Find(symbols[i], symbols[i + 1], i, i + 2, out ranks[i], out results[i])) ranks[i] = Never;
        while (count > least)
        {
            int best = -1, rank = Never;
            for (int i = 0; i + 1 < count; i++)
                if (ranks[i] < rank) (best, rank) = (i, ranks[i]);
            if (best < 0) break;
            symbols[best] = results[best];
            for (int i = best + 1; i + 1 < count; i++)
                (symbols[i], starts[i], ranks[i - 1], results[i - 1]) = (symbols[i + 1], starts[i + 1], ranks[i], results[i]);
            starts[--count] = symbols.Length;
            for (int i = Math.Max(best - 1, 0); i <= best && i + 1 < count; i++)
                if (!rules.Find(symbols[i], symbols[i + 1], starts[i], starts[i + 2], out ranks[i], out results[i])) ranks[i] = Never;
        }
        return count;
    }

    /// <summary>For long words: the pairs wait in a queue by rank, then by place; one that has changed since is passed over.</summary>
    private int MergeLong<TRules>(Span<int> symbols, TRules rules, int least) where TRules : struct, IPairRules, allows ref struct
    {
        int length = symbols.Length, left = length;
        Reserve(length);
        _queue.Clear();
        for (int i = 0; i < length; i++) (_next[i], _previous[i]) = (i + 1, i - 1);
        for (int i = 0; i < length; i++) Look(symbols, rules, i);
        while (left > least && _queue.TryTake(out long pair))
        {
            int at = (int)pair;
            if (_ranks[at] != (int)(pair >> 32)) continue;
            int right = _next[at];
            symbols[at] = _results[at];
            _ranks[right] = Never;
            _next[at] = _next[right];
            if (_next[right] < length) _previous[_next[right]] = at;
            left--;
            if (_previous[at] >= 0) Look(symbols, rules, _previous[at]);
            Look(symbols, rules, at);
        }
        int to = 0;
        for (int from = 0; from < length; from = _next[from]) symbols[to++] = symbols[from];
        if (length > Kept) (_next, _previous, _ranks, _results) = ([], [], [], []);
        _queue.Trim(Kept);
        return left;
    }

    /// <summary>Queues the pair that begins here, if it merges.</summary>
    private void Look<TRules>(Span<int> symbols, TRules rules, int at) where TRules : struct, IPairRules, allows ref struct
    {
        int next = _next[at];
        _ranks[at] = Never;
        if (next >= symbols.Length || !rules.Find(symbols[at], symbols[next], at, _next[next], out int rank, out _results[at])) return;
        _ranks[at] = rank;
        _queue.Add(((long)rank << 32) | (uint)at);
    }

    private void Reserve(int length)
    {
        if (_next.Length >= length) return;
        int size = Math.Max(length, 2 * Math.Min(_next.Length, Kept));
        (_next, _previous, _ranks, _results) = (new int[size], new int[size], new int[size], new int[size]);
    }

    /// <summary>The smallest first.</summary>
    private sealed class LongHeap
    {
        private long[] _items = [];
        private int _count;

        public void Clear() => _count = 0;

        public void Trim(int most)
        {
            if (_items.Length > 4 * most) _items = [];
        }

        public void Add(long item)
        {
            if (_count == _items.Length) Array.Resize(ref _items, Math.Max(256, 2 * _count));
            int at = _count++;
            for (int parent; at > 0 && _items[parent = (at - 1) / 2] > item; at = parent) _items[at] = _items[parent];
            _items[at] = item;
        }

        public bool TryTake(out long item)
        {
            item = 0;
            if (_count == 0) return false;
            item = _items[0];
            long last = _items[--_count];
            int at = 0;
            for (int child; (child = (2 * at) + 1) < _count; at = child)
            {
                if (child + 1 < _count && _items[child + 1] < _items[child]) child++;
                if (_items[child] >= last) break;
                _items[at] = _items[child];
            }
            _items[at] = last;
            return true;
        }
    }
}
