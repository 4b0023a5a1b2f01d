using NopeGpt.Data.Tokenization;

namespace NopeGpt.Data;

/// <summary>A token as people look at it.</summary>
/// <param name="Id">its id</param>
/// <param name="Text">the text that it completes: its own, or none where a character goes on in the next token</param>
/// <param name="Label">whether the model learns to predict it</param>
/// <param name="Sequence">the sequence in the row, or <see cref="Batch.Padding"/></param>
public sealed record TokenPreview(int Id, string Text, bool Label, int Sequence)
{
    /// <summary>A row of a real batch. The last token of a sequence is there only if it is to be predicted: nothing else of it is in the batch.</summary>
    /// <param name="padding">whether padding is shown</param>
    public static IReadOnlyList<TokenPreview> Row(Batch batch, int row, Tokenizer tokenizer, bool padding = false)
    {
        ArgumentNullException.ThrowIfNull(batch);
        ArgumentNullException.ThrowIfNull(tokenizer);
        if (row < 0 || row >= batch.Rows) throw new ArgumentOutOfRangeException(nameof(row), row, $"The batch has the rows 0 to {batch.Rows - 1}.");
        List<TokenPreview> tokens = [];
        int first = row * batch.Length, end = first + batch.Length;
        for (int at = first; at < end;)
        {
            int sequence = batch.Sequences?[at] ?? 0, start = at;
            while (at < end && (batch.Sequences?[at] ?? 0) == sequence) at++;
            if (sequence == Batch.Padding && !padding) continue;
            AddSequence(batch, start, at, sequence, tokenizer, tokens);
        }
        return tokens;
    }

    private static void AddSequence(Batch batch, int start, int end, int sequence, Tokenizer tokenizer, List<TokenPreview> into)
    {
        TextDecoder decoder = new(tokenizer);
        for (int at = start; at <= end; at++)
        {
            bool label = at > start && batch.Targets[at - 1] >= 0;
            if (at == end && !label) break;
            int id = (int)(at < end ? batch.Tokens[at] : batch.Targets[at - 1]);
            into.Add(new(id, decoder.Push(id), label, sequence));
        }
        // What is left of a character that the row cuts.
        if (decoder.Flush() is { Length: > 0 } rest && into.Count > 0) into[^1] = into[^1] with { Text = into[^1].Text + rest };
    }
}
