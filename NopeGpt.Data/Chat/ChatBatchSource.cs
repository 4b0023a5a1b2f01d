namespace NopeGpt.Data.Chat;

/// <summary>How conversations become batches.</summary>
public sealed record ChatBatchOptions
{
    /// <summary>Rows in a batch.</summary>
    public int BatchSize { get; init; } = 1;

    public ChatSampleOptions Sample { get; init; } = new();

    /// <summary>Whether several conversations share a row of exactly <see cref="ChatSampleOptions.MaxTokens"/> ids. Otherwise each has a row, and
    /// rows are as long as the longest in their batch.</summary>
    public bool Packing { get; init; }

    /// <summary>For holdout and order.</summary>
    public ulong Seed { get; init; }

    /// <summary>Conversations that are held out.</summary>
    public int HoldoutSamples { get; init; }

    /// <summary>Which share of the batches this is, 0 to <see cref="Ranks"/> - 1.</summary>
    public int Rank { get; init; }

    /// <summary>Into how many shares the batches are divided.</summary>
    public int Ranks { get; init; } = 1;
}

/// <summary>Batches of conversations. A fixed set of them, chosen by the seed, is held out and never trained on; each epoch goes
/// through all rows of the others once, in an order of its own. Packed rows hold whole conversations, are the same in every epoch and lose
/// none. A batch is a pure function of (file, options, index). Safe for concurrent use.</summary>
public sealed class ChatBatchSource
{
    private readonly ChatFileSet _files;
    private readonly ChatBatchOptions _options;
    private readonly int _paddingId;
    private readonly int[] _training, _holdout;
    private readonly RowPacking? _trainingRows, _holdoutRows;

    /// <param name="file">the conversations</param>
    /// <param name="paddingId">what fills rows: <see cref="ChatFormat.PaddingId"/></param>
    /// <exception cref="ArgumentException">An option is out of range, or too few conversations are left; the message says why.</exception>
    public ChatBatchSource(ChatFile file, int paddingId, ChatBatchOptions options)
        : this([file], paddingId, options)
    {
    }

    /// <param name="files">the conversations of all of them, numbered through</param>
    /// <inheritdoc cref="ChatBatchSource(ChatFile, int, ChatBatchOptions)"/>
    public ChatBatchSource(IReadOnlyList<ChatFile> files, int paddingId, ChatBatchOptions options)
    {
        ArgumentNullException.ThrowIfNull(files);
        ArgumentNullException.ThrowIfNull(options);
        ChatFileSet file = new(files);
        Check(file, paddingId, options);
        (_files, _paddingId, _options) = (file, paddingId, options);
        int[] lengths = Lengths(file, options.Sample, out ChatStatistics statistics);
        Statistics = statistics;
        LongestSample = lengths.Length == 0 ? 0 : lengths.Max();
        if (statistics.Kept <= options.HoldoutSamples)
        {
            string dropped = string.Join(", ", statistics.Dropped.Select(reason => $"{reason.Key} {reason.Value}"));
            throw new ArgumentException($"Of the {file.Count} conversations in {file.Path}, {statistics.Kept} are left{(dropped.Length > 0 ? $" ({dropped})" : "")}; {options.HoldoutSamples} held out and at least 1 to train on need "
                + $"{options.HoldoutSamples + 1}: use more conversations, a smaller holdout, longer samples or other labels.", nameof(files));
        }
        // The holdout is the first of all conversations in the seed's order that are not dropped, so that other options change it as little as they can.
        Permutation split = new(file.Count, Mixing.Mix(options.Seed, ulong.MaxValue));
        int[] kept = new int[statistics.Kept];
        int count = 0;
        for (long i = 0; i < file.Count; i++)
            if (lengths[split[i]] > 0) kept[count++] = (int)split[i];
        (_holdout, _training) = (kept[..options.HoldoutSamples], kept[options.HoldoutSamples..]);
        if (!options.Packing) return;
        _trainingRows = new RowPacking(Array.ConvertAll(_training, number => lengths[number]), options.Sample.MaxTokens);
        _holdoutRows = new RowPacking(Array.ConvertAll(_holdout, number => lengths[number]), options.Sample.MaxTokens);
        FillRate = _training.Sum(number => (double)lengths[number]) / ((double)_trainingRows.Rows * options.Sample.MaxTokens);
    }

    /// <summary>What was kept and left out of the file, holdout included; Tokens are the ids that go in.</summary>
    public ChatStatistics Statistics { get; }

    /// <summary>Ids that go in of the longest conversation that is kept.</summary>
    public int LongestSample { get; }

    /// <summary>Conversations that are trained on once in every epoch.</summary>
    public int TrainingSamples => _training.Length;

    public int HoldoutSamples => _holdout.Length;

    /// <summary>Rows that are trained on once in every epoch: as many as samples, or fewer when packed.</summary>
    public int TrainingRows => _trainingRows?.Rows ?? _training.Length;

    /// <summary>Of packed training rows, the share that is not padding; null when they are not packed.</summary>
    public double? FillRate { get; }

