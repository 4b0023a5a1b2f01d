using System.Text;

namespace NopeGpt.Data.Documents.Framing;

/// <summary>Goes through the fields of one csv row. An empty row has one field.</summary>
internal ref struct CsvRow(ReadOnlySpan<byte> row, byte delimiter)
{
    private readonly ReadOnlySpan<byte> _row = row;
    private int _position;

    /// <param name="quoted">True when the field begins with a quotation mark; see <see cref="Text"/>.</param>
    public bool Next(out ReadOnlySpan<byte> field, out bool quoted)
    {
        field = default;
        quoted = false;
        if (_position > _row.Length) return false;
        ReadOnlySpan<byte> rest = _row[_position..];
        quoted = rest.Length > 0 && rest[0] == '"';
        int behindMarks = quoted ? Close(rest[1..]) + 1 : 0;
        int stop = rest[behindMarks..].IndexOf(delimiter);
        int length = stop < 0 ? rest.Length : behindMarks + stop;
        field = rest[..length];
        _position += length + 1;
        return true;
    }

    /// <summary>The field's text, without the marks around it. What stands behind a closing mark stays.</summary>
    public static string Text(ReadOnlySpan<byte> field, bool quoted)
    {
        if (!quoted) return Encoding.UTF8.GetString(field);
        ReadOnlySpan<byte> inner = field[1..];
        int behind = Close(inner), close = behind > 0 && inner[behind - 1] == '"' && IsClosed(inner[..behind]) ? behind - 1 : behind;
        return Encoding.UTF8.GetString(inner[..close]).Replace("\"\"", "\"", StringComparison.Ordinal) + Encoding.UTF8.GetString(inner[behind..]);
    }

    /// <summary>Where what stands behind the closing mark begins; the end when there is no such mark. Two marks are one of the text.</summary>
    private static int Close(ReadOnlySpan<byte> inner)
    {
        int from = 0;
        while (inner[from..].IndexOf((byte)'"') is int mark and >= 0)
        {
            from += mark + 1;
            if (from == inner.Length || inner[from] != '"') return from;
            from++;
        }
        return inner.Length;
    }

    /// <summary>Whether the last mark closes: it does when an odd number of them stand there together.</summary>
    private static bool IsClosed(ReadOnlySpan<byte> text) => (text.Length - 1 - text.LastIndexOfAnyExcept((byte)'"')) % 2 == 1;
}
