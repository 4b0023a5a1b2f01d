using System.Text;
using NopeGpt.Data;
using NopeGpt.Data.Chat;
using NopeGpt.Data.Documents;
using NopeGpt.Data.Tokenization;

namespace NopeGpt.Jobs.Datasets;

/// <summary>A document, a conversation or a row of a batch as people look at it.</summary>
/// <param name="Title">Where it is from.</param>
/// <param name="Text">All of its text.</param>
/// <param name="Tokens">Null where no tokenizer is known.</param>
public sealed record PreviewRow(string Title, string Text, IReadOnlyList<TokenPreview>? Tokens);

/// <summary>What of a data set is shown. Batches are those of a run with the same values.</summary>
public sealed record PreviewOptions
{
    /// <summary>Documents, conversations, pairs or rows.</summary>
    public int Count { get; init; } = 3;

    /// <summary>Tokens of a row at most; null takes a pretraining run's, or fewer where the file has fewer. Conversations are cut at whole messages.</summary>
    public int? TokensPerSample { get; init; }

    /// <summary>Samples that are held out; null takes a run's, or none where the file has fewer.</summary>
    public int? HoldoutSamples { get; init; }

    public ulong Seed { get; init; } = new RunConfig().Seed;

    /// <summary>Whether samples run on from document to document, or several conversations share a row. Null is as usual: documents do, conversations do not.</summary>
    public bool? Packed { get; init; }

    /// <summary>What of a conversation is to be learned.</summary>
    public ChatLabels Labels { get; init; } = ChatLabels.Reply;
}

/// <summary>The first of what a model would see.</summary>
public static class DatasetPreview
{
    private static readonly DataConfig _usual = new();

    /// <summary>The rows of a run's first batch.</summary>
    /// <exception cref="UserException">The files have too few tokens, or do not go together.</exception>
    /// <exception cref="InvalidDataException">A file is damaged.</exception>
    public static IReadOnlyList<PreviewRow> Rows(IReadOnlyList<TokenFile> files, Tokenizer tokenizer, PreviewOptions options)
    {
        ArgumentNullException.ThrowIfNull(files);
        ArgumentNullException.ThrowIfNull(tokenizer);
        ArgumentNullException.ThrowIfNull(options);
        int length = options.TokensPerSample ?? (int)Math.Max(1, Math.Min(_usual.TokensPerSample, files.Min(file => file.Count) - 1));
        BatchOptions batches = new()
        {
            BatchSize = options.Count, TokensPerSample = length, Seed = options.Seed, HoldoutSamples = options.HoldoutSamples ?? _usual.NumEvalSamples, Packed = options.Packed ?? true, PaddingId = tokenizer.EndOfTextId,
        };
        BatchSource source = Try(() => new BatchSource([.. files.Select(file => new MixedFile(file))], batches), options.HoldoutSamples is null ? () => new BatchSource([.. files.Select(file => new MixedFile(file))], batches with { HoldoutSamples = 0 }) : null);
        Batch batch = source.Training(0);
        IReadOnlyList<long> documents = source.DocumentIds(batch);
        return [.. Enumerable.Range(0, batch.Rows).Select(row => Row($"row {row}, from document {documents[row]} on", batch, row, tokenizer))];
    }

    /// <summary>The rows of a fine-tuning run's first batch.</summary>
    /// <exception cref="UserException">The file has too few conversations, or the tokenizer no markers for messages.</exception>
    /// <exception cref="InvalidDataException">The file is damaged.</exception>
    public static IReadOnlyList<PreviewRow> Rows(ChatFile file, Tokenizer tokenizer, PreviewOptions options)
    {
        ArgumentNullException.ThrowIfNull(file);
        ArgumentNullException.ThrowIfNull(options);
        ChatBatchOptions batches = new()
        {
            BatchSize = options.Count, Packing = options.Packed ?? false, Seed = options.Seed, HoldoutSamples = options.HoldoutSamples ?? _usual.NumEvalSamples,
            Sample = SampleOptions(options),
        };
        int padding = Try(() => ChatFormat.For(tokenizer)).PaddingId;
        ChatBatchSource source = Try(() => new ChatBatchSource(file, padding, batches), options.HoldoutSamples is null ? () => new ChatBatchSource(file, padding, batches with { HoldoutSamples = 0 }) : null);
        Batch batch = source.Training(0);
        return [.. Enumerable.Range(0, batch.Rows).Select(row => Row($"row {row}, conversation {string.Join(", ", batch.Documents![row])}", batch, row, tokenizer))];
    }

