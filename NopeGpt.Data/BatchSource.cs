namespace NopeGpt.Data;

/// <summary>Cuts token files into windows and hands them out in batches. A fixed set of windows of each file, chosen by the seed, is held out and never
/// trained on; each epoch goes through all the others once, in an order of its own. Several files are mixed by their weights, sample for sample, and each
/// has epochs of its own. A batch is a pure function of (files, options, index): the ranks' batches of an index follow each other in the one order of
/// all samples. Nothing is kept for a window: the orders within files are keyed bijections. Safe for concurrent use.</summary>
public sealed class BatchSource
{
    /// <summary>The target that is not to be predicted.</summary>
    public const int IgnoredTarget = -100;

    private readonly BatchOptions _options;
    private readonly Part[] _parts;
    private readonly MixtureOrder _mixture;
    private readonly int[] _holdout;

    /// <param name="file">the tokens</param>
    /// <param name="batchSize">rows in a batch</param>
    /// <param name="tokensPerSample">tokens in a row; the target of the last one is the first token of the next window</param>
    /// <param name="seed">for holdout and order</param>
    /// <param name="holdoutSamples">windows to hold out, 0 or more</param>
    /// <exception cref="ArgumentException">A size is out of range, or the file has too few tokens.</exception>
    public BatchSource(TokenFile file, int batchSize, int tokensPerSample, ulong seed, int holdoutSamples)
        : this(file, new BatchOptions { BatchSize = batchSize, TokensPerSample = tokensPerSample, Seed = seed, HoldoutSamples = holdoutSamples })
    {
    }

    /// <param name="file">the tokens</param>
    /// <exception cref="ArgumentException">An option is out of range, or the file has too few tokens.</exception>
    public BatchSource(TokenFile file, BatchOptions options) : this([new MixedFile(file)], options)
    {
    }

    /// <param name="files">the tokens, all of one tokenizer</param>
    /// <exception cref="ArgumentException">An option or weight is out of range, the files do not go together, or one has too few tokens.</exception>
    public BatchSource(IReadOnlyList<MixedFile> files, BatchOptions options)
    {
        ArgumentNullException.ThrowIfNull(files);
        ArgumentNullException.ThrowIfNull(options);
        Check(options);
        Check(files, options);
        _options = options;
        _parts = new Part[files.Count];
        long windows = 0, documents = 0;
        for (int i = 0; i < _parts.Length; i++)
        {
            _parts[i] = new Part(files[i].File, options, i, windows, documents);
            windows += _parts[i].Windows.Count;
            documents += files[i].File.DocumentCount;
        }
        _mixture = new MixtureOrder([.. files.Select(f => f.Weight)]);
        _holdout = _mixture.Divide(options.HoldoutSamples);
        TrainingWindows = _parts.Sum(part => part.TrainingWindows);
    }

    /// <summary>Windows that are trained on; of one file once in every epoch, of several as often as their weights say.</summary>
    public long TrainingWindows { get; }

    /// <summary>Windows of the holdout batches.</summary>
    public int HoldoutWindows => _options.HoldoutSamples;

    /// <summary>Batches of one rank in which all ranks together see as many windows as there are, rounded up: the last batch of an epoch goes on with
    /// the next epoch.</summary>
    public long BatchesPerEpoch => (TrainingWindows + SamplesPerIndex - 1) / SamplesPerIndex;

    private long SamplesPerIndex => (long)_options.BatchSize * _options.Ranks;

    /// <summary>The position of the batches of an index from 0 on.</summary>
    public BatchPosition At(long index)
    {
        ArgumentOutOfRangeException.ThrowIfNegative(index);
        return new BatchPosition(checked(index * SamplesPerIndex));
    }

    /// <summary>The position behind the batches of a position.</summary>
    public BatchPosition After(BatchPosition position) => new(checked(position.Samples + SamplesPerIndex));

    /// <summary>How often each file has been gone through at a position.</summary>
    public IReadOnlyList<double> Epochs(BatchPosition position) =>
        [.. Enumerable.Range(0, _parts.Length).Select(i => position.Samples * _mixture.Share(i) / _parts[i].TrainingWindows)];

