namespace NopeGpt.Data.Chat;

/// <summary>One message of a conversation.</summary>
/// <param name="Role">who speaks: one of <see cref="ChatRole"/>, or any other name that the model was trained with</param>
/// <param name="Content">its text, exactly as it stands in the data; may be empty</param>
public sealed record ChatMessage(string Role, string Content)
{
    /// <summary>The calls of tools that follow the text, each a JSON value as text. Unlike text they are written between the tokenizer's
    /// markers for tool calls.</summary>
    public IReadOnlyList<string> ToolCalls { get; init; } = [];

    /// <summary>Whether there is neither text nor a call.</summary>
    public bool IsEmpty => Content.Length == 0 && ToolCalls.Count == 0;

    public bool Equals(ChatMessage? other) => other is not null && Role == other.Role && Content == other.Content && ToolCalls.SequenceEqual(other.ToolCalls);

    public override int GetHashCode() => HashCode.Combine(Role, Content, ToolCalls.Count);
}

/// <summary>The roles that messages have in the public data sets, and the names that stand for them there.</summary>
public static class ChatRole
{
    public const string System = "system", User = "user", Assistant = "assistant", Tool = "tool", Function = "function";

    /// <summary>All of them, for messages.</summary>
    public const string Names = "system, user, assistant, tool, function";

    /// <summary>The role that a data set's name means: its own or ShareGPT's (human, gpt and the like). Null for an unknown one.</summary>
    public static string? Of(string name)
    {
        ArgumentNullException.ThrowIfNull(name);
        return name.ToLowerInvariant() switch
        {
            System or "developer" => System,
            User or "human" or "prompter" => User,
            Assistant or "gpt" or "chatgpt" or "model" or "bot" or "ai" or "bing" or "bard" or "function_call" => Assistant,
            Tool or "observation" or "function_response" => Tool,
            Function => Function,
            _ => null,
        };
    }
}

/// <summary>Messages in their order.</summary>
public sealed record Conversation(IReadOnlyList<ChatMessage> Messages)
{
    /// <summary>Whether there is anything to learn from for a model that answers.</summary>
    public bool HasReply => Messages.Any(message => message.Role == ChatRole.Assistant);

    public bool IsEmpty => Messages.All(message => message.IsEmpty);

    public bool Equals(Conversation? other) => other is not null && Messages.SequenceEqual(other.Messages);

    public override int GetHashCode() => Messages.Count == 0 ? 0 : HashCode.Combine(Messages.Count, Messages[^1]);
}

/// <summary>Two replies to one prompt, of which people or a judge preferred one.</summary>
/// <param name="Prompt">the messages before the replies part; the last one is no reply</param>
/// <param name="Chosen">what follows in the better conversation, from a reply on; usually one message</param>
/// <param name="Rejected">what follows in the other one, likewise</param>
public sealed record PreferencePair(IReadOnlyList<ChatMessage> Prompt, IReadOnlyList<ChatMessage> Chosen, IReadOnlyList<ChatMessage> Rejected);
