using System.Globalization;
using System.Text;

namespace NopeGpt.Data.Documents.Parsing;

/// <summary>The text of JSON strings that are no text: they hold half a character, or bytes that are not UTF-8.</summary>
public static class JsonText
{
    /// <summary>The text of a JSON string that is known to be well formed but for such things, each of which becomes U+FFFD.</summary>
    /// <param name="escaped">What stands between the quotation marks.</param>
    public static string Unescape(ReadOnlySpan<byte> escaped)
    {
        string from = Encoding.UTF8.GetString(escaped);
        StringBuilder text = new(from.Length);
        for (int i = 0; i < from.Length; i++)
        {
            if (from[i] != '\\')
            {
                text.Append(from[i]);
                continue;
            }
            char kind = from[++i];
            if (kind == 'u')
            {
                text.Append((char)ushort.Parse(from.AsSpan(i + 1, 4), NumberStyles.HexNumber, CultureInfo.InvariantCulture));
                i += 4;
            }
            else
            {
                text.Append(kind switch { 'b' => '\b', 'f' => '\f', 'n' => '\n', 'r' => '\r', 't' => '\t', _ => kind });
            }
        }
        // The encoder replaces each half that has no other.
        return Encoding.UTF8.GetString(Encoding.UTF8.GetBytes(text.ToString()));
    }
}
