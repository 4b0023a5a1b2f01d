using System.Security.Cryptography;
using System.Text;

namespace NopeGpt.Data.Tokenization;

/// <summary>What a tokenizer is, as data: the bytes of every token by id (none where an id is left free), the special tokens, and the merges
/// in order of rank.</summary>
internal sealed record Vocabulary(byte[][] Tokens, IReadOnlyDictionary<string, int> SpecialTokens, IReadOnlyList<Merge> Merges)
{
    public TextRules Rules { get; init; } = TextRules.Trained;

    /// <summary>The special token that ends a text.</summary>
    public required int EndOfTextId { get; init; }

    /// <summary>The special token that a text must begin with; null where it begins with its own first token.</summary>
    public int? BeginningId { get; init; }

    /// <summary>The tokens that encoding begins with: bytes in order of their value.</summary>
    public required int[] ByteIds { get; init; }

    /// <summary>The tokens as the vocabulary writes them, by id; only where words begin as characters.</summary>
    public string[] Written { get; init; } = [];

    /// <summary>The file that this was read from; null for one that was trained here.</summary>
    public byte[]? Source { get; init; }

    /// <summary>The published encoding that this is; null for others.</summary>
    public string? Encoding { get; init; }

    /// <summary>A model of it has exactly so many tokens, without padding.</summary>
    public bool IsExact { get; init; }

    /// <summary>SHA-256 in lower-case hexadecimal over the rules, the special tokens by id, all tokens by id and the merges: the same however the file is laid out.</summary>
    public string Hash()
    {
        using MemoryStream content = new();
        using BinaryWriter writer = new(content, System.Text.Encoding.UTF8);
        // The tokenizers trained here keep the hash that they had when there were no others; token files carry it.
        bool trained = Rules.Spelled() == TextRules.Trained.Spelled() && BeginningId is null && SpecialTokens.ContainsKey(Tokenizer.EndOfText);
        writer.Write(trained ? "nopegpt byte-level bpe 1" : "nopegpt bpe 2");
        writer.Write(trained ? WordSplitter.Pattern : $"{Rules.Spelled()}\u001f{BeginningId}\u001f{EndOfTextId}");
        writer.Write(SpecialTokens.Count);
        foreach ((string text, int id) in SpecialTokens.OrderBy(special => special.Value))
        {
            writer.Write(id);
            writer.Write(text);
        }
        writer.Write(Tokens.Length);
        foreach (byte[] token in Tokens)
        {
            writer.Write(token.Length);
            writer.Write(token);
        }
        writer.Write(Merges.Count);
        foreach ((int left, int right, _) in Merges)
        {
            writer.Write(left);
            writer.Write(right);
        }
        writer.Flush();
        return Convert.ToHexStringLower(SHA256.HashData(content.GetBuffer().AsSpan(0, (int)content.Length)));
    }
}
