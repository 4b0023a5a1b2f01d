using System.Security.Cryptography;
using System.Text;

namespace NopeGpt.Data.Tokenization;

/// <summary>What a tokenizer is, as data: the bytes of every token by id, the special tokens, and the merges in order of rank.</summary>
internal sealed record Vocabulary(byte[][] Tokens, IReadOnlyDictionary<string, int> SpecialTokens, IReadOnlyList<(int Left, int Right)> Merges)
{
    /// <summary>SHA-256 in lower-case hexadecimal over the pattern, the special tokens by id, all tokens by id and the merges: the same however the file is laid out.</summary>
    public string Hash()
    {
        using MemoryStream content = new();
        using BinaryWriter writer = new(content, Encoding.UTF8);
        writer.Write("nopegpt byte-level bpe 1");
        writer.Write(WordSplitter.Pattern);
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
        foreach ((int left, int right) in Merges)
        {
            writer.Write(left);
            writer.Write(right);
        }
        writer.Flush();
        return Convert.ToHexStringLower(SHA256.HashData(content.GetBuffer().AsSpan(0, (int)content.Length)));
    }
}