    /// <summary>Batches of one rank in which all ranks together see an epoch's rows, rounded up: the last batch of an epoch goes on with the next.</summary>
    public long BatchesPerEpoch
    {
        get
        {
            long rows = (long)_options.BatchSize * _options.Ranks;
            return (TrainingRows + rows - 1) / rows;
        }
    }

    /// <summary>This rank's training batch of an index from 0 on, without end; always of all rows.</summary>
    public Batch Training(long index)
    {
        ArgumentOutOfRangeException.ThrowIfNegative(index);
        int[] rows = new int[_options.BatchSize];
        long epoch = -1, first = checked(((index * _options.Ranks) + _options.Rank) * _options.BatchSize);
        Permutation order = default;
        for (int row = 0; row < rows.Length; row++)
        {
            long number = first + row;
            if (number / TrainingRows != epoch)
            {
                epoch = number / TrainingRows;
                order = new Permutation(TrainingRows, Mixing.Mix(_options.Seed, (ulong)epoch));
            }
            rows[row] = (int)order[number % TrainingRows];
        }
        return Fetch(rows, _training, _trainingRows, 0);
    }

    /// <summary>The held-out conversations, the same in the same order on every rank; the last batch may have fewer rows.</summary>
    public IEnumerable<Batch> Holdout()
    {
        int rows = _holdoutRows?.Rows ?? _holdout.Length;
        for (int first = 0; first < rows; first += _options.BatchSize)
            yield return Fetch([.. Enumerable.Range(first, Math.Min(_options.BatchSize, rows - first))], _holdout, _holdoutRows, TrainingRows);
    }

    private static void Check(ChatFileSet file, int paddingId, ChatBatchOptions options)
    {
        (string Name, long Value, long Least, long Most)[] bounds =
        [
            ("batch size", options.BatchSize, 1, int.MaxValue),
            ("most tokens of a sample", options.Sample.MaxTokens, 1, int.MaxValue - 1),
            ("holdout samples", options.HoldoutSamples, 0, int.MaxValue),
            ("number of ranks", options.Ranks, 1, int.MaxValue),
            ("rank", options.Rank, 0, options.Ranks - 1),
            ("padding id", paddingId, 0, file.VocabularySize - 1),
            ("number of conversations", file.Count, 0, Array.MaxLength),
        ];
        foreach ((string name, long value, long least, long most) in bounds)
            if (value < least || value > most) throw new ArgumentException($"The {name} is {value}; it must be from {least} to {most}.", nameof(options));
    }

    /// <summary>Ids that go in for every conversation, 0 for one that is dropped.</summary>
    private static int[] Lengths(ChatFileSet file, ChatSampleOptions options, out ChatStatistics statistics)
    {
        int[] lengths = new int[file.Count];
        ChatCounter counter = new();
        int number = 0;
        foreach ((int tokens, ChatCut cut) in file.Cuts(options))
        {
            counter.Length(tokens);
            lengths[number++] = cut.Dropped is null ? cut.Length : 0;
            if (cut.Dropped is { } reason) counter.Drop(reason);
            else counter.Keep(cut.Length, cut.Labelled, cut.TokensCut);
        }
        statistics = counter.Result();
        return lengths;
    }

    private Batch Fetch(int[] rows, int[] samples, RowPacking? packing, long firstRow)
    {
        long[][] documents = new long[rows.Length][];
        for (int row = 0; row < rows.Length; row++)
        {
            int number = rows[row];
            ReadOnlySpan<int> items = packing is null ? new ReadOnlySpan<int>(in number) : packing[number];
            documents[row] = new long[items.Length];
            for (int i = 0; i < items.Length; i++) documents[row][i] = samples[items[i]];
        }
        int length = packing is null ? documents.Max(row => _files.Cut(row[0], _options.Sample).Length) : _options.Sample.MaxTokens;
        return Fill(documents, length) with { Windows = [.. rows.Select(row => firstRow + row)], Documents = documents, Packed = packing is not null };
    }

    private Batch Fill(long[][] documents, int length)
    {
        int size = checked(documents.Length * length);
        // All of it is written below.
        long[] tokens = GC.AllocateUninitializedArray<long>(size), targets = GC.AllocateUninitializedArray<long>(size);
        int[] sequences = GC.AllocateUninitializedArray<int>(size), positions = GC.AllocateUninitializedArray<int>(size);
        for (int row = 0; row < documents.Length; row++)
        {
            int at = row * length, end = at + length;
            for (int sequence = 0; sequence < documents[row].Length; sequence++)
                at += Mark(at, _files.ReadSample(documents[row][sequence], _options.Sample, tokens.AsSpan(at..end), targets.AsSpan(at..end)), sequence);
            tokens.AsSpan(at..end).Fill(_paddingId);
            targets.AsSpan(at..end).Fill(ChatFormat.IgnoredLabel);
            Mark(at, end - at, Batch.Padding);
        }
        return new Batch(documents.Length, length, tokens, targets, []) { Sequences = sequences, Positions = positions };

        int Mark(int at, int count, int sequence)
        {
            sequences.AsSpan(at, count).Fill(sequence);
            Span<int> places = positions.AsSpan(at, count);
            for (int i = 0; i < places.Length; i++) places[i] = i;
            return count;
        }
    }
}
