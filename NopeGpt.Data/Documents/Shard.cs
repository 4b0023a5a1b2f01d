using System.Buffers;
using System.Text;
using NopeGpt.Data.Documents.Framing;
using NopeGpt.Data.Documents.Parsing;

namespace NopeGpt.Data.Documents;

/// <summary>A part of a source, of bounded size: the unit of parallel and of resumable work. Shards are made one after the other by
/// <see cref="Source.Shards"/>; each can be read on any thread, several at once, and more than once.</summary>
public abstract class Shard
{
    private protected Shard(ShardPosition start, ShardPosition end, double fraction) => (Start, End, Fraction) = (start, end, fraction);

    public ShardPosition Start { get; }

    /// <summary>Where reading goes on after this shard.</summary>
    public ShardPosition End { get; }

    /// <summary>The part of the source, by stored bytes, that is done when this shard is; from 0 to 1.</summary>
    public double Fraction { get; }

    /// <summary>Streams the records. What is wrong is counted in the report.</summary>
    public IEnumerable<Record> Records(ReadingReport report)
    {
        ArgumentNullException.ThrowIfNull(report);
        foreach (Record record in Read(report))
        {
            report.Records++;
            yield return record;
        }
    }

    /// <summary>Streams the documents of a text column. Empty ones are left out and counted, records without text are counted as bad.</summary>
    /// <exception cref="ArgumentException">The mapping names no text column.</exception>
    public IEnumerable<string> Texts(ColumnMapping mapping, ReadingReport report) => Utf8Texts(mapping, report).Select(text => Encoding.UTF8.GetString(text.Span));

    /// <summary>As <see cref="Texts"/>, in valid UTF-8: the quickest way. Each document stays in memory until the next one is asked for.</summary>
    /// <exception cref="ArgumentException">The mapping names no text column.</exception>
    public IEnumerable<ReadOnlyMemory<byte>> Utf8Texts(ColumnMapping mapping, ReadingReport report)
    {
        ArgumentNullException.ThrowIfNull(mapping);
        ArgumentNullException.ThrowIfNull(report);
        string column = mapping.Text ?? throw new ArgumentException($"The column mapping \"{mapping}\" names no text column; add text=COLUMN.", nameof(mapping));
        return Utf8Texts(column, report);
    }

    /// <summary>Gives memory back for the shards that follow. The shard can not be read any more.</summary>
    internal virtual void Release()
    {
    }

    private protected abstract IEnumerable<Record> Read(ReadingReport report);

    /// <summary>What each record has in a column.</summary>
    private protected abstract IEnumerable<ColumnText> ReadColumn(string column, ReadingReport report);

    private IEnumerable<ReadOnlyMemory<byte>> Utf8Texts(string column, ReadingReport report)
    {
        foreach (ColumnText value in ReadColumn(column, report))
        {
            if (value.Kind != FieldKind.Text)
            {
                string found = value.Kind == FieldKind.Null ? "nothing" : value.Kind == FieldKind.Whole ? "a number" : $"a {value.Kind.ToString().ToLowerInvariant()}";
                report.AddBad(value.File, value.Row, $"there is no text in \"{column}\" but {found}; name the column that holds the text, or repair the record");
                continue;
            }
            if (IsWhiteSpace(value.Utf8.Span))
            {
                report.AddEmpty(value.File, value.Row);
                continue;
            }
            report.Records++;
            yield return value.Utf8;
        }
    }

    private static bool IsWhiteSpace(ReadOnlySpan<byte> utf8)
    {
        while (Rune.DecodeFromUtf8(utf8, out Rune first, out int length) == OperationStatus.Done && Rune.IsWhiteSpace(first)) utf8 = utf8[length..];
        return utf8.IsEmpty;
    }
}

/// <summary>What a record has in the column that is wanted of it.</summary>
/// <param name="Utf8">Of a text; it stays until the next record is read.</param>
internal readonly record struct ColumnText(FieldKind Kind, ReadOnlyMemory<byte> Utf8, string File, long Row);

/// <summary>Records in a block of bytes that is already in memory.</summary>
internal sealed class BlockShard(ShardPosition start, ShardPosition end, double fraction, string file, Block block, Func<RecordParser> parser, int maximumBytes) : Shard(start, end, fraction)
{
    private Block? _block = block;

    internal override void Release()
    {
        _block?.Release();
        _block = null;
    }

    private protected override IEnumerable<Record> Read(ReadingReport report)
    {
        RecordParser records = parser();
        Block block = Begin(report);
        foreach (Frame frame in Usable(block, report))
        {
            Record? record = records.Parse(block.Bytes.AsSpan(frame.Start, frame.Length), frame.Row, out string? problem);
            Note(report, frame, records.Repaired, problem);
            if (record is not null) yield return record;
        }
    }

    private protected override IEnumerable<ColumnText> ReadColumn(string column, ReadingReport report)
    {
        RecordParser records = parser();
        Block block = Begin(report);
        foreach (Frame frame in Usable(block, report))
        {
            FieldKind? kind = records.ParseText(block.Bytes.AsMemory(frame.Start, frame.Length), frame.Row, column, out ReadOnlyMemory<byte> text, out string? problem);
            Note(report, frame, records.Repaired, problem);
            if (kind is { } found) yield return new(found, text, file, frame.Row);
        }
    }

    private Block Begin(ReadingReport report)
    {
        ObjectDisposedException.ThrowIf(_block is null, this);
        report.Bytes += End.File == Start.File ? End.Offset - Start.Offset : _block.Length;
        return _block;
    }

    /// <summary>The stretches that may be records. What is wrong with the others, and with the file behind them, is counted.</summary>
    private IEnumerable<Frame> Usable(Block block, ReadingReport report)
    {
        foreach (Frame frame in block.Frames)
        {
            if (frame.Kind is FrameKind.TooLong or FrameKind.NeverCloses)
            {
                report.AddBad(file, frame.Row, frame.Kind == FrameKind.TooLong
                    ? $"the record is longer than {maximumBytes} bytes; a line end may be missing, or raise the limit"
                    : "a quotation mark or bracket that opens here never closes; add the missing one");
                continue;
            }
            if (frame.Kind == FrameKind.Empty)
            {
                report.AddEmpty(file, frame.Row);
                continue;
            }
            if (frame.Kind == FrameKind.Part) report.AddCut(file, frame.Row, maximumBytes);
            yield return frame;
        }
        if (block.Problem is not null) report.AddBadFile(file, block.Problem);
    }

    private void Note(ReadingReport report, Frame frame, bool repaired, string? problem)
    {
        if (problem is not null) report.AddBad(file, frame.Row, problem);
        else if (repaired) report.AddRepaired(file, frame.Row);
    }
}

/// <summary>A file, or the rest of one, that cannot be read.</summary>
internal sealed class BadFileShard(ShardPosition start, ShardPosition end, double fraction, string file, string reason) : Shard(start, end, fraction)
{
    private protected override IEnumerable<Record> Read(ReadingReport report)
    {
        report.AddBadFile(file, reason);
        yield break;
    }

    private protected override IEnumerable<ColumnText> ReadColumn(string column, ReadingReport report)
    {
        report.AddBadFile(file, reason);
        yield break;
    }
}
