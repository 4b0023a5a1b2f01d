using System.Globalization;
using System.Text;

namespace NopeGpt.Data.Tokenization;

/// <summary>What a code point is to the patterns: one bit each, so that a class of a pattern is a set of them.</summary>
internal static class CharacterKind
{
    public const byte Other = 1, Mark = 2, Upper = 4, Lower = 8, Caseless = 16, Number = 32, Space = 64, LineEnd = 128, Nothing = 0;
    public const byte Letter = Upper | Lower | Caseless, Symbol = Other | Mark, White = Space | LineEnd;

    private const int PlaneSize = 0x10000, AsciiSize = 0x80;

    private static readonly byte[] _plane0 = [.. Enumerable.Range(0, PlaneSize).Select(c => Classify(Rune.TryCreate(c, out Rune rune) ? rune : Rune.ReplacementChar))];

    /// <summary>The kind of the character that begins at a place of valid UTF-8; <see cref="Nothing"/> at the end.</summary>
    /// <param name="width">Its bytes.</param>
    public static byte At(ReadOnlySpan<byte> text, int position, out int width)
    {
        width = 1;
        if ((uint)position >= (uint)text.Length) return Nothing;
        byte first = text[position];
        return first < AsciiSize ? _plane0[first] : Beyond(text, position, out width);
    }

    private static byte Beyond(ReadOnlySpan<byte> text, int position, out int width)
    {
        ReadOnlySpan<byte> rest = text[position..];
        (byte first, width) = (rest[0], rest[0] < 0xE0 ? 2 : rest[0] < 0xF0 ? 3 : 4);
        return width switch
        {
            2 => _plane0[((first & 0x1F) << 6) | (rest[1] & 0x3F)],
            3 => _plane0[((first & 0x0F) << 12) | ((rest[1] & 0x3F) << 6) | (rest[2] & 0x3F)],
            _ => Classify(new Rune(((first & 0x07) << 18) | ((rest[1] & 0x3F) << 12) | ((rest[2] & 0x3F) << 6) | (rest[3] & 0x3F))),
        };
    }

    private static byte Classify(Rune rune)
    {
        if (rune.Value is '\r' or '\n') return LineEnd;
        if (Rune.IsWhiteSpace(rune)) return Space;
        return Rune.GetUnicodeCategory(rune) switch
        {
            UnicodeCategory.UppercaseLetter or UnicodeCategory.TitlecaseLetter => Upper,
            UnicodeCategory.LowercaseLetter => Lower,
            UnicodeCategory.ModifierLetter or UnicodeCategory.OtherLetter => Caseless,
            UnicodeCategory.NonSpacingMark or UnicodeCategory.SpacingCombiningMark or UnicodeCategory.EnclosingMark => Mark,
            UnicodeCategory.DecimalDigitNumber or UnicodeCategory.LetterNumber or UnicodeCategory.OtherNumber => Number,
            _ => Other,
        };
    }
}
