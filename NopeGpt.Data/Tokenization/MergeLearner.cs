namespace NopeGpt.Data.Tokenization;

/// <summary>Learns merges from counted words: the most frequent pair of neighbours becomes a token, again and again; of equally frequent ones the smaller
/// pair of ids, as in Hugging Face's trainer. What merges inside a token's bytes does not depend on what stands around them, so that every token is made by
/// one merge only; and a pair comes about only when the newer of its tokens does, so that it waits with all its words, and its count only falls.</summary>
/// <param name="tokens">The tokens that there are already, bytes by id; grows.</param>
internal sealed class MergeLearner(List<byte[]> tokens)
{
    private const int ProgressEvery = 64;

    private readonly PairCounts _counts = new();
    private readonly MergeQueue _queue = new();
    private readonly List<Merge> _merges = [];
    private int[] _symbols = [], _starts = [], _lengths = [];
    private long[] _occurrences = [];

    // What a merge of (left, right) to a token changes, by x: pairs (x, left) become (x, token), and (right, x) become (token, x).
    private Change[] _before = [], _after = [];
    private readonly List<int> _changedBefore = [], _changedAfter = [];

    /// <param name="byteIds">The tokens of the bytes.</param>
    public void Take(WordCounts words, int[] byteIds)
    {
        List<int> symbols = [], starts = [], lengths = [];
        List<long> occurrences = [];
        words.Each((bytes, count) =>
        {
            if (bytes.Length < 2) return;
            starts.Add(symbols.Count);
            lengths.Add(bytes.Length);
            occurrences.Add(count);
            foreach (byte value in bytes) symbols.Add(byteIds[value]);
        });
        (_symbols, _starts, _lengths, _occurrences) = ([.. symbols], [.. starts], [.. lengths], [.. occurrences]);
    }

    /// <summary>Merges until there are so many tokens or no pair that is frequent enough.</summary>
    /// <param name="progress">Is told the number of tokens from time to time.</param>
    public List<Merge> Learn(int vocabularySize, long minimumFrequency, Action<int>? progress, CancellationToken cancel)
    {
        CountPairs();
        while (tokens.Count < vocabularySize && _queue.Count > 0)
        {
            cancel.ThrowIfCancellationRequested();
            MergeQueue.Entry top = _queue.Take();
            long count = _counts[top.Pair];
            if (count != top.Occurrences)
            {
                if (count > 0) _queue.Add(top with { Occurrences = count });
                continue;
            }
            if (count < Math.Max(1, minimumFrequency)) break;
            (int left, int right) = ((int)(top.Pair >> 32), (int)top.Pair);
            int token = tokens.Count;
            tokens.Add([.. tokens[left], .. tokens[right]]);
            if (tokens.Count > _before.Length) (_before, _after) = (Grown(_before, tokens.Count), Grown(_after, tokens.Count));
            _merges.Add(new(left, right, token));
            for (int list = top.Words; list != MergeQueue.None; list = _queue.Drop(list)) MergeWord(_queue.WordOf(list), left, right, token);
            ApplyChanges(left, right, token);
            if (tokens.Count % ProgressEvery == 0) progress?.Invoke(tokens.Count);
        }
        return _merges;
    }

    private void CountPairs()
    {
        Dictionary<ulong, (long Count, int Words)> pairs = [];
        for (int word = 0; word < _starts.Length; word++)
        {
            ReadOnlySpan<int> symbols = _symbols.AsSpan(_starts[word], _lengths[word]);
            for (int i = 0; i + 1 < symbols.Length; i++)
            {
                ref (long Count, int Words) pair = ref System.Runtime.InteropServices.CollectionsMarshal.GetValueRefOrAddDefault(pairs, Pair(symbols[i], symbols[i + 1]), out bool known);
                if (!known) pair.Words = MergeQueue.None;
                pair.Count += _occurrences[word];
                if (!known || _queue.WordOf(pair.Words) != word) pair.Words = _queue.AddWord(word, pair.Words);
            }
        }
        foreach ((ulong pair, (long count, int words)) in pairs)
        {
            _counts.Add(pair, count);
            _queue.Add(new(count, pair, words));
        }
    }

    private void MergeWord(int word, int left, int right, int token)
    {
        Span<int> symbols = _symbols.AsSpan(_starts[word], _lengths[word]);
        long count = _occurrences[word];
        int to = 0;
        for (int from = 0; from < symbols.Length; from++)
        {
            if (symbols[from] != left || from + 1 == symbols.Length || symbols[from + 1] != right)
            {
                symbols[to++] = symbols[from];
                continue;
            }
            if (to > 0) Note(_before, _changedBefore, symbols[to - 1], word, count);
            if (from + 2 < symbols.Length) Note(_after, _changedAfter, symbols[from + 2], word, count);
            symbols[to++] = token;
            from++;
        }
        _lengths[word] = to;
    }

    private void Note(Change[] changes, List<int> changed, int neighbour, int word, long count)
    {
        ref Change change = ref changes[neighbour];
        if (change.Words == MergeQueue.None) changed.Add(neighbour);
        change.Count += count;
        if (change.Words == MergeQueue.None || _queue.WordOf(change.Words) != word) change.Words = _queue.AddWord(word, change.Words);
    }

    private void ApplyChanges(int left, int right, int token)
    {
        // All counts first: what a pair waits with is its count after the whole merge.
        foreach (int x in _changedBefore)
        {
            _counts.Add(Pair(x, left), -_before[x].Count);
            _counts.Add(Pair(x, token), _before[x].Count);
        }
        foreach (int x in _changedAfter)
        {
            _counts.Add(Pair(right, x), -_after[x].Count);
            _counts.Add(Pair(token, x), _after[x].Count);
        }
        foreach (int x in _changedBefore) Wait(ref _before[x], Pair(x, token));
        foreach (int x in _changedAfter) Wait(ref _after[x], Pair(token, x));
        _changedBefore.Clear();
        _changedAfter.Clear();
    }

    private void Wait(ref Change change, ulong pair)
    {
        if (_counts[pair] is > 0 and long count) _queue.Add(new(count, pair, change.Words));
        else
            for (int list = change.Words; list != MergeQueue.None;) list = _queue.Drop(list);
        change = new() { Words = MergeQueue.None };
    }

    private static ulong Pair(int left, int right) => ((ulong)(uint)left << 32) | (uint)right;

    private static Change[] Grown(Change[] changes, int least)
    {
        int known = changes.Length;
        Array.Resize(ref changes, 2 * least);
        changes.AsSpan(known).Fill(new() { Words = MergeQueue.None });
        return changes;
    }

    private struct Change
    {
        public long Count;
        public int Words;
    }
}
