using System.Globalization;
using System.Text;

namespace NopeGpt.Data.Tokenization;

/// <summary>Cuts text into the pieces within which byte pairs are merged: the pattern of OpenAI's cl100k_base, written by hand.
/// .NET's own regular expressions see UTF-16 units, so their \p{L} misses letters beyond U+FFFF; this sees code points, as every other
/// implementation does. Half a surrogate pair counts as U+FFFD, which it becomes in UTF-8.</summary>
internal static class WordSplitter
{
    /// <summary>The same as a regular expression for code points (Oniguruma in Hugging Face's tokenizers). (?i:) is spelled out,
    /// so that no engine's idea of case folding matters.</summary>
    public const string Pattern =
        @"'(?:[sSdDmMtT]|[lL][lL]|[vV][eE]|[rR][eE])|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+";

    private const int MaximumDigits = 3;

    private enum Class : byte { Other, Letter, Number, Space, LineEnd, EndOfText }

    private static readonly Class[] _ascii = [.. Enumerable.Range(0, 128).Select(c => Classify(new Rune(c)))];

    /// <summary>The end of the piece that starts at the given place; start must be inside the text.</summary>
    public static int End(ReadOnlySpan<char> text, int start)
    {
        Class first = At(text, start, out int width);
        int next = start + width;
        switch (first)
        {
            case Class.Letter: return Skip(text, next, Class.Letter);
            case Class.Number: return Digits(text, next);
            case Class.LineEnd: return Spaces(text, start);
        }
        if (text[start] == '\'' && Contraction(text[next..]) is > 0 and int length) return next + length;
        Class second = At(text, next, out _);
        if (second == Class.Letter) return Skip(text, next, Class.Letter);
        if (first == Class.Other || (text[start] == ' ' && second == Class.Other))
        {
            next = Skip(text, next, Class.Other);
            while (next < text.Length && text[next] is '\r' or '\n') next++;
            return next;
        }
        return Spaces(text, start);
    }

    /// <summary>A run of white space: up to its last line end; without one all of it, but the last character when something follows.</summary>
    private static int Spaces(ReadOnlySpan<char> text, int start)
    {
        int end = start, lineEnd = -1, last = start;
        for (; ; )
        {
            Class kind = At(text, end, out int width);
            if (kind is not (Class.Space or Class.LineEnd)) break;
            last = end;
            end += width;
            if (kind == Class.LineEnd) lineEnd = end;
        }
        if (lineEnd >= 0) return lineEnd;
        return end < text.Length && last > start ? last : end;
    }

    private static int Digits(ReadOnlySpan<char> text, int next)
    {
        for (int count = 1; count < MaximumDigits && At(text, next, out int width) == Class.Number; count++) next += width;
        return next;
    }

    private static int Skip(ReadOnlySpan<char> text, int next, Class kind)
    {
        while (At(text, next, out int width) == kind) next += width;
        return next;
    }

    private static int Contraction(ReadOnlySpan<char> rest)
    {
        if (rest.Length == 0) return 0;
        char first = (char)(rest[0] | 0x20), second = rest.Length > 1 ? (char)(rest[1] | 0x20) : '\0';
        if (rest[0] < 128 && first is 's' or 'd' or 'm' or 't') return 1;
        return rest[0] < 128 && rest.Length > 1 && rest[1] < 128 && (first, second) is ('l', 'l') or ('v', 'e') or ('r', 'e') ? 2 : 0;
    }

    private static Class At(ReadOnlySpan<char> text, int position, out int width)
    {
        width = 1;
        if (position >= text.Length) return Class.EndOfText;
        char c = text[position];
        if (c < 128) return _ascii[c];
        Rune.DecodeFromUtf16(text[position..], out Rune rune, out width);
        return Classify(rune);
    }

    private static Class Classify(Rune rune)
    {
        if (rune.Value is '\r' or '\n') return Class.LineEnd;
        if (Rune.IsWhiteSpace(rune)) return Class.Space;
        return Rune.GetUnicodeCategory(rune) switch
        {
            UnicodeCategory.UppercaseLetter or UnicodeCategory.LowercaseLetter or UnicodeCategory.TitlecaseLetter or UnicodeCategory.ModifierLetter or UnicodeCategory.OtherLetter => Class.Letter,
            UnicodeCategory.DecimalDigitNumber or UnicodeCategory.LetterNumber or UnicodeCategory.OtherNumber => Class.Number,
            _ => Class.Other,
        };
    }
}
