using NopeGpt.Data;
using NopeGpt.Data.Chat;
using NopeGpt.Data.Documents;
using NopeGpt.Data.Documents.Hub;
using NopeGpt.Data.Tokenization;

namespace NopeGpt.Jobs.Datasets;

/// <summary>Who is told how making a data set goes.</summary>
internal sealed record MakerReports(Action<string> Log, Action<string> Warn, Action<ProgressEvent> Progress);

/// <summary>Makes the files of a data set in a folder: tokens.bin, for conversations tokens.messages beside it, and tokenizer.json. After a stop or a kill
/// the same call with the same folder goes on from the last finished shard.</summary>
internal sealed class DatasetMaker(Store store, PrepareConfig recipe, ulong seed, MakerReports reports, TimeProvider time)
{
    public const string TokensName = "tokens.bin";
    private const string StoriesName = "stories.jsonl", PinnedName = "source";

    private readonly StageMeter _meter = new(reports, time);

    /// <returns>What was made; its run's id and the source's hash are the caller's to set.</returns>
    /// <exception cref="OperationCanceledException">Cancelled; what is finished stays in the folder.</exception>
    /// <exception cref="UserException">The source or the tokenizer is not as the recipe says.</exception>
    public DatasetInfo Make(string folder, CancellationToken cancel)
    {
        using OpenedSource opened = Open(folder, cancel);
        (DatasetKind kind, ColumnMapping columns) = Columns(opened, cancel);
        Tokenizer tokenizer = FindTokenizer(folder, opened.Source, kind, columns, cancel);
        string path = Path.Combine(folder, TokensName);
        DatasetInfo made = kind == DatasetKind.Text ? MakeText(path, opened.Source, columns, tokenizer, cancel) : MakeChat(path, opened.Source, kind, columns, tokenizer, cancel);
        File.Delete(Path.Combine(folder, PinnedName));
        if (made.Reading!.HasProblems) reports.Warn($"{opened.Source.Name}: {made.Reading}");
        if (made.Documents == 0) throw new UserException($"{opened.Source.Name} holds no {(kind == DatasetKind.Text ? "text" : "conversations")} in {columns}: choose a file with documents");
        return made with { Kind = kind, Columns = recipe.Source == PrepareConfig.Stories ? "" : columns.ToString(), Origin = opened.Pinned, Licence = opened.Hub?.Licence };
    }

    /// <summary>The columns that a recipe names, or those that are known or guessed; and what they hold.</summary>
    /// <exception cref="UserException">They are not there; the message lists those that are.</exception>
    public static (DatasetKind Kind, ColumnMapping Columns) Columns(PrepareConfig recipe, OpenedSource opened, CancellationToken cancel)
    {
        if (recipe.Source == PrepareConfig.Stories) return (DatasetKind.Text, new ColumnMapping { Text = "text" });
        DatasetKind? kind = recipe.Kind == PrepareKind.Auto ? null : Enum.Parse<DatasetKind>(recipe.Kind.ToString());
        KnownDataset? known = opened.Hub is { } hub ? KnownDatasets.Find(hub.Name.Dataset) : null;
        try
        {
            IReadOnlyList<string> present = opened.Source.Columns(cancel);
            ColumnMapping columns = recipe.Columns.Length > 0 ? ColumnMapping.Parse(recipe.Columns)
                : recipe.TextColumn.Length > 0 ? new ColumnMapping { Text = recipe.TextColumn }
                : known is not null && (kind is null || kind == known.Kind) && known.Columns.Columns.All(present.Contains) ? known.Columns
                : ColumnMapping.Guess(present, kind, opened.Source.Name);
            columns.Check(present, opened.Source.Name);
            if (kind is { } wanted && wanted != columns.Kind && !(wanted == DatasetKind.Chat && columns.Kind == DatasetKind.Preference))
                throw new UserException($"prepare.columns = {columns}: they hold {Words(columns.Kind)}, and prepare.kind = {recipe.Kind.ToString().ToLowerInvariant()} asks for {Words(wanted)}: change one of the two");
            return (kind ?? columns.Kind, columns);
        }
        catch (InvalidDataException e) { throw new UserException($"prepare.source = {recipe.Source}: {e.Message}"); }
        catch (FormatException e) { throw new UserException($"prepare.columns = {recipe.Columns}: {e.Message}"); }
    }

    /// <summary>How records become conversations.</summary>
    public static ConversationReader Reader(PrepareConfig recipe, ColumnMapping columns) => new(new ConversationOptions { Columns = columns, AlpacaPrompt = recipe.AlpacaPrompt, ToolCallMarkup = recipe.ToolCallMarkup });

    private (DatasetKind Kind, ColumnMapping Columns) Columns(OpenedSource opened, CancellationToken cancel) => Columns(recipe, opened, cancel);

    private OpenedSource Open(string folder, CancellationToken cancel)
    {
        SourceOptions options = new() { ShardBytes = TokenPreparation.ShardBytes };
        if (recipe.Source == PrepareConfig.Stories)
        {
            string stories = Path.Combine(folder, StoriesName);
            if (!File.Exists(stories)) StoryGenerator.WriteCorpus(stories, recipe.CorpusBytes, seed, _meter.Stage("writing stories", 0, 0.2), cancel);
            return OpenedSource.Open(store, stories, options, cancel: cancel);
        }
        // A revision such as main may move on between two attempts; the first one's commit counts.
        string pinned = Path.Combine(folder, PinnedName);
        OpenedSource opened = OpenedSource.Open(store, File.Exists(pinned) ? File.ReadAllText(pinned) : recipe.Source, options, _meter.Download, cancel);
        if (opened.Pinned is { } address && !File.Exists(pinned))
        {
            reports.Log($"{address}: {opened.Hub!.Files.Count} files of {opened.Hub.Length:N0} bytes");
            File.WriteAllText(pinned + ".new", address);
            File.Move(pinned + ".new", pinned, overwrite: true);
        }
        return opened;
    }