    /// <summary>The first documents, conversations or pairs of a source, each by itself. What cannot be used of those before them is in the report.</summary>
    /// <param name="tokenizer">Null shows their text only.</param>
    /// <exception cref="UserException">The tokenizer has no markers for messages.</exception>
    public static IEnumerable<PreviewRow> Records(Source source, DatasetKind kind, ColumnMapping columns, ConversationReader reader, Tokenizer? tokenizer, PreviewOptions options, ReadingReport report, CancellationToken cancel = default)
    {
        ArgumentNullException.ThrowIfNull(source);
        ArgumentNullException.ThrowIfNull(columns);
        ArgumentNullException.ThrowIfNull(reader);
        ArgumentNullException.ThrowIfNull(options);
        ChatFormat? format = kind == DatasetKind.Text || tokenizer is null ? null : Try(() => ChatFormat.For(tokenizer));
        return kind == DatasetKind.Text ? source.Texts(columns, report, cancel).Take(options.Count).Select((text, i) => Document($"document {i}", text, tokenizer, options))
            : source.Select(columns).Records(report, cancel).SelectMany(Found).Take(options.Count).SelectMany(found => found);

        IEnumerable<PreviewRow[]> Found(Record record)
        {
            string title = $"{record.File}, row {record.Row}";
            RecordProblem? problem;
            if (kind == DatasetKind.Preference)
            {
                if (reader.TryReadPair(record, out PreferencePair? pair, out problem))
                {
                    (EncodedConversation Chosen, EncodedConversation Rejected)? encoded = format?.Encode(pair);
                    return [[Conversation($"{title}, chosen", [.. pair.Prompt, .. pair.Chosen], encoded?.Chosen, tokenizer, options), Conversation($"{title}, rejected", [.. pair.Prompt, .. pair.Rejected], encoded?.Rejected, tokenizer, options)]];
                }
            }
            else if (reader.TryRead(record, out Conversation? conversation, out problem)) return [[Conversation(title, conversation.Messages, format?.Encode(conversation.Messages), tokenizer, options)]];
            report.AddBad(record.File, record.Row, $"{(problem.Field.Length == 0 ? "the record" : $"field {problem.Field}")} {problem.Problem}; {problem.Cure}");
            return [];
        }
    }

    /// <summary>A document as a source's preparation would encode it.</summary>
    public static PreviewRow Document(string title, string text, Tokenizer? tokenizer, PreviewOptions options)
    {
        ArgumentNullException.ThrowIfNull(text);
        ArgumentNullException.ThrowIfNull(options);
        if (tokenizer is null) return new PreviewRow(title, text, null);
        List<int> ids = [.. tokenizer.Encode(text), tokenizer.EndOfTextId];
        long[] shown = [.. ids.Take((options.TokensPerSample ?? _usual.TokensPerSample) + 1).Select(id => (long)id)];
        return new PreviewRow(title, text, shown.Length < 2 ? [] : TokenPreview.Row(new Batch(1, shown.Length - 1, shown[..^1], shown[1..], [0]), 0, tokenizer));
    }

    private static PreviewRow Conversation(string title, IReadOnlyList<ChatMessage> messages, EncodedConversation? encoded, Tokenizer? tokenizer, PreviewOptions options)
    {
        StringBuilder text = new();
        foreach (ChatMessage message in messages)
        {
            text.Append(message.Role).Append(": ").Append(message.Content).Append('\n');
            foreach (string call in message.ToolCalls) text.Append("calls ").Append(call).Append('\n');
        }
        if (encoded is null || tokenizer is null) return new PreviewRow(title, text.ToString().TrimEnd('\n'), null);
        ChatSample sample = encoded.Sample(SampleOptions(options));
        Batch row = new(1, sample.Tokens.Length, [.. sample.Tokens.Select(id => (long)id)], [.. sample.Labels.Select(id => (long)id)], [0]);
        return new PreviewRow(title, text.ToString().TrimEnd('\n'), sample.Tokens.Length == 0 ? [] : TokenPreview.Row(row, 0, tokenizer));
    }

    private static ChatSampleOptions SampleOptions(PreviewOptions options) =>
        options.TokensPerSample is { } tokens ? new() { MaxTokens = tokens, Labels = options.Labels } : new() { Labels = options.Labels };

    private static PreviewRow Row(string title, Batch batch, int row, Tokenizer tokenizer)
    {
        IReadOnlyList<TokenPreview> tokens = TokenPreview.Row(batch, row, tokenizer);
        return new PreviewRow(title, string.Concat(tokens.Select(token => token.Text)), tokens);
    }

    private static T Try<T>(Func<T> make, Func<T>? otherwise = null)
    {
        try { return make(); }
        catch (ArgumentException e) { return otherwise is null ? throw new UserException(e.Message.Split(" (Parameter")[0]) : Try(otherwise); }
    }
}
