using System.Globalization;
using System.Text;
using NopeGpt.Data.Tokenization;

namespace NopeGpt.Web.Tokens;

/// <summary>A token as people look at it.</summary>
/// <param name="Text">Its text with everything made visible; bytes of a character that it has only a part of as ⟨E6 97⟩.</param>
/// <param name="Hex">Its bytes: "68 65 6C".</param>
/// <param name="Special">It is a special token.</param>
/// <param name="PartOf">The characters that it has only a part of; empty where it has whole ones, or its bytes are none of a character.</param>
public sealed record TokenPiece(int Id, string Text, string Hex, bool Special, string PartOf);

/// <summary>What a tokenizer makes of a text.</summary>
/// <param name="Pieces">The first tokens.</param>
/// <param name="Tokens">How many there are.</param>
/// <param name="Bytes">Of the text in UTF-8.</param>
/// <param name="Characters">Code points of the text.</param>
public sealed record TokenTrial(IReadOnlyList<TokenPiece> Pieces, int Tokens, int Bytes, int Characters)
{
    /// <summary>The tokens that a page shows; all of them are counted.</summary>
    public const int MostShown = 5000;

    /// <summary>A character has four bytes at most, and so as many tokens.</summary>
    private const int LongestCharacter = 4;

    public double BytesPerToken => Tokens == 0 ? 0 : (double)Bytes / Tokens;

    /// <summary>Encodes a text.</summary>
    /// <param name="specials">the texts of special tokens in it become their ids; otherwise they are ordinary text</param>
    public static TokenTrial Of(Tokenizer tokenizer, string text, bool specials, int most = MostShown)
    {
        ArgumentNullException.ThrowIfNull(tokenizer);
        ArgumentNullException.ThrowIfNull(text);
        List<int> ids = [];
        if (specials) tokenizer.EncodeWithSpecials(text, ids);
        else tokenizer.Encode(text, ids);
        return new TokenTrial(Show(tokenizer, ids, most), ids.Count, Encoding.UTF8.GetByteCount(text), text.EnumerateRunes().Count());
    }

    private static List<TokenPiece> Show(Tokenizer tokenizer, List<int> ids, int most)
    {
        HashSet<int> specials = [.. tokenizer.SpecialTokens.Values];
        // A few more than are shown, so that the last one's characters are known.
        int read = Math.Min(ids.Count, most + LongestCharacter), shown = Math.Min(ids.Count, most);
        int[] ends = new int[read];
        List<byte> bytes = [];
        for (int i = 0; i < read; i++)
        {
            bytes.AddRange(tokenizer.Bytes(ids[i]));
            ends[i] = bytes.Count;
        }
        (StringBuilder Text, StringBuilder PartOf)[] views = [.. Enumerable.Range(0, read).Select(_ => (new StringBuilder(), new StringBuilder()))];
        Spell([.. bytes], ends, views);
        List<TokenPiece> pieces = new(shown);
        for (int i = 0; i < shown; i++)
            pieces.Add(new TokenPiece(ids[i], views[i].Text.ToString(), Hex(tokenizer.Bytes(ids[i])), specials.Contains(ids[i]), views[i].PartOf.ToString()));
        return pieces;
    }

    /// <summary>Gives every character to the token that has it, and of one that several share its bytes to each.</summary>
    private static void Spell(byte[] bytes, int[] ends, (StringBuilder Text, StringBuilder PartOf)[] views)
    {
        int token = 0;
        for (int at = 0; at < bytes.Length;)
        {
            bool valid = Rune.DecodeFromUtf8(bytes.AsSpan(at), out Rune rune, out int length) == System.Buffers.OperationStatus.Done;
            int end = at + length;
            while (ends[token] <= at) token++;
            if (valid && end <= ends[token]) VisibleText.Append(views[token].Text, rune);
            else
            {
                for (int start = at; start < end;)
                {
                    while (ends[token] <= start) token++;
                    int until = Math.Min(end, ends[token]);
                    views[token].Text.Append(CultureInfo.InvariantCulture, $"⟨{Hex(bytes.AsSpan(start, until - start))}⟩");
                    if (valid) VisibleText.Append(views[token].PartOf, rune);
                    start = until;
                }
            }
            at = end;
        }
    }

    private static string Hex(ReadOnlySpan<byte> bytes)
    {
        StringBuilder text = new(bytes.Length * 3);
        foreach (byte value in bytes) text.Append(CultureInfo.InvariantCulture, $"{(text.Length > 0 ? " " : "")}{value:X2}");
        return text.ToString();
    }
}
