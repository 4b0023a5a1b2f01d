using System.Text;
using System.Text.Unicode;
using NopeGpt.Data.Documents.Framing;

namespace NopeGpt.Data.Documents.Parsing;

/// <summary>Makes records of the stretches that the framing found. Not for several threads at once.</summary>
internal abstract class RecordParser(string file)
{
    protected string File { get; } = file;

    /// <summary>True when bytes of the last record had to be replaced.</summary>
    public bool Repaired { get; protected set; }

    /// <summary>Parses one record.</summary>
    /// <param name="problem">Why there is none.</param>
    public abstract Record? Parse(ReadOnlySpan<byte> bytes, long row, out string? problem);

    /// <summary>Parses one record of which a column's text is all that is wanted.</summary>
    /// <param name="text">In valid UTF-8; it stays until the next record is parsed.</param>
    /// <returns>What the column holds; null where there is no record.</returns>
    public virtual FieldKind? ParseText(ReadOnlyMemory<byte> bytes, long row, string column, out ReadOnlyMemory<byte> text, out string? problem)
    {
        FieldValue value = default;
        Record? record = Parse(bytes.Span, row, out problem);
        if (record is not null) value = record[column];
        text = value.AsText is { } found ? Encoding.UTF8.GetBytes(found) : default;
        return record is null ? null : value.Kind;
    }

    /// <summary>The bytes, with what is not UTF-8 replaced by U+FFFD.</summary>
    protected ReadOnlySpan<byte> Valid(ReadOnlySpan<byte> bytes)
    {
        Repaired = !Utf8.IsValid(bytes);
        return Repaired ? Encoding.UTF8.GetBytes(Encoding.UTF8.GetString(bytes)) : bytes;
    }

    public static RecordParser For(FileFormat format, string file, string[]? wanted, CsvFraming? csv) => format switch
    {
        FileFormat.Text => new DocumentParser(file, wanted),
        FileFormat.Csv => new CsvParser(file, wanted, csv!.Columns, csv.Delimiter),
        _ => new JsonParser(file, wanted),
    };
}

internal sealed class DocumentParser(string file, string[]? wanted) : RecordParser(file)
{
    private readonly string[] _names = wanted ?? [TextFiles.Column];

    public override Record Parse(ReadOnlySpan<byte> bytes, long row, out string? problem)
    {
        problem = null;
        Repaired = !Utf8.IsValid(bytes);
        string text = Encoding.UTF8.GetString(bytes);
        if (text.Contains('\r', StringComparison.Ordinal)) text = text.Replace("\r\n", "\n", StringComparison.Ordinal).Replace('\r', '\n');
        // The last line end belongs to the separator or the file's end.
        if (text.EndsWith('\n')) text = text[..^1];
        return new(_names, [.. _names.Select(name => name == TextFiles.Column ? FieldValue.Of(text) : default)], File, row);
    }

    public override FieldKind? ParseText(ReadOnlyMemory<byte> bytes, long row, string column, out ReadOnlyMemory<byte> text, out string? problem)
    {
        if (column != TextFiles.Column || bytes.Span.Contains((byte)'\r') || !Utf8.IsValid(bytes.Span)) return base.ParseText(bytes, row, column, out text, out problem);
        (Repaired, problem) = (false, null);
        text = bytes.Span is [.., (byte)'\n'] ? bytes[..^1] : bytes;
        return FieldKind.Text;
    }
}

internal sealed class CsvParser : RecordParser
{
    private readonly string[] _header, _names;
    private readonly int[] _places;
    private readonly byte _delimiter;

    public CsvParser(string file, string[]? wanted, string[] header, byte delimiter) : base(file)
    {
        (_header, _names, _delimiter) = (header, wanted ?? header, delimiter);
        _places = [.. header.Select(name => Array.IndexOf(_names, name))];
    }

    public override Record? Parse(ReadOnlySpan<byte> bytes, long row, out string? problem)
    {
        problem = null;
        CsvRow fields = new(Valid(bytes), _delimiter);
        FieldValue[] values = new FieldValue[_names.Length];
        int count = 0;
        for (; fields.Next(out ReadOnlySpan<byte> field, out bool quoted); count++)
            if (count < _places.Length && _places[count] >= 0) values[_places[count]] = FieldValue.Of(CsvRow.Text(field, quoted));
        if (count == _header.Length) return new(_names, values, File, row);
        problem = $"the row has {count} fields and the file {_header.Length} columns; put quotation marks around texts that hold the separator '{(char)_delimiter}'";
        return null;
    }
}
