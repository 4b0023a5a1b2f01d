namespace NopeGpt.Data;

/// <summary>Cuts a token file into windows and hands them out in batches. Documents are packed: a window starts where the one before ended,
/// wherever that is in a document. A fixed set of windows, chosen by the seed, is held out and never trained on; each epoch goes through
/// all the others once, in an order of its own. A batch is a pure function of (file, sizes, seed, index), and nothing is kept for a window:
/// the orders are keyed bijections. Safe for concurrent use.</summary>
public sealed class BatchSource
{
    private readonly TokenFile _file;
    private readonly int _batchSize;
    private readonly int _length;
    private readonly ulong _seed;
    private readonly Permutation _split;

    /// <param name="file">the tokens</param>
    /// <param name="batchSize">rows in a batch</param>
    /// <param name="tokensPerSample">tokens in a row; the target of the last one is the first token of the next window</param>
    /// <param name="seed">for holdout and order</param>
    /// <param name="holdoutSamples">windows to hold out, 0 or more</param>
    /// <exception cref="ArgumentException">A size is out of range, or the file has too few tokens.</exception>
    public BatchSource(TokenFile file, int batchSize, int tokensPerSample, ulong seed, int holdoutSamples)
    {
        ArgumentNullException.ThrowIfNull(file);
        if (batchSize < 1) throw new ArgumentException($"The batch size is {batchSize}; it must be at least 1.", nameof(batchSize));
        if (tokensPerSample < 1) throw new ArgumentException($"The tokens per sample are {tokensPerSample}; there must be at least 1.", nameof(tokensPerSample));
        if (holdoutSamples < 0) throw new ArgumentException($"The holdout samples are {holdoutSamples}; they cannot be negative.", nameof(holdoutSamples));
        long windows = Math.Max(0, (file.Count - 1) / tokensPerSample);
        if (windows <= holdoutSamples)
        {
            throw new ArgumentException(
                $"The token file {file.Path} has {file.Count} tokens, which make {windows} samples of {tokensPerSample} tokens; {holdoutSamples} held out and at least 1 to train on need "
                + $"{((holdoutSamples + 1L) * tokensPerSample) + 1} tokens: use more text, shorter samples or a smaller holdout.", nameof(file));
        }
        (_file, _batchSize, _length, _seed) = (file, batchSize, tokensPerSample, seed);
        _split = new Permutation(windows, Mixing.Mix(seed, ulong.MaxValue));
        HoldoutWindows = holdoutSamples;
        TrainingWindows = windows - holdoutSamples;
    }

    /// <summary>Windows that are trained on once in every epoch.</summary>
    public long TrainingWindows { get; }

    public int HoldoutWindows { get; }

    /// <summary>Batches in which an epoch's windows are all seen, rounded up: the last batch of an epoch goes on with the next epoch.</summary>
    public long BatchesPerEpoch => (TrainingWindows + _batchSize - 1) / _batchSize;

    /// <summary>The training batch of an index from 0 on, without end; always full.</summary>
    public Batch Training(long index)
    {
        ArgumentOutOfRangeException.ThrowIfNegative(index);
        long[] windows = new long[_batchSize];
        long epoch = -1;
        Permutation order = default;
        for (int row = 0; row < _batchSize; row++)
        {
            long sample = checked((index * _batchSize) + row);
            if (sample / TrainingWindows != epoch)
            {
                epoch = sample / TrainingWindows;
                order = new Permutation(TrainingWindows, Mixing.Mix(_seed, (ulong)epoch));
            }
            windows[row] = _split[HoldoutWindows + order[sample % TrainingWindows]];
        }
        return Fetch(windows);
    }

    /// <summary>The held-out windows, always the same in the same order; the last batch may have fewer rows.</summary>
    public IEnumerable<Batch> Holdout()
    {
        for (int first = 0; first < HoldoutWindows; first += _batchSize)
        {
            long[] windows = new long[Math.Min(_batchSize, HoldoutWindows - first)];
            for (int row = 0; row < windows.Length; row++) windows[row] = _split[first + row];
            yield return Fetch(windows);
        }
    }

    /// <summary>For each row the document that its first token belongs to.</summary>
    public IReadOnlyList<long> DocumentIds(Batch batch)
    {
        ArgumentNullException.ThrowIfNull(batch);
        return [.. batch.Windows.Select(window => _file.DocumentAt(window * _length))];
    }

    private Batch Fetch(long[] windows)
    {
        long[] tokens = new long[windows.Length * _length], targets = new long[windows.Length * _length];
        int[] ids = new int[_length + 1];
        for (int row = 0; row < windows.Length; row++)
        {
            _file.Read(windows[row] * _length, ids);
            for (int i = 0; i < _length; i++)
            {
                tokens[(row * _length) + i] = ids[i];
                targets[(row * _length) + i] = ids[i + 1];
            }
        }
        return new Batch(windows.Length, _length, tokens, targets, windows);
    }
}