    /// <summary>This rank's training batch of an index from 0 on, without end; always full.</summary>
    public Batch Training(long index) => Training(At(index));

    /// <summary>This rank's training batch of an index, in the arrays of a batch of this source that nobody needs any more: most of what a batch costs
    /// is its memory.</summary>
    public Batch Training(long index, Batch? reuse) => Training(At(index), reuse);

    /// <summary>This rank's training batch of a position, in the arrays of another where one is given.</summary>
    public Batch Training(BatchPosition position, Batch? reuse = null)
    {
        ArgumentOutOfRangeException.ThrowIfNegative(position.Samples, nameof(position));
        long first = checked(position.Samples + ((long)_options.Rank * _options.BatchSize));
        long[] windows = new long[_options.BatchSize];
        for (int row = 0; row < windows.Length; row++)
        {
            (int source, long index) = _mixture[checked(first + row)];
            windows[row] = _parts[source].Training(index);
        }
        return Fetch(windows, reuse);
    }

    /// <summary>The held-out windows, the same in the same order on every rank; the last batch may have fewer rows.</summary>
    public IEnumerable<Batch> Holdout()
    {
        long[] all = [.. _holdout.SelectMany((count, source) => Enumerable.Range(0, count).Select(i => _parts[source].HeldOut(i)))];
        foreach (long[] windows in all.Chunk(_options.BatchSize)) yield return Fetch(windows, null);
    }

    /// <summary>For each row the document that its first token belongs to; documents of several files are numbered one after the other.</summary>
    public IReadOnlyList<long> DocumentIds(Batch batch)
    {
        ArgumentNullException.ThrowIfNull(batch);
        return [.. batch.Windows.Select(window => PartOf(window).DocumentOf(window))];
    }

    private static void Check(BatchOptions options)
    {
        if (options.BatchSize < 1) throw new ArgumentException($"The batch size is {options.BatchSize}; it must be at least 1.", nameof(options));
        if (options.TokensPerSample is < 1 or int.MaxValue) throw new ArgumentException($"The tokens per sample are {options.TokensPerSample}; there must be at least 1.", nameof(options));
        if ((long)options.BatchSize * options.TokensPerSample > Array.MaxLength)
            throw new ArgumentException($"A batch of {options.BatchSize} samples of {options.TokensPerSample} tokens is too large; make one of them smaller.", nameof(options));
        if (options.HoldoutSamples < 0) throw new ArgumentException($"The holdout samples are {options.HoldoutSamples}; they cannot be negative.", nameof(options));
        if (options.Ranks < 1) throw new ArgumentException($"The number of ranks is {options.Ranks}; it must be at least 1.", nameof(options));
        if (options.Rank < 0 || options.Rank >= options.Ranks) throw new ArgumentException($"The rank is {options.Rank}; it must be from 0 to {options.Ranks - 1}.", nameof(options));
    }

    private static void Check(IReadOnlyList<MixedFile> files, BatchOptions options)
    {
        if (files.Count == 0) throw new ArgumentException("There is no token file; give at least one.", nameof(files));
        foreach ((TokenFile file, double weight) in files)
        {
            ArgumentNullException.ThrowIfNull(file, nameof(files));
            if (!double.IsFinite(weight) || weight <= 0) throw new ArgumentException($"The weight of {file.Path} is {weight}; it must be more than 0.", nameof(files));
            if (file.TokenizerHash != files[0].File.TokenizerHash || file.VocabularySize != files[0].File.VocabularySize)
                throw new ArgumentException($"The token files {files[0].File.Path} and {file.Path} were made with different tokenizers; prepare one of them with the other's.", nameof(files));
            if (!options.Packed && (uint)options.PaddingId >= (uint)file.VocabularySize)
                throw new ArgumentException($"The padding id is {options.PaddingId}; it must be one of the vocabulary of {file.VocabularySize} tokens.", nameof(options));
        }
    }

    private Part PartOf(long window)
    {
        int source = _parts.Length - 1;
        while (_parts[source].FirstWindow > window) source--;
        return _parts[source];
    }

