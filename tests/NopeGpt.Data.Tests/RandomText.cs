using System.Text;

namespace NopeGpt.Data.Tests;

/// <summary>Random strings that are hard on tokenizers.</summary>
internal static class RandomText
{
    private static readonly string[] _parts =
    [
        "the", " once", " upon", " a time", "Lily", "'s", "'S", "'ll", "'RE", "'ve", "'d", "'x", "'", " '", "don't", "I'M", " ", "  ", "   ", "\n", "\n\n", "\r\n", " \n", "\n ", "\t", "\t\t ", "\u00a0", "\u3000", "\u2028",
        "1", "12", "123", "1234", "١٢٣", "Ⅷ", "½", ".", "...", "!?", " \"", "\",", "<|endoftext|>", "<|", "--", "é", "e\u0301", "ß", "ſ", "K", "日本語", "中文", "。", "한국어", "Привет", "שלום", "नमस्ते", "😀", "👩‍👩‍👧", "🏳️‍🌈", "𝒜𝒷", "𝟙𝟚", "𠀀", "𞤀𞤢", "ǅ", "ʰ", "camelCase", "HTMLParser", "A\u0301B", "'ſ", "//", "/\n", "▁", " ▁", "<0x0A>", "</s>",
        "\0", "\u0001", "\u007f", "\u0085", "\u200b", "\ufeff", "\ufffd", "\uffff", "aaaaaaaa", "abababab", "Ġ", "Ā",
    ];

    public static string Next(Random random, int maximumParts)
    {
        StringBuilder text = new();
        for (int parts = random.Next(maximumParts + 1); parts > 0; parts--)
        {
            int kind = random.Next(10);
            if (kind < 7) text.Append(_parts[random.Next(_parts.Length)]);
            else if (kind < 8) text.Append((char)random.Next(0x20, 0x7f));
            else text.Append(AnyRune(random));
        }
        return text.ToString();
    }

    private static Rune AnyRune(Random random)
    {
        while (true)
            if (Rune.TryCreate(random.Next(2) == 0 ? random.Next(0x3000) : random.Next(0x110000), out Rune rune)) return rune;
    }
}
