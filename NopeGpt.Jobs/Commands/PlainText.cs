using System.Globalization;
using System.Text;

namespace NopeGpt.Jobs.Commands;

/// <summary>Text of others on a terminal: what would move the cursor, change colours or turn the direction is written as its number.</summary>
internal static class PlainText
{
    /// <param name="lines">Line ends and tabs stay.</param>
    public static string Of(string text, bool lines = false)
    {
        StringBuilder shown = new(text.Length);
        foreach (Rune rune in text.EnumerateRunes())
        {
            if (lines && rune.Value is '\n' or '\t' || !Acts(rune)) shown.Append(rune);
            else shown.Append(CultureInfo.InvariantCulture, $"\\u{rune.Value:x4}");
        }
        return shown.ToString();
    }

    private static bool Acts(Rune rune) => Rune.GetUnicodeCategory(rune) switch
    {
        UnicodeCategory.Control or UnicodeCategory.LineSeparator or UnicodeCategory.ParagraphSeparator => true,
        // Joiners belong to words and emoji.
        UnicodeCategory.Format => rune.Value is not (0x200C or 0x200D),
        _ => false,
    };
}
