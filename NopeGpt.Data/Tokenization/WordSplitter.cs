using System.Globalization;
using System.Text;

namespace NopeGpt.Data.Tokenization;

/// <summary>How text is cut into the pieces within which tokens merge.</summary>
internal enum WordPattern
{
    /// <summary>Not at all.</summary>
    Whole,

    /// <summary>Before every ▁, which stands for a space (SentencePiece's way).</summary>
    SpaceMarks,

    /// <summary>GPT-2's, which r50k_base and p50k_base have too.</summary>
    Gpt2,

    /// <summary>That of the tokenizers trained here: cl100k_base's with the contractions spelled out.</summary>
    Trained,

    /// <summary>OpenAI's cl100k_base.</summary>
    Cl100k,

    /// <summary>The same with every digit by itself (Qwen's).</summary>
    Cl100kSingleDigits,

    /// <summary>OpenAI's o200k_base.</summary>
    O200k,
}

/// <summary>Cuts text into the pieces within which pairs merge. .NET's own regular expressions see UTF-16 units, so their \p{L} misses
/// letters beyond U+FFFF; this sees code points, as every other implementation does. Half a surrogate pair counts as U+FFFD, which it
/// becomes in UTF-8.</summary>
internal static class WordSplitter
{
    /// <summary>The pattern of the tokenizers trained here, for code points (Oniguruma in Hugging Face's tokenizers). (?i:) is spelled out,
    /// so that no engine's idea of case folding matters.</summary>
    public const string Pattern =
        @"'(?:[sSdDmMtT]|[lL][lL]|[vV][eE]|[rR][eE])|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+";

    /// <summary>The mark that SentencePiece writes for a space.</summary>
    public const char SpaceMark = '▁';

    private const int MaximumDigits = 3;
    private const char LongS = 'ſ';

    // What a code point is: one bit each, so that a class of the patterns is a set of them.
    private const byte Other = 1, Mark = 2, Upper = 4, Lower = 8, Caseless = 16, Number = 32, Space = 64, LineEnd = 128, Nothing = 0;
    private const byte Letter = Upper | Lower | Caseless, Symbol = Other | Mark, White = Space | LineEnd;

    private static readonly byte[] _plane0 = [.. Enumerable.Range(0, 0x10000).Select(c => Classify(Rune.TryCreate(c, out Rune rune) ? rune : Rune.ReplacementChar))];

    /// <summary>The end of the piece of the tokenizers trained here that starts at the given place; start must be inside the text.</summary>
    public static int End(ReadOnlySpan<char> text, int start) => EndCl100k(text, start, MaximumDigits, longS: false);

    /// <summary>The end of the piece that starts at the given place; start must be inside the text.</summary>
    public static int End(WordPattern pattern, ReadOnlySpan<char> text, int start) => pattern switch
    {
        WordPattern.Trained => EndCl100k(text, start, MaximumDigits, longS: false),
        WordPattern.Gpt2 => EndGpt2(text, start),
        WordPattern.Cl100k => EndCl100k(text, start, MaximumDigits, longS: true),
        WordPattern.Cl100kSingleDigits => EndCl100k(text, start, 1, longS: true),
        WordPattern.O200k => EndO200k(text, start),
        WordPattern.SpaceMarks => text[(start + 1)..].IndexOf(SpaceMark) is >= 0 and int length ? start + 1 + length : text.Length,
        _ => text.Length,
    };

    private static int EndGpt2(ReadOnlySpan<char> text, int start)
    {
        if (text[start] == '\'' && Contraction(text[start..], anyCase: false, longS: false) is > 0 and int length) return start + length;
        int next = start;
        byte kind = At(text, start, out int width);
        if (text[start] == ' ' && At(text, start + 1, out int second) is var follows && (follows & White) == 0 && follows != Nothing) (kind, next, width) = (follows, start + 1, second);
        foreach (byte run in (ReadOnlySpan<byte>)[Letter, Number, Symbol])
            if ((kind & run) != 0) return Skip(text, next + width, run);
        return Spaces(text, start, lineEnds: false);
    }

    private static int EndCl100k(ReadOnlySpan<char> text, int start, int digits, bool longS)
    {
        byte first = At(text, start, out int width);
        int next = start + width;
        if ((first & Letter) != 0) return Skip(text, next, Letter);
        if (first == Number) return Digits(text, next, digits);
        if (first == LineEnd) return Spaces(text, start, lineEnds: true);
        if (text[start] == '\'' && Contraction(text[start..], anyCase: true, longS) is > 0 and int length) return start + length;
        byte second = At(text, next, out _);
        if ((second & Letter) != 0) return Skip(text, next, Letter);
        return EndSymbols(text, start, first, next, second, "\r\n");
    }

