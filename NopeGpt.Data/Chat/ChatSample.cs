namespace NopeGpt.Data.Chat;

/// <summary>Which tokens a model learns to predict.</summary>
public enum ChatLabels
{
    /// <summary>The assistant's messages whole: header, text and end, as NoPE GPT does.</summary>
    Reply,

    /// <summary>The assistant's messages without their header, which the model never writes itself.</summary>
    ReplyWithoutHeader,

    /// <summary>All messages (train on inputs).</summary>
    Everything,
}

/// <summary>What is done with a conversation that is longer than a sample may be.</summary>
public enum ChatTruncation
{
    /// <summary>It ends before the first message that does not fit, as in NoPE GPT.</summary>
    Messages,

    /// <summary>It ends in the middle of that message.</summary>
    Tokens,
}

/// <summary>How conversations become samples.</summary>
public sealed record ChatSampleOptions
{
    /// <summary>Ids in a sample at most.</summary>
    public int MaxTokens { get; init; } = 8192;

    public ChatLabels Labels { get; init; } = ChatLabels.Reply;

    public ChatTruncation Truncation { get; init; } = ChatTruncation.Messages;

    /// <summary>Whether conversations of <see cref="MaxTokens"/> tokens or more are left out instead of truncated.</summary>
    public bool FilterLongSamples { get; init; }
}

/// <summary>A message within the ids of its conversation; it ends where the next one starts.</summary>
/// <param name="Start">its first token, the marker</param>
/// <param name="Header">tokens of its header: marker, role and line end</param>
/// <param name="Reply">whether the assistant speaks</param>
public readonly record struct MessageSpan(int Start, int Header, bool Reply);

/// <summary>What a model reads and what it is to predict.</summary>
/// <param name="Tokens">ids that go in</param>
/// <param name="Labels">for each of them the id that follows, or <see cref="ChatFormat.IgnoredLabel"/> where it does not count</param>
public sealed record ChatSample(int[] Tokens, int[] Labels);

/// <summary>A conversation as ids.</summary>
/// <param name="Tokens">all of it</param>
/// <param name="Messages">where its messages are, in order; before the first there is at most BOS</param>
public sealed record EncodedConversation(int[] Tokens, MessageSpan[] Messages)
{
    /// <summary>The sample that the options make of it; empty where not even the first message fits. Whether it is one to train on, and why
    /// not, says <see cref="Cut"/>.</summary>
    public ChatSample Sample(ChatSampleOptions options)
    {
        ArgumentNullException.ThrowIfNull(options);
        ChatCut cut = Cut(options);
        int[] labels = new int[cut.Length];
        CopyLabels(options.Labels, cut.Length, labels);
        return new ChatSample(Tokens[..cut.Length], labels);
    }

    /// <summary>How much of the conversation is left under the options.</summary>
    public ChatCut Cut(ChatSampleOptions options) => ChatCut.Of(Messages, Tokens.Length, options);

    private void CopyLabels(ChatLabels labels, int length, int[] into)
    {
        Array.Fill(into, ChatFormat.IgnoredLabel);
        foreach ((int from, int to) in ChatCut.Ranges(Messages, Tokens.Length, length + 1, labels))
            Array.Copy(Tokens, from, into, from - 1, to - from);
    }
}

/// <summary>What is left of a conversation when it becomes a sample.</summary>
/// <param name="Length">ids that go in: one less than the tokens kept, because the last one is only predicted</param>
/// <param name="Labelled">labels that count</param>
/// <param name="TokensCut">tokens at the end of the conversation that did not fit</param>
/// <param name="Dropped">why it is no sample to train on; null where it is one</param>
public readonly record struct ChatCut(int Length, int Labelled, int TokensCut, DropReason? Dropped)
{
    internal static ChatCut Of(ReadOnlySpan<MessageSpan> messages, int total, ChatSampleOptions options)
    {
        // A sample of n ids takes n + 1 tokens: the last one is only predicted.
        int most = options.MaxTokens == int.MaxValue ? int.MaxValue : options.MaxTokens + 1;
        int kept = total;
        if (total > most)
        {
            kept = options.Truncation == ChatTruncation.Tokens ? most : 0;
            // A conversation whose first message does not fit has nothing left: BOS alone says nothing.
            for (int i = 1; i < messages.Length && options.Truncation == ChatTruncation.Messages && messages[i].Start <= most; i++) kept = messages[i].Start;
        }
        bool reply = false;
        foreach (MessageSpan message in messages) reply |= message.Reply;
        int labelled = 0;
        foreach ((int from, int to) in Ranges(messages, total, kept, options.Labels)) labelled += to - from;
        DropReason? dropped =
            messages.IsEmpty ? DropReason.Empty
            : options.FilterLongSamples && total >= options.MaxTokens ? DropReason.TooLong
            : labelled > 0 ? null
            : reply || options.Labels == ChatLabels.Everything ? DropReason.ReplyCut
            : DropReason.NoReply;
        return new ChatCut(Math.Max(0, kept - 1), labelled, total - kept, dropped);
    }

    /// <summary>The ranges of tokens that are labels, from the second token on: nothing predicts the first.</summary>
    internal static List<(int From, int To)> Ranges(ReadOnlySpan<MessageSpan> messages, int total, int kept, ChatLabels labels)
    {
        List<(int, int)> ranges = [];
        for (int i = 0; i < messages.Length; i++)
        {
            MessageSpan message = messages[i];
            if (labels != ChatLabels.Everything && !message.Reply) continue;
            int from = Math.Max(1, message.Start + (labels == ChatLabels.ReplyWithoutHeader ? message.Header : 0));
            int to = Math.Min(kept, i + 1 < messages.Length ? messages[i + 1].Start : total);
            if (from < to) ranges.Add((from, to));
        }
        return ranges;
    }
}
