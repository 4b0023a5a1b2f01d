using System.Globalization;
using System.Text;

namespace NopeGpt.Jobs.Commands;

/// <summary>Rows under headings for a terminal. Numbers stand at the right.</summary>
internal static class TextTable
{
    /// <param name="rows">Texts and numbers, as many as headings; null is left blank.</param>
    public static string Format(IReadOnlyList<string> headings, IEnumerable<IReadOnlyList<object?>> rows)
    {
        List<IReadOnlyList<object?>> all = [.. rows];
        string[][] cells = [[.. headings], .. all.Select(row => row.Select(Shown).ToArray())];
        int[] widths = [.. headings.Select((_, i) => cells.Max(row => row[i].Length))];
        bool[] right = [.. headings.Select((_, i) => all.Count > 0 && all.All(row => row[i] is null or long or int or double))];
        StringBuilder text = new();
        foreach (string[] row in cells)
            text.AppendLine(string.Join("  ", row.Select((cell, i) => right[i] ? cell.PadLeft(widths[i]) : cell.PadRight(widths[i]))).TrimEnd());
        return text.ToString();
    }

    /// <summary>Bytes in the unit that says enough: 4.2 kB, 17.0 MB, 1.25 GB.</summary>
    public static string Bytes(double bytes) => string.Create(CultureInfo.InvariantCulture,
        $"{(bytes >= 1e9 ? bytes / 1e9 : bytes >= 1e6 ? bytes / 1e6 : bytes / 1e3).ToString(bytes >= 1e9 ? "0.00" : "0.0", CultureInfo.InvariantCulture)} {(bytes >= 1e9 ? "GB" : bytes >= 1e6 ? "MB" : "kB")}");

    private static string Shown(object? value) => value switch
    {
        null => "",
        double number => number.ToString("0.000", CultureInfo.InvariantCulture),
        IFormattable number => number.ToString("#,0", CultureInfo.InvariantCulture),
        _ => value.ToString() ?? "",
    };
}
