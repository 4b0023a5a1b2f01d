namespace NopeGpt.Data.Tokenization;

/// <summary>Byte-pair encoding proper: the neighbours of lowest rank merge, the leftmost first, until none are left.</summary>
internal static class PairMerging
{
    /// <summary>Up to this length, looking at every pair for each merge is quicker than a queue.</summary>
    private const int Short = 64;

    /// <summary>In the place of a symbol that merged into the one before it.</summary>
    private const int Gone = -1;

    /// <summary>Merges in place.</summary>
    /// <param name="least">Stops when no more symbols than this are left.</param>
    /// <returns>How many symbols are left, at the beginning of the span.</returns>
    public static int Merge<TRules>(Span<int> symbols, TRules rules, int least = 1) where TRules : struct, IPairRules =>
        symbols.Length <= Short ? MergeShort(symbols, rules, least) : new Queue<TRules>(symbols.ToArray(), rules).Merge(symbols, least);

    private static int MergeShort<TRules>(Span<int> symbols, TRules rules, int least) where TRules : struct, IPairRules
    {
        int count = symbols.Length;
        // Entry i is of the pair that begins at symbol i.
        Span<int> ranks = stackalloc int[Short], results = stackalloc int[Short];
        for (int i = 0; i + 1 < count; i++)
            if (!rules.Find(symbols[i], symbols[i + 1], out ranks[i], out results[i])) ranks[i] = int.MaxValue;
        while (count > least)
        {
            int best = -1, rank = int.MaxValue;
            for (int i = 0; i + 1 < count; i++)
                if (ranks[i] < rank) (best, rank) = (i, ranks[i]);
            if (best < 0) break;
            symbols[best] = results[best];
            symbols[(best + 2)..count].CopyTo(symbols[(best + 1)..]);
            ranks[(best + 1)..count].CopyTo(ranks[best..]);
            results[(best + 1)..count].CopyTo(results[best..]);
            count--;
            for (int i = Math.Max(best - 1, 0); i <= best && i + 1 < count; i++)
                if (!rules.Find(symbols[i], symbols[i + 1], out ranks[i], out results[i])) ranks[i] = int.MaxValue;
        }
        return count;
    }

    /// <summary>For long words: the pairs wait in a queue, and one whose symbols have changed since is passed over.</summary>
    private sealed class Queue<TRules> where TRules : struct, IPairRules
    {
        private readonly int[] _symbols, _next, _previous;
        private readonly TRules _rules;
        private readonly PriorityQueue<(int At, Merge Merge), long> _queue;

        public Queue(int[] symbols, TRules rules)
        {
            (_symbols, _rules) = (symbols, rules);
            (_next, _previous) = (new int[symbols.Length], new int[symbols.Length]);
            _queue = new(symbols.Length);
            for (int i = 0; i < symbols.Length; i++) (_next[i], _previous[i]) = (i + 1, i - 1);
            for (int i = 0; i + 1 < symbols.Length; i++) Look(i);
        }

        public int Merge(Span<int> into, int least)
        {
            int left = _symbols.Length;
            while (left > least && _queue.TryDequeue(out (int At, Merge Merge) pair, out _))
            {
                int right = _next[pair.At];
                if (_symbols[pair.At] != pair.Merge.Left || right >= _symbols.Length || _symbols[right] != pair.Merge.Right) continue;
                _symbols[pair.At] = pair.Merge.Result;
                _symbols[right] = Gone;
                _next[pair.At] = _next[right];
                if (_next[right] < _symbols.Length) _previous[_next[right]] = pair.At;
                left--;
                if (_previous[pair.At] >= 0) Look(_previous[pair.At]);
                Look(pair.At);
            }
            int to = 0;
            for (int from = 0; from < _symbols.Length; from = _next[from]) into[to++] = _symbols[from];
            return left;
        }

        /// <summary>Queues the pair that begins here, if it merges: by rank, then by place.</summary>
        private void Look(int at)
        {
            int next = _next[at];
            if (next < _symbols.Length && _rules.Find(_symbols[at], _symbols[next], out int rank, out int result))
                _queue.Enqueue((at, new Merge(_symbols[at], _symbols[next], result)), ((long)rank << 32) | (uint)at);
        }
    }
}
