using System.Numerics;
using System.Runtime.InteropServices;
using System.Runtime.Intrinsics;
using static NopeGpt.Data.Tokenization.CharacterKind;

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

    /// <summary>cl100k_base's with \s++$ in it, as tiktoken for Python has it by now: white space at the end of the text is one piece.</summary>
    Cl100kWholeEnd,

    /// <summary>cl100k_base's with every digit by itself (Qwen's).</summary>
    Cl100kSingleDigits,

    /// <summary>OpenAI's o200k_base.</summary>
    O200k,
}

/// <summary>Cuts valid UTF-8 into the pieces within which pairs merge. .NET's own regular expressions see UTF-16 units, so their \p{L} misses
/// letters beyond U+FFFF; this sees code points, as every other implementation does.</summary>
internal static class WordSplitter
{
    /// <summary>The pattern of the tokenizers trained here, for code points (Oniguruma in Hugging Face's tokenizers). (?i:) is spelled out,
    /// so that no engine's idea of case folding matters.</summary>
    public const string Pattern =
        @"'(?:[sSdDmMtT]|[lL][lL]|[vV][eE]|[rR][eE])|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+";

    /// <summary>The mark that SentencePiece writes for a space.</summary>
    public const string SpaceMark = "▁";

    private const int MaximumDigits = 3;

    /// <summary>The end of the piece that starts at the given place; start must be inside the text.</summary>
    public static int End(WordPattern pattern, ReadOnlySpan<byte> text, int start) => pattern switch
    {
        WordPattern.Gpt2 => EndGpt2(text, start),
        WordPattern.Trained => EndCl100k(text, start, MaximumDigits, longS: false),
        WordPattern.Cl100k => EndCl100k(text, start, MaximumDigits, longS: true),
        WordPattern.Cl100kWholeEnd => EndsInSpaces(text, start) ? text.Length : EndCl100k(text, start, MaximumDigits, longS: true),
        WordPattern.Cl100kSingleDigits => EndCl100k(text, start, 1, longS: true),
        WordPattern.O200k => EndO200k(text, start),
        WordPattern.SpaceMarks => text[(start + 1)..].IndexOf("▁"u8) is >= 0 and int length ? start + 1 + length : text.Length,
        _ => text.Length,
    };

    private static int EndGpt2(ReadOnlySpan<byte> text, int start)
    {
        byte first = text[start];
        byte kind = At(text, start, out int width);
        int next = start + width;
        if (first == ' ' && At(text, next, out int second) is var follows && (follows & White) == 0 && follows != Nothing) (kind, next) = (follows, next + second);
        if ((kind & Letter) != 0) return SkipLetters(text, next);
        if (first == '\'' && Contraction(text[start..], anyCase: false, longS: false) is > 0 and int length) return start + length;
        if (kind == Number) return Skip(text, next, Number);
        return (kind & Symbol) != 0 ? Skip(text, next, Symbol) : Spaces(text, start, lineEnds: false);
    }

    private static int EndCl100k(ReadOnlySpan<byte> text, int start, int digits, bool longS)
    {
        byte first = At(text, start, out int width);
        int next = start + width;
        if ((first & Letter) != 0) return SkipLetters(text, next);
        if (first == Number) return Digits(text, next, digits);
        if (first == LineEnd) return Spaces(text, start, lineEnds: true);
        if (text[start] == '\'' && Contraction(text[start..], anyCase: true, longS) is > 0 and int length) return start + length;
        byte second = At(text, next, out int secondWidth);
        if ((second & Letter) != 0) return SkipLetters(text, next + secondWidth);
        return EndSymbols(text, start, first, next, second, "\r\n"u8);
    }

    /// <summary>` ?[^\s\p{L}\p{N}]+` with what may trail it; else white space.</summary>
    private static int EndSymbols(ReadOnlySpan<byte> text, int start, byte first, int next, byte second, ReadOnlySpan<byte> trailing)
    {
        if ((first & Symbol) == 0 && !(text[start] == ' ' && (second & Symbol) != 0)) return Spaces(text, start, lineEnds: true);
        next = Skip(text, next, Symbol);
        while (next < text.Length && trailing.Contains(text[next])) next++;
        return next;
    }

