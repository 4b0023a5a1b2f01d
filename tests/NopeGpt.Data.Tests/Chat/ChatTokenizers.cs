using NopeGpt.Data.Chat;
using NopeGpt.Data.Documents;
using NopeGpt.Data.Tokenization;
using NopeGpt.Tests;

namespace NopeGpt.Data.Tests.Chat;

/// <summary>Formats for the tests.</summary>
internal static class ChatTokenizers
{
    private static readonly Lazy<ChatFormat> _reference = new(() => ChatFormat.For(Tokenizer.Load(Needs.Data("tokenizers/r50k_base.tiktoken")).WithChatMarkers()));

    /// <summary>Small, trained here.</summary>
    public static ChatFormat Small { get; } = ChatFormat.For(BytePairTrainer.Train(StoryGenerator.Stories(1).Take(100), 600, [Tokenizer.EndOfText]).WithChatMarkers());

    /// <summary>NoPE GPT's, from the shared data.</summary>
    public static ChatFormat Reference => _reference.Value;

    public static ChatMessage Rules(string text) => new(ChatRole.System, text);

    public static ChatMessage User(string text) => new(ChatRole.User, text);

    public static ChatMessage Assistant(string text) => new(ChatRole.Assistant, text);

    /// <summary>A conversation of random roles and texts, now and then without a reply or a text.</summary>
    public static Conversation Random(Random random, int mostMessages, int mostWords)
    {
        string[] roles = [ChatRole.System, ChatRole.User, ChatRole.Assistant, ChatRole.Tool, ChatRole.Function];
        return new([.. Enumerable.Range(0, random.Next(1, mostMessages + 1)).Select(_ => new ChatMessage(roles[random.Next(roles.Length)], RandomText.Next(random, mostWords)))]);
    }
}
