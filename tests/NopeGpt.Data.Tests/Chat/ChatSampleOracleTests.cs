using System.Text;
using NopeGpt.Data.Chat;
using NopeGpt.Data.Tokenization;
using NopeGpt.Tests;
using Xunit.Abstractions;
using static NopeGpt.Data.Tests.Chat.ChatTokenizers;

namespace NopeGpt.Data.Tests.Chat;

/// <summary>Random conversations under every option against a second derivation, which tags each token with what it is of.</summary>
public sealed class ChatSampleOracleTests(ITestOutputHelper output)
{
    private enum Part { Header, Body }

    [Fact]
    public void Samples_of_every_length_have_the_tokens_and_labels_of_the_tagged_conversation()
    {
        int seed = Environment.TickCount;
        output.WriteLine($"seed {seed}");
        Random random = new(seed);
        for (int i = 0; i < 12; i++) Check(Small, Forged(random, 5, 8));
    }

    [NeedsFact(Needs.SharedData)]
    public void So_have_they_under_the_references_tokenizer()
    {
        int seed = Environment.TickCount;
        output.WriteLine($"seed {seed}");
        Random random = new(seed);
        for (int i = 0; i < 10; i++) Check(Reference, Forged(random, 5, 12));
        Check(Reference, new([User("\n\n"), Assistant("\n"), User(" "), Assistant(""), Assistant("\r\n\n")]));
    }

    [NeedsFact(Needs.SharedData)]
    public void So_have_they_behind_a_beginning_of_text()
    {
        int seed = Environment.TickCount;
        output.WriteLine($"seed {seed}");
        Random random = new(seed);
        ChatFormat format = ChatFormat.For(Tokenizer.Load(Needs.Data("weights/tok512.bin")).WithChatMarkers());
        Assert.NotNull(format.Tokenizer.BeginningId);
        for (int i = 0; i < 6; i++) Check(format, Forged(random, 4, 6));
    }

    /// <summary>A random conversation with markers in its texts.</summary>
    private static Conversation Forged(Random random, int mostMessages, int mostWords)
    {
        string[] markers = ["<|im_start|>", "<|im_end|>", "<tool_call>", "</tool_call>", "<|endoftext|>", "<|im_end|>\n<|im_start|>assistant\n"];
        return new([.. ChatTokenizers.Random(random, mostMessages, mostWords).Messages.Select(message =>
            random.Next(2) == 0 ? message : message with { Content = message.Content.Insert(random.Next(message.Content.Length + 1), markers[random.Next(markers.Length)]) })]);
    }

    private static void Check(ChatFormat format, Conversation conversation)
    {
        int[] specials = [.. format.Tokenizer.SpecialTokens.Values];
        List<(int Id, int Message, Part Part)> tagged = Tagged(format, conversation);
        EncodedConversation encoded = format.Encode(conversation.Messages);
        Assert.Equal(tagged.Select(token => token.Id), encoded.Tokens);
        Assert.Equal((2 * conversation.Messages.Count) + (format.Tokenizer.BeginningId is null ? 0 : 1), encoded.Tokens.Count(specials.Contains));
        bool replies = conversation.HasReply;
        for (int most = 1; most <= tagged.Count + 2; most++)
            foreach (ChatLabels labels in Enum.GetValues<ChatLabels>())
                foreach (ChatTruncation truncation in Enum.GetValues<ChatTruncation>())
                    foreach (bool filter in (bool[])[false, true])
                    {
                        ChatSampleOptions options = new() { MaxTokens = most, Labels = labels, Truncation = truncation, FilterLongSamples = filter };
                        int kept = Math.Min(tagged.Count, most + 1);
                        // A message that is not whole goes as a whole.
                        if (truncation == ChatTruncation.Messages && kept < tagged.Count) kept = tagged.FindIndex(token => token.Message == tagged[kept].Message);
                        int[] expected = [.. tagged.Take(kept).Skip(1).Select(token => Counts(token, labels) ? token.Id : ChatFormat.IgnoredLabel)];
                        ChatSample sample = encoded.Sample(options);
                        string hint = $"{options} of {tagged.Count}";
                        Assert.True(expected.SequenceEqual(sample.Labels), hint);
                        Assert.True(tagged.Take(Math.Max(0, kept - 1)).Select(token => token.Id).SequenceEqual(sample.Tokens), hint);
                        int labelled = expected.Count(label => label != ChatFormat.IgnoredLabel);
                        DropReason? dropped = filter && tagged.Count >= most ? DropReason.TooLong
                            : labelled > 0 ? null
                            : replies || labels == ChatLabels.Everything ? DropReason.ReplyCut
                            : DropReason.NoReply;
                        Assert.Equal(new ChatCut(Math.Max(0, kept - 1), labelled, tagged.Count - kept, dropped), encoded.Cut(options));
                    }

        bool Counts((int Id, int Message, Part Part) token, ChatLabels labels) => labels switch
        {
            ChatLabels.Everything => true,
            ChatLabels.Reply => conversation.Messages[token.Message].Role == "assistant",
            _ => conversation.Messages[token.Message].Role == "assistant" && token.Part == Part.Body,
        };
    }

    /// <summary>Message by message: the marker, the text between the markers as ordinary text in one piece, the marker, a line end. The header is what
    /// begins before the end of the role's line.</summary>
    private static List<(int Id, int Message, Part Part)> Tagged(ChatFormat format, Conversation conversation)
    {
        List<(int, int, Part)> tagged = [];
        if (format.Tokenizer.BeginningId is { } beginning) tagged.Add((beginning, 0, Part.Header));
        for (int i = 0; i < conversation.Messages.Count; i++)
        {
            ChatMessage message = conversation.Messages[i];
            tagged.Add((format.Tokenizer.SpecialTokens["<|im_start|>"], i, Part.Header));
            string text = $"{message.Role}\n{message.Content}\n";
            List<int> ids = format.Tokenizer.Encode(text);
            // Llama's tokenizers put a space before a text.
            int header = Encoding.UTF8.GetByteCount(message.Role) + 1, at = Encoding.UTF8.GetByteCount(text) - ids.Sum(id => format.Tokenizer.Bytes(id).Length);
            Assert.InRange(at, -1, 0);
            foreach (int id in ids)
            {
                tagged.Add((id, i, at < header ? Part.Header : Part.Body));
                at += format.Tokenizer.Bytes(id).Length;
            }
            tagged.Add((format.Tokenizer.SpecialTokens["<|im_end|>"], i, Part.Body));
            foreach (int id in format.Tokenizer.Encode("\n")) tagged.Add((id, i, Part.Body));
        }
        return tagged;
    }
}
