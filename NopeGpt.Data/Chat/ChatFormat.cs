using NopeGpt.Data.Tokenization;

namespace NopeGpt.Data.Chat;

/// <summary>Conversations as ids, in the form of NoPE GPT's chat models (ChatML with a line end after the text):
/// <c>&lt;|im_start|>role\ntext\n&lt;|im_end|>\n</c> for each message. The template is written here and nowhere else. Role and text are
/// encoded as ordinary text, so that a marker in them never becomes its special id. Safe for concurrent use.</summary>
public sealed class ChatFormat
{
    /// <summary>The target that does not count in the loss.</summary>
    public const int IgnoredLabel = -100;

    private const string MessageStart = "<|im_start|>", MessageEnd = "<|im_end|>", ToolCallStart = "<tool_call>", ToolCallEnd = "</tool_call>";

    /// <summary>The special tokens that a tokenizer needs for it, in the order of their ids.</summary>
    public static IReadOnlyList<string> Markers => PublishedEncoding.ChatMarkers;

    private readonly int _start, _end;
    private readonly (int Start, int End)? _toolCall;
    private readonly int[] _lineEnd, _replyHeader;
    private readonly Dictionary<string, int> _headerBytes;

    private ChatFormat(Tokenizer tokenizer, int start, int end)
    {
        (Tokenizer, _start, _end) = (tokenizer, start, end);
        if (tokenizer.SpecialTokens.TryGetValue(ToolCallStart, out int call) && tokenizer.SpecialTokens.TryGetValue(ToolCallEnd, out int callEnd)) _toolCall = (call, callEnd);
        _lineEnd = [.. tokenizer.Encode("\n")];
        _replyHeader = [start, .. tokenizer.Encode($"{ChatRole.Assistant}\n")];
        StopIds = [.. tokenizer.StopIds, end];
        _headerBytes = new[] { ChatRole.System, ChatRole.User, ChatRole.Assistant, ChatRole.Tool, ChatRole.Function }.ToDictionary(role => role, HeaderBytes);
    }

    /// <exception cref="ArgumentException">The tokenizer has no markers for messages.</exception>
    public static ChatFormat For(Tokenizer tokenizer) =>
        Find(tokenizer) ?? throw new ArgumentException(
            $"The tokenizer has no special tokens {MessageStart} and {MessageEnd}, so conversations cannot be written with it; add the chat markers to it, or take the tokenizer of a chat model.", nameof(tokenizer));

    /// <summary>The format, or null where the tokenizer has no markers for messages.</summary>
    public static ChatFormat? Find(Tokenizer tokenizer)
    {
        ArgumentNullException.ThrowIfNull(tokenizer);
        return tokenizer.SpecialTokens.TryGetValue(MessageStart, out int start) && tokenizer.SpecialTokens.TryGetValue(MessageEnd, out int end)
            ? new ChatFormat(tokenizer, start, end)
            : null;
    }

    public Tokenizer Tokenizer { get; }

    /// <summary>Ids that end a reply: those of the tokenizer, and the end of a message.</summary>
    public IReadOnlyList<int> StopIds { get; }

    /// <summary>What fills a row to the right of its conversations.</summary>
    public int PaddingId => Tokenizer.EndOfTextId;

    /// <summary>The whole conversation, after BOS where the tokenizer asks for it.</summary>
    public EncodedConversation Encode(IReadOnlyList<ChatMessage> messages)
    {
        ArgumentNullException.ThrowIfNull(messages);
        List<int> tokens = [.. Beginning];
        MessageSpan[] spans = new MessageSpan[messages.Count];
        for (int i = 0; i < spans.Length; i++)
        {
            int start = tokens.Count;
            AddMessage(messages[i], tokens);
            spans[i] = new MessageSpan(start, HeaderTokens(messages[i].Role, tokens, start), messages[i].Role == ChatRole.Assistant);
        }
        return new EncodedConversation([.. tokens], spans);
    }

