using NopeGpt.Data;
using NopeGpt.Data.Chat;
using NopeGpt.Data.Documents;
using NopeGpt.Data.Documents.Hub;
using NopeGpt.Data.Tokenization;

namespace NopeGpt.Jobs.Datasets;

/// <summary>Who is told how making a data set goes.</summary>
/// <param name="Stages">Whether the log names the stages, which progress tells too.</param>
internal sealed record MakerReports(Action<string> Log, Action<string> Warn, Action<ProgressEvent> Progress, bool Stages = true);

/// <summary>What was made.</summary>
/// <param name="Info">Its run's id and the source's hash are the caller's to set.</param>
/// <param name="Tokenizer">The one that made the tokens.</param>
/// <param name="Resumed">Of it, what an earlier attempt had finished.</param>
internal sealed record MadeDataset(DatasetInfo Info, Tokenizer Tokenizer, ResumedWork Resumed);

/// <param name="Documents">Or records of conversations.</param>
/// <param name="TextBytes">UTF-8 bytes of their text.</param>
internal readonly record struct ResumedWork(long Documents, long TextBytes);

/// <summary>Makes the files of a data set in a folder: tokens.bin, for conversations tokens.messages beside it, and tokenizer.json. After a stop, a kill or a
/// failure the same call with the same folder goes on from the last finished shard; what is there of another recipe or source is thrown away.</summary>
internal sealed class DatasetMaker(Store store, PrepareConfig recipe, ulong seed, MakerReports reports, TimeProvider time)
{
    public const string TokensName = "tokens.bin", MessagesName = "tokens.messages";
    private const string StoriesName = "stories.jsonl", PartsName = TokensName + ".parts";

    /// <summary>Parts of the whole that getting the source, reading for a tokenizer and training it take.</summary>
    private const double Getting = 0.2, Reading = 0.2, Training = 0.2;

    private readonly StageMeter _meter = new(reports, time);

    private bool IsStories => recipe.Source == PrepareConfig.Stories;

    /// <param name="checkTokenizer">Told the tokenizer before anything is encoded; it throws where that cannot be used.</param>
    /// <exception cref="OperationCanceledException">Cancelled; what is finished stays in the folder.</exception>
    /// <exception cref="UserException">The source or the tokenizer is not as the recipe says.</exception>
    public MadeDataset Make(string folder, CancellationToken cancel, Action<Tokenizer>? checkTokenizer = null)
    {
        try
        {
            MakerState? earlier = MakerState.Read(folder);
            if (earlier is null || earlier.Recipe != MakerState.Normal(recipe) || earlier.Seed != seed)
            {
                Clear(folder);
                earlier = null;
            }
            using OpenedSource opened = Open(folder, earlier, cancel);
            MakerState state = Begin(folder, earlier, opened);
            (DatasetKind kind, ColumnMapping columns) = Columns(recipe, opened, cancel);
            if (kind != DatasetKind.Text && recipe.MaxTokens > 0)
                throw new UserException($"prepare.max_tokens = {recipe.MaxTokens}: is for plain text, and {opened.Source.Name} holds {Words(kind)} ({columns}): use 0, or prepare.kind = text with the column of a text");
            Tokenizer tokenizer = FindTokenizer(folder, opened.Source, kind, columns, checkTokenizer, cancel);
            (MadeTokens made, ResumedWork resumed) = Encode(folder, opened.Source, kind, columns, tokenizer, cancel);
            DatasetInfo info = new(recipe, seed, "", made.Documents, made.TextBytes, made.Tokens, tokenizer.VocabularySize, tokenizer.Hash, null, made.Reading)
            {
                Kind = kind, Columns = IsStories ? "" : columns.ToString(), Origin = opened.Pinned, Licence = state.Licence, Chat = made.Chat, Statistics = made.Statistics,
            };
            return new MadeDataset(info, tokenizer, resumed);
        }
        finally { _meter.Close(); }
    }

    /// <summary>Deletes what only the next attempt would need, once the data set stands where it belongs.</summary>
    public static void Finish(string folder)
    {
        File.Delete(Path.Combine(folder, MakerState.FileName));
        File.Delete(Path.Combine(folder, MadeTokens.FileName));
    }

    /// <summary>Whether an attempt has finished something that the next one need not do again.</summary>
    public static bool HasWork(string folder) => MadeTokens.IsIn(folder) || File.Exists(Path.Combine(folder, Tokenizer.FileName)) || Directory.Exists(Path.Combine(folder, PartsName));

