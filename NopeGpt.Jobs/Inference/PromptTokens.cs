using System.Text;
using NopeGpt.Data.Chat;
using NopeGpt.Data.Tokenization;

namespace NopeGpt.Jobs.Inference;

/// <summary>One message of a conversation.</summary>
/// <param name="Role">system, user or assistant.</param>
/// <param name="Ended">For an assistant's message: whether the model had ended it by itself. Null where that is not known.</param>
internal sealed record ChatTurn(string Role, string Content, bool? Ended = null);

/// <summary>What the model reads before it writes.</summary>
/// <param name="Tokens">Ids, the newest of the conversation that fit the context.</param>
/// <param name="StopIds">Ids that end the reply.</param>
internal sealed record PromptTokens(IReadOnlyList<int> Tokens, IReadOnlyList<int> StopIds)
{
    /// <summary>For a tokenizer with chat markers the template of the chat models; without them, the model continues the transcript's text.</summary>
    /// <param name="contextLength">Tokens at most; the oldest are left out.</param>
    public static PromptTokens Create(Tokenizer tokenizer, IReadOnlyList<ChatTurn> turns, int contextLength) =>
        ChatFormat.Find(tokenizer) is { } format
            ? new(format.Prompt([.. turns.Select(turn => new ChatMessage(turn.Role, turn.Content))], contextLength), format.StopIds)
            : Transcript(tokenizer, turns, contextLength);

    /// <summary>A text to continue, after BOS where the tokenizer asks for it; an empty one is the beginning of a document.</summary>
    public static PromptTokens Continue(Tokenizer tokenizer, string text, int contextLength)
    {
        List<int> tokens = text.Length == 0 ? [tokenizer.DocumentStartId] : [.. Beginning(tokenizer), .. tokenizer.Encode(text)];
        return new(Newest(tokenizer, tokens, contextLength), tokenizer.StopIds);
    }

    /// <summary>A base model knows documents, not messages: the texts follow each other in one document, so that the reply continues the
    /// last of them. A reply that had ended also ended its document.</summary>
    private static PromptTokens Transcript(Tokenizer tokenizer, IReadOnlyList<ChatTurn> turns, int contextLength)
    {
        List<int> tokens = [tokenizer.DocumentStartId];
        StringBuilder document = new();
        foreach (ChatTurn turn in turns)
        {
            Join(document, turn.Content);
            if (turn.Role == "assistant" && (turn.Ended ?? EndsSentence(turn.Content))) Close();
        }
        // A trailing space would be a token of its own, after which the next word, which the model knows with its space, does not come.
        tokens.AddRange(tokenizer.Encode(document.ToString().TrimEnd(' ')));
        return new(Newest(tokenizer, tokens, contextLength), tokenizer.StopIds);

        void Close()
        {
            tokens.AddRange(tokenizer.Encode(document.ToString()));
            tokens.Add(tokenizer.EndOfTextId);
            tokens.AddRange(Beginning(tokenizer));
            document.Clear();
        }
    }

    private static void Join(StringBuilder document, string text)
    {
        if (document.Length > 0 && text.Length > 0 && !char.IsWhiteSpace(document[^1]) && char.IsLetterOrDigit(text[0])) document.Append(' ');
        document.Append(text);
    }

    private static bool EndsSentence(string text) => text.AsSpan().TrimEnd().TrimEnd("\"'”’)") is [.., '.' or '!' or '?' or '…'];

    private static int[] Beginning(Tokenizer tokenizer) => tokenizer.BeginningId is { } id ? [id] : [];

    /// <summary>The newest tokens, after BOS where the tokenizer asks for it and there is room for more than that.</summary>
    private static List<int> Newest(Tokenizer tokenizer, List<int> tokens, int count)
    {
        if (tokens.Count <= count) return tokens;
        int[] beginning = count > 1 ? Beginning(tokenizer) : [];
        return [.. beginning, .. tokens[^(count - beginning.Length)..]];
    }
}
