using System.Security.Cryptography;
using System.Text;
using NopeGpt.Data.Documents.Framing;
using NopeGpt.Data.Documents.Hub;
using NopeGpt.Data.Documents.Parquet;
using NopeGpt.Data.Documents.Parsing;

namespace NopeGpt.Data.Documents;

/// <summary>How a source is read.</summary>
public sealed record SourceOptions
{
    /// <summary>The columns to read, in this order; null for all. The others are not parsed.</summary>
    public IReadOnlyList<string>? Columns { get; init; }

    /// <summary>The most bytes of one record. Longer ones are left out and counted; a longer text document is cut at a line end.</summary>
    public int MaximumRecordBytes { get; init; } = 64 << 20;

    /// <summary>About how many bytes a shard has. Row groups of parquet are not cut.</summary>
    public int ShardBytes { get; init; } = 8 << 20;

    /// <summary>The files that are got ahead of the one that is read.</summary>
    public int FilesAhead { get; init; } = 2;
}

/// <summary>Files of one data set, read as one stream of records in a fixed order. Records, documents and shards are streamed: memory is
/// bounded by a shard, a record's greatest size and, for parquet, a page of each wanted column.</summary>
public sealed class Source
{
    private const int PeekedRecords = 100;
    private readonly SourceOptions _options;
    private readonly string[]? _columns;

    public Source(string name, IReadOnlyList<SourceFile> files, SourceOptions? options = null)
    {
        ArgumentNullException.ThrowIfNull(files);
        _options = options ?? new();
        ArgumentOutOfRangeException.ThrowIfLessThan(_options.MaximumRecordBytes, 1, nameof(options));
        ArgumentOutOfRangeException.ThrowIfLessThan(_options.ShardBytes, 1, nameof(options));
        ArgumentOutOfRangeException.ThrowIfNegative(_options.FilesAhead, nameof(options));
        if (files.Count == 0) throw new ArgumentException($"The source {name} has no files.", nameof(files));
        (Name, Files) = (name, files);
        _columns = _options.Columns is null ? null : [.. _options.Columns];
    }

    public string Name { get; }

    public IReadOnlyList<SourceFile> Files { get; }

    /// <summary>Bytes of all files as stored.</summary>
    public long Length => Files.Sum(f => f.Length);

    /// <summary>SHA-256 over names, lengths and versions of the files (times on this machine, hashes on the Hub): equal as long as nothing changed.</summary>
    public string Fingerprint => Convert.ToHexStringLower(SHA256.HashData(Encoding.UTF8.GetBytes(string.Join('\n', Files.Select(f => $"{f.Name}\t{f.Length}\t{f.Version}")))));

    /// <summary>The files that a path, a folder or a pattern (*, ?, **) on this machine means.</summary>
    /// <exception cref="FileNotFoundException">There are none.</exception>
    /// <exception cref="ArgumentException">A single file has no known ending.</exception>
    public static Source Open(string path, SourceOptions? options = null) => new(path, FileSet.Find(path), options);

    /// <summary>What an address means: a data set of the Hub (hub:OWNER/NAME and more, see <see cref="HubName"/>), or files as in <see cref="Open"/>.</summary>
    /// <param name="progress">Called from the threads that download.</param>
    /// <exception cref="HubException">The Hub has no such data set, or cannot be reached.</exception>
    /// <exception cref="FormatException">The address begins with hub: but is not of that form.</exception>
    public static async Task<Source> OpenAsync(string address, HubClient hub, SourceOptions? options = null, Action<DownloadProgress>? progress = null, CancellationToken cancel = default) =>
        HubName.IsHub(address) ? (await HubDataset.OpenAsync(hub, HubName.Parse(address), cancel).ConfigureAwait(false)).ToSource(options, progress) : Open(address, options);

    /// <summary>This source with only the columns of a mapping.</summary>
    public Source Select(ColumnMapping mapping)
    {
        ArgumentNullException.ThrowIfNull(mapping);
        return new(Name, Files, _options with { Columns = mapping.Columns });
    }

