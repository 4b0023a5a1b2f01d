using System.Globalization;
using System.Text.RegularExpressions;

namespace NopeGpt.Jobs.Queue;

/// <summary>A range of numbers: A..B, A..B*N or A..B+N.</summary>
internal static partial class AxisRange
{
    // What is computed is not exact in its last digits, which nobody wants to read.
    private const string Digits = "G12";

    public static bool IsRange(string text) => text.Contains("..", StringComparison.Ordinal);

    /// <summary>The numbers of a range, as texts that the setting reads.</summary>
    /// <param name="whole">The setting takes whole numbers: those in between are rounded.</param>
    /// <param name="most">More numbers than that are refused before they are made.</param>
    /// <exception cref="FormatException">It is none; the message says why, with the cure.</exception>
    public static IReadOnlyList<string> Points(string text, bool whole, int most)
    {
        Match match = Pattern().Match(text);
        if (!match.Success || !TryRead(match, "a", out decimal first) || !TryRead(match, "b", out decimal last)) throw new FormatException($"is no range: use {SweepAxis.Forms}");
        if (whole && (!IsWhole(first) || !IsWhole(last))) throw new FormatException("must begin and end with whole numbers");
        if (match.Groups["n"].Value is not { Length: > 0 } count) return OneByOne(first, last, most);
        if (!int.TryParse(count, NumberStyles.None, CultureInfo.InvariantCulture, out int points) || points < 2 || points > most) throw new FormatException($"has {count} numbers: from 2 to {most} can be asked for");
        bool grows = match.Groups["op"].Value == "*";
        if (grows && (first == 0 || last == 0 || first > 0 != last > 0)) throw new FormatException("cannot grow by a factor: both ends must be above 0, or both below; use A..B+N");
        return [.. Enumerable.Range(0, points).Select(i => i == 0 ? Text(first) : i == points - 1 ? Text(last) : Between(first, last, (double)i / (points - 1), grows, whole))];
    }

    private static IReadOnlyList<string> OneByOne(decimal first, decimal last, int most)
    {
        if (!IsWhole(first) || !IsWhole(last)) throw new FormatException("needs a number of points: A..B*N for the same factor, A..B+N for the same distance");
        if (last < first) throw new FormatException("ends before it begins: exchange its ends");
        if (last - first >= most) throw new FormatException($"has {last - first + 1} numbers: at most {most}; use A..B*N or A..B+N");
        return [.. Enumerable.Range(0, (int)(last - first) + 1).Select(i => Text(first + i))];
    }

    private static string Between(decimal first, decimal last, double part, bool grows, bool whole)
    {
        // The distance of whole numbers keeps all their digits.
        if (whole && !grows) return Text(decimal.Round(first + ((last - first) * (decimal)part), MidpointRounding.AwayFromZero));
        double from = (double)first, to = (double)last, value = grows ? from * Math.Pow(to / from, part) : from + ((to - from) * part);
        return whole ? Text(decimal.Round((decimal)value, MidpointRounding.AwayFromZero)) : value.ToString(Digits, CultureInfo.InvariantCulture);
    }

    private static bool IsWhole(decimal number) => decimal.Truncate(number) == number;

    private static string Text(decimal number) => IsWhole(number) ? decimal.Truncate(number).ToString(CultureInfo.InvariantCulture) : ((double)number).ToString("R", CultureInfo.InvariantCulture);

    private static bool TryRead(Match match, string group, out decimal number) => decimal.TryParse(match.Groups[group].Value, NumberStyles.Float, CultureInfo.InvariantCulture, out number);

    [GeneratedRegex(@"\A(?<a>[+-]?(\d+(\.\d+)?|\.\d+)([eE][+-]?\d{1,3})?)\.\.(?<b>[+-]?(\d+(\.\d+)?|\.\d+)([eE][+-]?\d{1,3})?)((?<op>[*+])(?<n>\d+))?\z", RegexOptions.ExplicitCapture)]
    private static partial Regex Pattern();
}
