using System.Globalization;
using System.Text;

namespace NopeGpt.Web.Tokens;

/// <summary>Text in which nothing hides: spaces, line ends, control characters and marks without a letter of their own get a sign.</summary>
internal static class VisibleText
{
    private const char DottedCircle = '◌';

    /// <summary>Appends a character as people can see it.</summary>
    /// <param name="into">what stands before it in the same token; empty where the token begins with it</param>
    public static void Append(StringBuilder into, Rune rune)
    {
        switch (rune.Value)
        {
            case ' ': into.Append('·'); return;
            case '\n': into.Append("⏎\n"); return;
            case '\t': into.Append('→'); return;
            case < 0x20: into.Append((char)(0x2400 + rune.Value)); return;
            case 0x7F: into.Append('␡'); return;
        }
        UnicodeCategory category = Rune.GetUnicodeCategory(rune);
        bool variation = rune.Value is >= 0xFE00 and <= 0xFE0F;
        bool mark = category is UnicodeCategory.NonSpacingMark or UnicodeCategory.SpacingCombiningMark or UnicodeCategory.EnclosingMark;
        if (mark && !variation)
        {
            if (into.Length == 0) into.Append(DottedCircle);
            into.Append(rune);
        }
        else if (Hides(category) || (variation && into.Length == 0)) into.Append(CultureInfo.InvariantCulture, $"⟨U+{rune.Value:X4}⟩");
        else into.Append(rune);
    }

    private static bool Hides(UnicodeCategory category) => category is UnicodeCategory.Control or UnicodeCategory.Format or UnicodeCategory.SpaceSeparator or UnicodeCategory.LineSeparator
        or UnicodeCategory.ParagraphSeparator or UnicodeCategory.PrivateUse or UnicodeCategory.OtherNotAssigned or UnicodeCategory.Surrogate;
}