    /// <summary>Names of the columns, from the first file that can be read; of json and jsonl those of its first 100 records.</summary>
    /// <exception cref="InvalidDataException">No file can be read; the message says why.</exception>
    public IReadOnlyList<string> Columns(CancellationToken cancel = default)
    {
        string? reason = null;
        Source all = new(Name, Files, _options with { Columns = null, FilesAhead = 0, ShardBytes = Math.Min(_options.ShardBytes, 1 << 20) });
        for (int i = 0; i < Files.Count; i++)
        {
            try
            {
                if (all.ColumnsOf(i, cancel) is { Count: > 0 } columns) return columns;
                reason ??= $"{Files[i].Name} holds no record";
            }
            catch (InvalidDataException damage)
            {
                reason ??= $"{Files[i].Name}: {damage.Message}";
            }
        }
        throw new InvalidDataException($"{Name} has no columns: {reason}.");
    }

    /// <summary>Streams the shards that follow a position. Only the enumeration itself belongs to one thread.</summary>
    /// <exception cref="InvalidDataException">The position does not fit the source.</exception>
    public IEnumerable<Shard> Shards(ShardPosition from = default, CancellationToken cancel = default)
    {
        ShardPosition position = from;
        if (from.File < 0 || from.File > Files.Count || from.Offset < 0) throw new InvalidDataException($"The position {from} is not one of {Name}, which has {Files.Count} files; prepare it from the beginning.");
        while (position.File < Files.Count)
        {
            int file = position.File;
            foreach (Shard shard in FileShards(position, cancel))
            {
                cancel.ThrowIfCancellationRequested();
                yield return shard;
                position = shard.End;
            }
            if (position.File == file) position = new(position.Shard, file + 1, 0, 0);
        }
    }

    /// <summary>Streams all records.</summary>
    public IEnumerable<Record> Records(ReadingReport report, CancellationToken cancel = default) => Shards(default, cancel).SelectMany(s => s.Records(report));

    /// <summary>Streams all documents of a text column.</summary>
    public IEnumerable<string> Texts(ColumnMapping mapping, ReadingReport report, CancellationToken cancel = default) => Select(mapping).Shards(default, cancel).SelectMany(s => s.Texts(mapping, report));

    private List<string> ColumnsOf(int file, CancellationToken cancel)
    {
        SourceFile it = Files[file];
        string path = Path(file, cancel);
        if (it.Format == FileFormat.Parquet) return [.. ParquetShards.Open(path, it.Name).Columns];
        if (it.Format == FileFormat.Text) return [TextFiles.Column];
        (Stream stream, Framing.Framing framing, _) = OpenRecords(path, it);
        using Stream opened = stream;
        BlockCutter cutter = new(stream, framing, _options.ShardBytes);
        cutter.Open(0, 0);
        if (framing is CsvFraming csv) return [.. csv.Columns];
        JsonParser parser = new(it.Name, null);
        List<string> columns = [];
        string? reason = null;
        int seen = 0;
        while (seen < PeekedRecords && cutter.Next() is { } block)
        {
            foreach (Frame frame in block.Frames.Where(f => f.Kind == FrameKind.Whole).Take(PeekedRecords - seen))
            {
                seen++;
                if (parser.Parse(block.Bytes.AsSpan(frame.Start, frame.Length), frame.Row, out string? problem) is { } record) columns = [.. columns.Union(record.Names)];
                reason ??= problem;
            }
        }
        return columns.Count > 0 || reason is null ? columns : throw new InvalidDataException(reason);
    }

    private IEnumerable<Shard> FileShards(ShardPosition from, CancellationToken cancel)
    {
        string path = Path(from.File, cancel);
        return Files[from.File].Format == FileFormat.Parquet ? ParquetFileShards(path, from) : BlockShards(path, from);
    }