    /// <summary>The given tokenizer, or one trained on the text; the one of an earlier attempt, where there is one.</summary>
    private Tokenizer FindTokenizer(string folder, Source source, DatasetKind kind, ColumnMapping columns, CancellationToken cancel)
    {
        bool chat = kind != DatasetKind.Text;
        if (File.Exists(Path.Combine(folder, Tokenizer.FileName)))
        {
            Tokenizer earlier = Tokenizer.Load(folder, store.TokenizerPlaces, store.TokenizerDownload);
            return chat ? earlier.WithChatMarkers() : earlier;
        }
        Tokenizer tokenizer = recipe.Tokenizer.Length > 0 ? Tokenizer.Load(recipe.Tokenizer, store.TokenizerPlaces, store.TokenizerDownload) : Train(source, kind, columns, cancel);
        if (chat) tokenizer = tokenizer.WithChatMarkers();
        tokenizer.Save(folder);
        return tokenizer;
    }

    private Tokenizer Train(Source source, DatasetKind kind, ColumnMapping columns, CancellationToken cancel)
    {
        Action<double> reading = _meter.Stage("reading for the tokenizer", 0.2, 0.4), merging = _meter.Stage("training the tokenizer", 0.4, 0.6);
        BytePairOptions options = new() { VocabularySize = recipe.VocabularySize, SpecialTokens = kind == DatasetKind.Text ? [Tokenizer.EndOfText] : [Tokenizer.EndOfText, .. ChatFormat.Markers] };
        int first = options.SpecialTokens.Count + 256;
        return BytePairTrainer.Train(TrainingTexts(source, kind, columns, reading, cancel), options, state =>
        {
            if (state.Tokens > first) merging((double)(state.Tokens - first) / Math.Max(1, recipe.VocabularySize - first));
        }, cancel);
    }

    /// <summary>Text up to the recipe's bound. What is wrong in the source is counted when it is encoded.</summary>
    private IEnumerable<string> TrainingTexts(Source source, DatasetKind kind, ColumnMapping columns, Action<double> progress, CancellationToken cancel)
    {
        ConversationReader reader = Reader(recipe, columns);
        ReadingReport ignored = new();
        long bytes = 0;
        foreach (Shard shard in source.Select(columns).Shards(default, cancel))
        {
            IEnumerable<string> texts = kind == DatasetKind.Text ? shard.Texts(columns, ignored)
                : shard.Records(ignored).SelectMany(r => reader.TryRead(r, out Conversation? conversation, out _) ? conversation.Messages.Select(m => m.Content) : []);
            foreach (string text in texts)
            {
                yield return text;
                bytes += System.Text.Encoding.UTF8.GetByteCount(text);
                if (recipe.TokenizerBytes > 0 && bytes >= recipe.TokenizerBytes) yield break;
            }
            progress(Math.Max(shard.Fraction, recipe.TokenizerBytes > 0 ? (double)bytes / recipe.TokenizerBytes : 0));
        }
    }

    private DatasetInfo MakeText(string path, Source source, ColumnMapping columns, Tokenizer tokenizer, CancellationToken cancel)
    {
        PreparationResult made = new TokenPreparation(tokenizer, recipe.EndOfText, recipe.Workers, recipe.MaxTokens, time).Run(path, source, columns, _meter.Encoding(EncodingFrom), cancel);
        if (made.ResumedDocuments > 0) reports.Log($"went on after {made.ResumedDocuments} documents that were encoded before");
        using TokenFile file = TokenFile.Open(path);
        return new DatasetInfo(recipe, seed, "", made.Documents, made.TextBytes, made.Tokens, tokenizer.VocabularySize, tokenizer.Hash, null, made.Report) { Statistics = TokenStatistics.Of(file, cancel) };
    }

    private DatasetInfo MakeChat(string path, Source source, DatasetKind kind, ColumnMapping columns, Tokenizer tokenizer, CancellationToken cancel)
    {
        ChatPreparation preparation = new(ChatFormat.For(tokenizer), Reader(recipe, columns), kind == DatasetKind.Preference);
        PreparedChat made = preparation.Run(path, source.Select(columns), recipe.Workers == 0 ? Environment.ProcessorCount : recipe.Workers, _meter.Chat(EncodingFrom, source.Length), cancel);
        ChatStatistics chat = made.Statistics;
        if (chat.Dropped.Count > 0)
        {
            reports.Warn($"{source.Name}: {chat.Read} records, {chat.Kept} kept; left out: {string.Join(", ", chat.Dropped.OrderBy(d => d.Key).Select(d => $"{d.Value} {d.Key}"))}"
                + $"{(chat.Problems.Count > 0 ? $"; first {chat.Problems[0]}" : "")}");
        }
        using ChatFile file = ChatFile.Open(path);
        return new DatasetInfo(recipe, seed, "", file.Count, file.Tokens.TextBytes, file.Tokens.Count, tokenizer.VocabularySize, tokenizer.Hash, null, made.Reading) { Chat = chat, Statistics = TokenStatistics.Of(file.Tokens, cancel) };
    }

    private double EncodingFrom => recipe.Tokenizer.Length > 0 ? recipe.Source == PrepareConfig.Stories ? 0.2 : 0 : 0.6;

    private static string Words(DatasetKind kind) => kind switch { DatasetKind.Text => "plain text", DatasetKind.Chat => "conversations", _ => "preference pairs" };
}
