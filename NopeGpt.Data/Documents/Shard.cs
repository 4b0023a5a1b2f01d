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
    public IEnumerable<string> Texts(ColumnMapping mapping, ReadingReport report)
    {
        ArgumentNullException.ThrowIfNull(mapping);
        ArgumentNullException.ThrowIfNull(report);
        string column = mapping.Text ?? throw new ArgumentException($"The column mapping \"{mapping}\" names no text column; add text=COLUMN.", nameof(mapping));
        return Texts(column, report);
    }

    private protected abstract IEnumerable<Record> Read(ReadingReport report);

    private IEnumerable<string> Texts(string column, ReadingReport report)
    {
        foreach (Record record in Read(report))
        {
            FieldValue value = record[column];
            if (value.AsText is not { } text)
            {
                string found = value.IsNull ? "nothing" : value.Kind == FieldKind.Whole ? "a number" : $"a {value.Kind.ToString().ToLowerInvariant()}";
                report.AddBad(record.File, record.Row, $"there is no text in \"{column}\" but {found}; name the column that holds the text, or repair the record");
                continue;
            }
            if (string.IsNullOrWhiteSpace(text))
            {
                report.AddEmpty(record.File, record.Row);
                continue;
            }
            report.Records++;
            yield return text;
        }
    }
}

/// <summary>Records in a block of bytes that is already in memory.</summary>
internal sealed class BlockShard(ShardPosition start, ShardPosition end, double fraction, string file, Block block, Func<RecordParser> parser, int maximumBytes) : Shard(start, end, fraction)
{
    private protected override IEnumerable<Record> Read(ReadingReport report)
    {
        report.Bytes += End.File == Start.File ? End.Offset - Start.Offset : block.Length;
        RecordParser records = parser();
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
            Record? record = records.Parse(block.Bytes.AsSpan(frame.Start, frame.Length), frame.Row, out string? problem);
            if (record is null)
            {
                report.AddBad(file, frame.Row, problem!);
                continue;
            }
            if (records.Repaired) report.AddRepaired(file, frame.Row);
            yield return record;
        }
        if (block.Problem is not null) report.AddBadFile(file, block.Problem);
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
}
