using System.Text;
using NopeGpt.Data;
using NopeGpt.Data.Tokenization;

namespace NopeGpt.Web.Components.Parts;

/// <summary>A token as a page shows it.</summary>
/// <param name="Text">The text that it completes; empty where a character goes on in the next token.</param>
/// <param name="Bytes">Its bytes in hexadecimal: "e2 80".</param>
/// <param name="IsLabel">Whether a model learns to predict it.</param>
/// <param name="Sequence">Its sequence in a batch's row, or <see cref="Batch.Padding"/>.</param>
public sealed record ShownToken(int Id, string Text, string Bytes, bool IsSpecial, bool IsLabel = false, int Sequence = 0)
{
    /// <summary>The tokens of a text.</summary>
    /// <param name="before">The id before the first one; null where the text begins with them.</param>
    public static IReadOnlyList<ShownToken> Of(IReadOnlyList<int> ids, Tokenizer tokenizer, int? before = null)
    {
        ArgumentNullException.ThrowIfNull(ids);
        ArgumentNullException.ThrowIfNull(tokenizer);
        HashSet<int> specials = [.. tokenizer.SpecialTokens.Values];
        TextDecoder decoder = new(tokenizer, before);
        return [.. ids.Select(id => new ShownToken(id, decoder.Push(id), Hexadecimal(tokenizer, id), specials.Contains(id)))];
    }

    /// <summary>The tokens of a row of a batch.</summary>
    public static IReadOnlyList<ShownToken> Of(IReadOnlyList<TokenPreview> row, Tokenizer tokenizer)
    {
        ArgumentNullException.ThrowIfNull(row);
        ArgumentNullException.ThrowIfNull(tokenizer);
        HashSet<int> specials = [.. tokenizer.SpecialTokens.Values];
        return [.. row.Select(t => new ShownToken(t.Id, t.Text, Hexadecimal(tokenizer, t.Id), specials.Contains(t.Id), t.Label, t.Sequence))];
    }

    /// <summary>True where its bytes alone are no text.</summary>
    public bool IsPiece => Text.Length == 0;

    public bool EndsLine => Text.Contains('\n', StringComparison.Ordinal);

    /// <summary>Its text with signs for what cannot be seen, or its bytes.</summary>
    public string Visible
    {
        get
        {
            if (IsPiece) return Bytes.Length > 0 ? Bytes : "∅";
            StringBuilder shown = new(Text.Length);
            foreach (char c in Text)
            {
                _ = shown.Append(c switch
                {
                    ' ' => '·',
                    '\n' => '⏎',
                    '\t' => '⇥',
                    '\u007f' => '␡',
                    // The signs for control characters stand in their order.
                    < ' ' => (char)('\u2400' + c),
                    _ => c,
                });
            }
            return shown.ToString();
        }
    }

    private static string Hexadecimal(Tokenizer tokenizer, int id) => string.Join(' ', Convert.ToHexStringLower(tokenizer.Bytes(id)).Chunk(2).Select(pair => new string(pair)));
}