    /// <summary>Both conversations of a pair. The assistant's messages in their prompt are no replies here, so that labels are those that are compared.</summary>
    public (EncodedConversation Chosen, EncodedConversation Rejected) Encode(PreferencePair pair)
    {
        ArgumentNullException.ThrowIfNull(pair);
        return (Continue(pair.Chosen), Continue(pair.Rejected));

        EncodedConversation Continue(IReadOnlyList<ChatMessage> reply)
        {
            EncodedConversation whole = Encode([.. pair.Prompt, .. reply]);
            for (int i = 0; i < pair.Prompt.Count; i++) whole.Messages[i] = whole.Messages[i] with { Reply = false };
            return whole;
        }
    }

    /// <summary>What a model reads before it replies: the messages and the header of the reply, after BOS where the tokenizer asks for it.</summary>
    /// <param name="contextLength">ids at most. Whole messages are left out, oldest first, those of the system never and the last one never;
    /// if that is too much still, the newest ids are kept.</param>
    public List<int> Prompt(IReadOnlyList<ChatMessage> messages, int contextLength = int.MaxValue)
    {
        ArgumentNullException.ThrowIfNull(messages);
        ArgumentOutOfRangeException.ThrowIfLessThan(contextLength, 1);
        List<(bool Keep, List<int> Tokens)> parts = new(messages.Count);
        long count = Beginning.Length + _replyHeader.Length;
        foreach (ChatMessage message in messages)
        {
            List<int> tokens = [];
            AddMessage(message, tokens);
            parts.Add((message.Role == ChatRole.System, tokens));
            count += tokens.Count;
        }
        for (int i = 0; i < parts.Count - 1 && count > contextLength; i++)
        {
            if (parts[i].Keep) continue;
            count -= parts[i].Tokens.Count;
            parts[i].Tokens.Clear();
        }
        List<int> prompt = [.. Beginning, .. parts.SelectMany(part => part.Tokens), .. _replyHeader];
        if (prompt.Count <= contextLength) return prompt;
        int[] beginning = contextLength > 1 ? Beginning : [];
        return [.. beginning, .. prompt[^(contextLength - beginning.Length)..]];
    }

    private int[] Beginning => Tokenizer.BeginningId is { } id ? [id] : [];

    private void AddMessage(ChatMessage message, List<int> into)
    {
        into.Add(_start);
        // Between two markers the text is one piece: its words may reach over the line ends of the template.
        if (message.ToolCalls.Count == 0) Tokenizer.Encode($"{message.Role}\n{message.Content}\n", into);
        else AddToolCalls(message, into);
        into.Add(_end);
        into.AddRange(_lineEnd);
    }

    private void AddToolCalls(ChatMessage message, List<int> into)
    {
        string before = message.Content.Length == 0 ? $"{message.Role}\n" : $"{message.Role}\n{message.Content}\n";
        if (_toolCall is not { } marker)
        {
            Tokenizer.Encode($"{before}{string.Join('\n', message.ToolCalls.Select(call => $"{ToolCallStart}{call}{ToolCallEnd}"))}\n", into);
            return;
        }
        foreach (string call in message.ToolCalls)
        {
            Tokenizer.Encode(before, into);
            into.Add(marker.Start);
            Tokenizer.Encode(call, into);
            into.Add(marker.End);
            before = "\n";
        }
        into.AddRange(_lineEnd);
    }

    /// <summary>Tokens of a message that begin in its header: marker, role, line end. The line end may be one token with the text after it,
    /// which belongs to the header then: it is not what a model sees after the header of a reply that it is to write.</summary>
    private int HeaderTokens(string role, List<int> tokens, int start)
    {
        int bytes = _headerBytes.TryGetValue(role, out int known) ? known : HeaderBytes(role), count = 1;
        for (int covered = 0; covered < bytes && start + count < tokens.Count; count++) covered += Tokenizer.Bytes(tokens[start + count]).Length;
        return count;
    }

    private int HeaderBytes(string role) => Tokenizer.Encode($"{role}\n").Sum(id => Tokenizer.Bytes(id).Length);
}