    /// <summary>Deletes what an attempt has left, and nothing else.</summary>
    public static void Clear(string folder)
    {
        foreach (string name in (string[])[MakerState.FileName, MadeTokens.FileName, TokensName, MessagesName, StoriesName, Tokenizer.FileName]) File.Delete(Path.Combine(folder, name));
        string parts = Path.Combine(folder, PartsName);
        if (Directory.Exists(parts)) Directory.Delete(parts, recursive: true);
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
                : Guess(present, kind, opened.Source.Name);
            columns.Check(present, opened.Source.Name);
            if (kind is { } wanted && wanted != columns.Kind && !(wanted == DatasetKind.Chat && columns.Kind == DatasetKind.Preference))
                throw new UserException($"prepare.columns = {columns}: they hold {Words(columns.Kind)}, and prepare.kind = {recipe.Kind.ToString().ToLowerInvariant()} asks for {Words(wanted)}: change one of the two");
            return (kind ?? columns.Kind, columns);
        }
        catch (InvalidDataException e) { throw new UserException($"prepare.source = {recipe.Source}: {e.Message}"); }
        catch (FormatException e) { throw new UserException($"prepare.columns = {recipe.Columns}: {e.Message}"); }
    }

    /// <summary>The well-known columns; pairs can be read as conversations with the better answer.</summary>
    private static ColumnMapping Guess(IReadOnlyList<string> present, DatasetKind? kind, string source)
    {
        try { return ColumnMapping.Guess(present, kind, source); }
        catch (InvalidDataException) when (kind == DatasetKind.Chat && present.Contains("chosen", StringComparer.OrdinalIgnoreCase) && present.Contains("rejected", StringComparer.OrdinalIgnoreCase))
        {
            return ColumnMapping.Guess(present, DatasetKind.Preference, source);
        }
    }

    /// <summary>How records become conversations.</summary>
    public static ConversationReader Reader(PrepareConfig recipe, ColumnMapping columns) => new(new ConversationOptions { Columns = columns, AlpacaPrompt = recipe.AlpacaPrompt, ToolCallMarkup = recipe.ToolCallMarkup });

    private OpenedSource Open(string folder, MakerState? earlier, CancellationToken cancel)
    {
        SourceOptions options = new() { ShardBytes = TokenPreparation.ShardBytes };
        if (IsStories)
        {
            string stories = Path.Combine(folder, StoriesName);
            Action<double, long> writing = _meter.Timed("writing stories", 0, Getting);
            if (!File.Exists(stories)) StoryGenerator.WriteCorpus(stories, recipe.CorpusBytes, seed, done => writing(done, (long)(done * recipe.CorpusBytes)), cancel);
            return OpenedSource.Open(store, stories, options, cancel: cancel);
        }
        bool isHub = OpenedSource.NameOf(recipe.Source) is not null;
        OpenedSource opened = OpenedSource.Open(store, isHub && earlier is not null ? earlier.Source : recipe.Source, options, _meter.Download, cancel: cancel);
        if (opened.Hub is not { } hub) return opened;
        // With a bound it is not known how many of the files will be needed.
        _meter.ExpectDownloads(0, Getting, recipe.MaxTokens > 0 ? 0 : hub.Length);
        reports.Log($"{opened.Pinned}: {hub.Files.Count} files of {hub.Length:N0} bytes");
        if (hub.Unreached is { } stale) reports.Warn($"{hub.Name.Dataset}: {stale}");
        return opened;
    }

    /// <summary>Notes what is made, after throwing away what was made of other files.</summary>
    private MakerState Begin(string folder, MakerState? earlier, OpenedSource opened)
    {
        string source = IsStories ? "" : opened.Pinned ?? opened.Source.Fingerprint;
        if (earlier?.Source == source) return earlier;
        if (earlier is not null) Clear(folder);
        MakerState state = new(MakerState.Normal(recipe), seed, source, opened.Hub?.Licence);
        state.Write(folder);
        return state;
    }

    /// <summary>The given tokenizer, or one trained on the text; the one of an earlier attempt, where there is one.</summary>
    private Tokenizer FindTokenizer(string folder, Source source, DatasetKind kind, ColumnMapping columns, Action<Tokenizer>? check, CancellationToken cancel)
    {
        bool chat = kind != DatasetKind.Text;
        if (File.Exists(Path.Combine(folder, Tokenizer.FileName)))
        {
            Tokenizer earlier = Tokenizer.Load(folder, store.TokenizerPlaces, store.TokenizerDownload);
            return Checked(earlier);
        }
        Tokenizer tokenizer = Checked(recipe.Tokenizer.Length > 0 ? Tokenizer.Load(recipe.Tokenizer, store.TokenizerPlaces, store.TokenizerDownload) : Train(source, kind, columns, cancel));
        tokenizer.Save(folder);
        return tokenizer;

        Tokenizer Checked(Tokenizer found)
        {
            Tokenizer used = chat ? found.WithChatMarkers() : found;
            check?.Invoke(used);
            return used;
        }
    }

    private Tokenizer Train(Source source, DatasetKind kind, ColumnMapping columns, CancellationToken cancel)
    {
        Action<double, long> reading = _meter.Timed("reading for the tokenizer", Start, Start + Reading);
        Action<double, long>? merging = null;
        BytePairOptions options = new() { VocabularySize = recipe.VocabularySize, SpecialTokens = kind == DatasetKind.Text ? [Tokenizer.EndOfText] : [Tokenizer.EndOfText, .. ChatFormat.Markers] };
        int first = options.SpecialTokens.Count + 256;
        return BytePairTrainer.Train(TrainingTexts(source, kind, columns, reading, cancel), options, state =>
        {
            if (state.Tokens <= first) return;
            merging ??= _meter.Timed("training the tokenizer", Start + Reading, Start + Reading + Training);
            merging((double)(state.Tokens - first) / Math.Max(1, recipe.VocabularySize - first), 0);
        }, cancel);
    }

    /// <summary>Text up to the recipe's bound. What is wrong in the source is counted when it is encoded.</summary>
    private IEnumerable<string> TrainingTexts(Source source, DatasetKind kind, ColumnMapping columns, Action<double, long> progress, CancellationToken cancel)
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
            progress(Math.Max(shard.Fraction, recipe.TokenizerBytes > 0 ? (double)bytes / recipe.TokenizerBytes : 0), bytes);
        }
    }

    private (MadeTokens Made, ResumedWork Resumed) Encode(string folder, Source source, DatasetKind kind, ColumnMapping columns, Tokenizer tokenizer, CancellationToken cancel)
    {
        string path = Path.Combine(folder, TokensName);
        if (MadeTokens.Read(folder, path) is { } earlier) return (earlier, new(earlier.Documents, earlier.TextBytes));
        (MadeTokens made, ResumedWork resumed) = kind == DatasetKind.Text ? EncodeText(path, source, columns, tokenizer, cancel) : EncodeChat(path, source, kind, columns, tokenizer, cancel);
        if (resumed.Documents > 0) reports.Log($"went on after {resumed.Documents} documents that were encoded before");
        if (made.Reading.HasProblems) reports.Warn($"{source.Name}: {made.Reading}");
        if (made.Documents == 0)
        {
            Clear(folder);
            throw new UserException($"{source.Name} holds no {(kind == DatasetKind.Text ? "text" : "conversations")} in {columns}: choose a file with documents");
        }
        made.Write(folder);
        return (made, resumed);
    }

    private (MadeTokens Made, ResumedWork Resumed) EncodeText(string path, Source source, ColumnMapping columns, Tokenizer tokenizer, CancellationToken cancel)
    {
        PreparationResult made = new TokenPreparation(tokenizer, recipe.EndOfText, recipe.Workers, recipe.MaxTokens, time).Run(path, source, columns, _meter.Encoding(EncodingFrom), cancel);
        return (new MadeTokens(made.Documents, made.TextBytes, made.Tokens, made.Report, made.Statistics, null), new(made.ResumedDocuments, made.ResumedTextBytes));
    }

    private (MadeTokens Made, ResumedWork Resumed) EncodeChat(string path, Source source, DatasetKind kind, ColumnMapping columns, Tokenizer tokenizer, CancellationToken cancel)
    {
        ChatPreparation preparation = new(ChatFormat.For(tokenizer), Reader(recipe, columns), kind == DatasetKind.Preference);
        ChatProgress last = new(0, 0, 0, 0, 0);
        IProgress<ChatProgress> progress = _meter.Chat(EncodingFrom, p => last = p);
        PreparedChat made = preparation.Run(path, source.Select(columns), recipe.Workers == 0 ? Environment.ProcessorCount : recipe.Workers, progress, cancel);
        ChatStatistics chat = made.Statistics;
        if (chat.Dropped.Count > 0)
        {
            reports.Warn($"{source.Name}: {chat.Read} records, {chat.Kept} kept; left out: {string.Join(", ", chat.Dropped.OrderBy(d => d.Key).Select(d => $"{d.Value} {d.Key}"))}"
                + $"{(chat.Problems.Count > 0 ? $"; first {chat.Problems[0]}" : "")}");
        }
        using ChatFile file = ChatFile.Open(path);
        ResumedWork resumed = new(chat.Read - last.Records, file.Tokens.TextBytes - last.TextBytes);
        return (new MadeTokens(file.Count, file.Tokens.TextBytes, file.Tokens.Count, made.Reading, TokenStatistics.Of(file.Tokens, cancel), chat), resumed);
    }

    /// <summary>Where in the whole the work on the source begins, which is there then or comes in parts.</summary>
    private double Start => IsStories || OpenedSource.NameOf(recipe.Source) is not null ? Getting : 0;

    private double EncodingFrom => recipe.Tokenizer.Length > 0 ? Start : Start + Reading + Training;

    private static string Words(DatasetKind kind) => kind switch { DatasetKind.Text => "plain text", DatasetKind.Chat => "conversations", _ => "preference pairs" };
}