    /// <summary>` ?[^\s\p{L}\p{N}]+` with what may trail it; else white space.</summary>
    private static int EndSymbols(ReadOnlySpan<char> text, int start, byte first, int next, byte second, string trailing)
    {
        if ((first & Symbol) == 0 && !(text[start] == ' ' && (second & Symbol) != 0)) return Spaces(text, start, lineEnds: true);
        next = Skip(text, next, Symbol);
        while (next < text.Length && trailing.Contains(text[next], StringComparison.Ordinal)) next++;
        return next;
    }

    private static int EndO200k(ReadOnlySpan<char> text, int start)
    {
        byte first = At(text, start, out int width);
        int next = start + width;
        // A word with one character before it that is no letter, number or line end, or without one; words that end in small letters first.
        if (first != LineEnd && first != Number)
        {
            foreach (bool small in (ReadOnlySpan<bool>)[true, false])
                for (int from = (first & Letter) == 0 ? next : start; from >= start; from = from == start ? -1 : start)
                    if ((small ? SmallWord(text, from) : CapitalWord(text, from)) is > 0 and int end) return end + Contraction(text[end..], anyCase: true, longS: true);
        }
        if (first == Number) return Digits(text, next, MaximumDigits);
        return EndSymbols(text, start, first, next, At(text, next, out _), "\r\n/");
    }

    /// <summary>`[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+`; 0 where it does not match. Where no small letter follows the
    /// capitals, the last of them that can also stand for a small one does.</summary>
    private static int SmallWord(ReadOnlySpan<char> text, int start)
    {
        int next = start, last = 0;
        for (byte kind; ((kind = At(text, next, out int width)) & (Upper | Caseless | Mark)) != 0; next += width)
            if ((kind & (Caseless | Mark)) != 0) last = next + width;
        int end = Skip(text, next, Lower | Caseless | Mark);
        return end > next ? end : last;
    }

    /// <summary>`[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*`; 0 where it does not match.</summary>
    private static int CapitalWord(ReadOnlySpan<char> text, int start)
    {
        int next = Skip(text, start, Upper | Caseless | Mark);
        return next == start ? 0 : Skip(text, next, Lower | Caseless | Mark);
    }

    /// <summary>A run of white space: up to its last line end, where those count; without one all of it, but the last character when something follows.</summary>
    private static int Spaces(ReadOnlySpan<char> text, int start, bool lineEnds)
    {
        int end = start, lineEnd = -1, last = start;
        for (byte kind; ((kind = At(text, end, out int width)) & White) != 0;)
        {
            last = end;
            end += width;
            if (kind == LineEnd) lineEnd = end;
        }
        if (lineEnds && lineEnd >= 0) return lineEnd;
        return end < text.Length && last > start ? last : end;
    }

    private static int Digits(ReadOnlySpan<char> text, int next, int most)
    {
        for (int count = 1; count < most && At(text, next, out int width) == Number; count++) next += width;
        return next;
    }

    private static int Skip(ReadOnlySpan<char> text, int next, byte kinds)
    {
        while ((At(text, next, out int width) & kinds) != 0) next += width;
        return next;
    }

    /// <summary>The length of 's, 't, 're, 've, 'm, 'll or 'd at the beginning, 0 where none is.</summary>
    /// <param name="longS">ſ counts as an s, as it does where a regular expression ignores case.</param>
    private static int Contraction(ReadOnlySpan<char> text, bool anyCase, bool longS)
    {
        if (text.Length < 2 || text[0] != '\'') return 0;
        char first = Fold(text[1]), second = text.Length > 2 ? Fold(text[2]) : '\0';
        if (first is 's' or 'd' or 'm' or 't' || (longS && first == LongS)) return 2;
        return (first, second) is ('l', 'l') or ('v', 'e') or ('r', 'e') ? 3 : 0;

        char Fold(char c) => anyCase && char.IsAsciiLetterUpper(c) ? (char)(c | 0x20) : c;
    }

    private static byte At(ReadOnlySpan<char> text, int position, out int width)
    {
        width = 1;
        if ((uint)position >= (uint)text.Length) return Nothing;
        char c = text[position];
        if (!char.IsHighSurrogate(c)) return _plane0[c];
        Rune.DecodeFromUtf16(text[position..], out Rune rune, out width);
        return Classify(rune);
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
