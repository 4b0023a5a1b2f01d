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
        if (whole) return [.. Enumerable.Range(0, points).Select(i => WholeBetween(first, last, i, points - 1, grows))];
        (double from, double to) = (Exact(match, "a"), Exact(match, "b"));
        return [.. Enumerable.Range(0, points).Select(i => i == 0 ? from.ToString("R", CultureInfo.InvariantCulture) : i == points - 1 ? to.ToString("R", CultureInfo.InvariantCulture)
            : Between(from, to, (double)i / (points - 1), grows).ToString(Digits, CultureInfo.InvariantCulture))];
    }

    private static IReadOnlyList<string> OneByOne(decimal first, decimal last, int most)
    {
        if (!IsWhole(first) || !IsWhole(last)) throw new FormatException("needs a number of points: A..B*N for the same factor, A..B+N for the same distance");
        if (last < first) throw new FormatException("ends before it begins: exchange its ends");
        if (last - first >= most) throw new FormatException($"has {last - first + 1} numbers: at most {most}; use A..B*N or A..B+N");
        return [.. Enumerable.Range(0, (int)(last - first) + 1).Select(i => Text(first + i))];
    }

    private static double Between(double from, double to, double part, bool grows) => grows ? from * Math.Pow(to / from, part) : from + ((to - from) * part);

    // Seeds have more digits than a double.
    private static string WholeBetween(decimal first, decimal last, int point, int of, bool grows) =>
        point == 0 ? Text(first) : point == of ? Text(last)
        : Text(decimal.Round(grows ? (decimal)Between((double)first, (double)last, (double)point / of, grows) : first + ((last - first) * point / of), MidpointRounding.AwayFromZero));

    // A decimal rounds when it becomes a double.
    private static double Exact(Match match, string group) => double.Parse(match.Groups[group].Value, CultureInfo.InvariantCulture);

    private static bool IsWhole(decimal number) => decimal.Truncate(number) == number;

    private static string Text(decimal number) => decimal.Truncate(number).ToString(CultureInfo.InvariantCulture);

    private static bool TryRead(Match match, string group, out decimal number) => decimal.TryParse(match.Groups[group].Value, NumberStyles.Float, CultureInfo.InvariantCulture, out number);

    [GeneratedRegex(@"\A(?<a>[+-]?(\d+(\.\d+)?|\.\d+)([eE][+-]?\d{1,3})?)\.\.(?<b>[+-]?(\d+(\.\d+)?|\.\d+)([eE][+-]?\d{1,3})?)((?<op>[*+])(?<n>\d+))?\z", RegexOptions.ExplicitCapture)]
    private static partial Regex Pattern();
}