    private static int EndO200k(ReadOnlySpan<byte> text, int start)
    {
        byte first = At(text, start, out int width);
        int next = start + width;
        // A word with one character before it that is no letter, number or line end, or without one; words that end in small letters first.
        if (first != LineEnd && first != Number)
        {
            bool prefix = (first & Letter) == 0;
            int word = prefix ? SmallWord(text, next) : SmallWord(text, start);
            if (word == 0 && prefix) word = SmallWord(text, start);
            if (word == 0) word = CapitalWord(text, prefix ? next : start);
            if (word == 0 && prefix) word = CapitalWord(text, start);
            if (word > 0) return word + Contraction(text[word..], anyCase: true, longS: true);
        }
        if (first == Number) return Digits(text, next, MaximumDigits);
        return EndSymbols(text, start, first, next, At(text, next, out _), "\r\n/"u8);
    }

    /// <summary>`[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+`; 0 where it does not match. Where no small letter follows the
    /// capitals, the last of them that can also stand for a small one does.</summary>
    private static int SmallWord(ReadOnlySpan<byte> text, int start)
    {
        int next = start, last = 0;
        for (byte kind; ((kind = At(text, next, out int width)) & (Upper | Caseless | Mark)) != 0; next += width)
            if ((kind & (Caseless | Mark)) != 0) last = next + width;
        int end = Skip(text, next, Lower | Caseless | Mark);
        return end > next ? end : last;
    }

    /// <summary>`[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*`; 0 where it does not match.</summary>
    private static int CapitalWord(ReadOnlySpan<byte> text, int start)
    {
        int next = Skip(text, start, Upper | Caseless | Mark);
        return next == start ? 0 : Skip(text, next, Lower | Caseless | Mark);
    }

    /// <summary>A run of white space: up to its last line end, where those count; without one all of it, but the last character when something follows.</summary>
    private static int Spaces(ReadOnlySpan<byte> text, int start, bool lineEnds)
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

    /// <summary>`\s++$`: nothing but white space follows.</summary>
    private static bool EndsInSpaces(ReadOnlySpan<byte> text, int start) => (At(text, start, out _) & White) != 0 && Skip(text, start, White) == text.Length;

    private static int Digits(ReadOnlySpan<byte> text, int next, int most)
    {
        for (int count = 1; count < most && At(text, next, out int width) == Number; count++) next += width;
        return next;
    }

    private static int Skip(ReadOnlySpan<byte> text, int next, byte kinds)
    {
        while ((At(text, next, out int width) & kinds) != 0) next += width;
        return next;
    }

    /// <summary>As <see cref="Skip"/> for letters, those of ASCII sixteen at a time.</summary>
    private static int SkipLetters(ReadOnlySpan<byte> text, int next)
    {
        while (text.Length - next >= Vector128<byte>.Count)
        {
            Vector128<byte> lower = Vector128.LoadUnsafe(ref MemoryMarshal.GetReference(text), (nuint)next) | Vector128.Create((byte)0x20);
            uint others = Vector128.GreaterThan(lower - Vector128.Create((byte)'a'), Vector128.Create((byte)('z' - 'a'))).ExtractMostSignificantBits();
            next += others == 0 ? Vector128<byte>.Count : BitOperations.TrailingZeroCount(others);
            if (others == 0) continue;
            if (text[next] < 0x80) return next;
            if ((At(text, next, out int width) & Letter) == 0) return next;
            next += width;
        }
        return Skip(text, next, Letter);
    }

    /// <summary>The length of 's, 't, 're, 've, 'm, 'll or 'd at the beginning, 0 where none is.</summary>
    /// <param name="longS">ſ counts as an s, as it does where a regular expression ignores case.</param>
    private static int Contraction(ReadOnlySpan<byte> text, bool anyCase, bool longS)
    {
        if (text.Length < 2 || text[0] != '\'') return 0;
        byte first = Fold(text[1]), second = text.Length > 2 ? Fold(text[2]) : (byte)0;
        if (first is (byte)'s' or (byte)'d' or (byte)'m' or (byte)'t') return 2;
        if (longS && text[1..].StartsWith("ſ"u8)) return 3;
        return (first, second) is ((byte)'l', (byte)'l') or ((byte)'v', (byte)'e') or ((byte)'r', (byte)'e') ? 3 : 0;

        byte Fold(byte c) => anyCase && c is >= (byte)'A' and <= (byte)'Z' ? (byte)(c | 0x20) : c;
    }
}