    private Batch Fetch(long[] windows, Batch? reuse)
    {
        int length = _options.TokensPerSample, size = windows.Length * length;
        if (reuse is not null && (reuse.Rows != windows.Length || reuse.Length != length || reuse.Sequences is null != _options.Packed))
            throw new ArgumentException($"A batch of {reuse.Rows} rows of {reuse.Length} tokens is not one of this source.", nameof(reuse));
        long[] tokens = reuse?.Tokens ?? GC.AllocateUninitializedArray<long>(size), targets = reuse?.Targets ?? GC.AllocateUninitializedArray<long>(size);
        int[]? sequences = _options.Packed ? null : reuse?.Sequences ?? new int[size];
        int[] ids = System.Buffers.ArrayPool<int>.Shared.Rent(length + 1);
        try
        {
            for (int row = 0; row < windows.Length; row++)
            {
                int used = PartOf(windows[row]).Read(windows[row], ids);
                Span<long> rowTokens = tokens.AsSpan(row * length, length), rowTargets = targets.AsSpan(row * length, length);
                Ids.Widen(ids.AsSpan(0, used), rowTokens);
                rowTokens[1..used].CopyTo(rowTargets);
                rowTargets[used - 1] = ids[used];
                rowTokens[used..].Fill(_options.PaddingId);
                rowTargets[used..].Fill(IgnoredTarget);
                if (sequences is null) continue;
                sequences.AsSpan(row * length, used).Clear();
                sequences.AsSpan((row * length) + used, length - used).Fill(Batch.Padding);
            }
        }
        finally { System.Buffers.ArrayPool<int>.Shared.Return(ids); }
        return new Batch(windows.Length, length, tokens, targets, windows) { Sequences = sequences };
    }

    /// <summary>One file of the mixture. Its windows are numbered behind those of the files before it.</summary>
    private sealed class Part
    {
        private readonly TokenFile _file;
        private readonly ulong _order;
        private readonly long _firstDocument;
        private readonly int _held;
        private readonly Permutation _split;

        public Part(TokenFile file, BatchOptions options, int source, long firstWindow, long firstDocument)
        {
            (_file, FirstWindow, _firstDocument, _held) = (file, firstWindow, firstDocument, options.HoldoutSamples);
            Windows = options.Packed ? new PackedWindows(file, options.TokensPerSample) : new DocumentWindows(file, options.TokensPerSample);
            if (Windows.Count <= _held) throw TooFew(options);
            TrainingWindows = Windows.Count - _held;
            // The holdout does not depend on what a file is mixed with, so that a model can be measured on any of its files alone.
            _split = new Permutation(Windows.Count, Mixing.Mix(options.Seed, ulong.MaxValue));
            _order = source == 0 ? options.Seed : Mixing.Mix(options.Seed, ulong.MaxValue - 1 - (ulong)source);
        }

        public Windows Windows { get; }

        public long FirstWindow { get; }

        public long TrainingWindows { get; }

        public long HeldOut(int index) => FirstWindow + _split[index];

        public long Training(long index)
        {
            (long epoch, long place) = Math.DivRem(index, TrainingWindows);
            return FirstWindow + _split[_held + new Permutation(TrainingWindows, Mixing.Mix(_order, (ulong)epoch))[place]];
        }

        /// <summary>Reads a window and the token after it.</summary>
        /// <returns>Tokens of the window.</returns>
        public int Read(long window, int[] into)
        {
            (long start, int length) = Windows[window - FirstWindow];
            _file.Read(start, into.AsSpan(0, length + 1));
            return length;
        }

        public long DocumentOf(long window) => _firstDocument + _file.DocumentAt(Windows[window - FirstWindow].Start);

        private ArgumentException TooFew(BatchOptions options)
        {
            string have = $"The token file {_file.Path} has {_file.Count} tokens, which make {Windows.Count} samples of {options.TokensPerSample} tokens; {_held} held out and at least 1 to train on need ";
            return new ArgumentException(have + (options.Packed
                ? $"{((_held + 1L) * options.TokensPerSample) + 1} tokens: use more text, shorter samples or a smaller holdout."
                : $"{_held + 1L} samples: use more documents, shorter samples or a smaller holdout."));
        }
    }
}