    private IEnumerable<Shard> BlockShards(string path, ShardPosition from)
    {
        SourceFile file = Files[from.File];
        (Stream stream, Framing.Framing framing, Func<long> position) = OpenRecords(path, file);
        using Stream opened = stream;
        BlockCutter cutter = new(stream, framing, _options.ShardBytes);
        if (Try(() => cutter.Open(from.Offset, from.Rows)) is { } problem)
        {
            yield return new BadFileShard(from, Behind(from), Fraction(from.File + 1, 0), file.Name, problem);
            yield break;
        }
        if (framing is CsvFraming csv && _columns is not null && csv.Columns.Length > 0 && !_columns.Any(csv.Columns.Contains))
        {
            yield return new BadFileShard(from, Behind(from), Fraction(from.File + 1, 0), file.Name, ColumnMapping.NoneOf(_columns, csv.Columns));
            yield break;
        }
        while (cutter.Next() is { } block)
        {
            ShardPosition end = new(from.Shard + 1, from.File, block.EndOffset, block.EndRows);
            double part = Math.Min(1, (stream.CanSeek ? block.EndOffset : position()) / Math.Max(1.0, file.Length));
            yield return new BlockShard(from, end, Fraction(from.File, part), file.Name, block, () => RecordParser.For(file.Format, file.Name, _columns, framing as CsvFraming), _options.MaximumRecordBytes);
            from = end;
        }
    }

    private IEnumerable<Shard> ParquetFileShards(string path, ShardPosition from)
    {
        SourceFile file = Files[from.File];
        ParquetShards? parquet = null;
        SchemaNode?[] columns = [];
        if (Try(() => columns = (parquet = ParquetShards.Open(path, file.Name)).Find(_columns)) is { } problem)
        {
            yield return new BadFileShard(from, Behind(from), Fraction(from.File + 1, 0), file.Name, problem);
            yield break;
        }
        string[] names = _columns ?? parquet!.Columns;
        while (from.Offset < parquet!.RowGroups)
        {
            int first = (int)from.Offset, behind = parquet.EndOf(first, columns, _options.ShardBytes);
            ShardPosition end = new(from.Shard + 1, from.File, behind, from.Rows + parquet.Rows(first, behind));
            yield return new RowGroupShard(from, end, Fraction(from.File, (double)behind / parquet.RowGroups), parquet, first, behind, columns, names);
            from = end;
        }
    }

    /// <summary>The file's place on this machine; begins to get the ones behind it.</summary>
    private string Path(int file, CancellationToken cancel)
    {
        Task<string> path = Files[file].PathAsync(cancel);
        for (int ahead = file + 1; ahead <= file + _options.FilesAhead && ahead < Files.Count; ahead++) Observe(Files[ahead].PathAsync(cancel));
        return path.GetAwaiter().GetResult();
    }

    /// <summary>A failure ahead of time is reported when the file's turn comes.</summary>
    private static void Observe(Task task) => task.ContinueWith(static t => _ = t.Exception, CancellationToken.None, TaskContinuationOptions.OnlyOnFaulted, TaskScheduler.Default);

    /// <summary>Opens a file of another format than parquet where its records stand.</summary>
    private (Stream Stream, Framing.Framing Framing, Func<long> Position) OpenRecords(string path, SourceFile file)
    {
        (long Begin, long End)? list = null;
        if (file.Format == FileFormat.Json)
            using (Stream search = SourceFile.OpenStream(path)) list = JsonEnvelope.Find(search);
        Stream stream = SourceFile.OpenStream(path, out Func<long> position);
        return list is var (begin, end) ? (new HeadStream(stream, end), new JsonFraming { MaximumBytes = _options.MaximumRecordBytes, ListAt = begin }, position) : (stream, FramingOf(file), position);
    }

    private Framing.Framing FramingOf(SourceFile file) => file.Format switch
    {
        FileFormat.Text => new DocumentFraming { MaximumBytes = _options.MaximumRecordBytes },
        FileFormat.Csv => new CsvFraming { MaximumBytes = _options.MaximumRecordBytes, Tabs = file.Name.Contains(".tsv", StringComparison.OrdinalIgnoreCase) },
        FileFormat.Json => new JsonFraming { MaximumBytes = _options.MaximumRecordBytes },
        _ => new LineFraming { MaximumBytes = _options.MaximumRecordBytes },
    };

    private double Fraction(int file, double part)
    {
        double before = 0, total = Math.Max(1, Length);
        for (int i = 0; i < file; i++) before += Files[i].Length;
        return Math.Min(1, (before + (file < Files.Count ? part * Files[file].Length : 0)) / total);
    }

    private static ShardPosition Behind(ShardPosition from) => new(from.Shard + 1, from.File + 1, 0, 0);

    private static string? Try(Action open)
    {
        try
        {
            open();
            return null;
        }
        catch (InvalidDataException damage)
        {
            return damage.Message;
        }
    }
}
