using System.Globalization;
using NopeGpt.Data;
using NopeGpt.Data.Documents;
using NopeGpt.Data.Tokenization;
using NopeGpt.Jobs.Configuration;
using NopeGpt.Jobs.Datasets;
using NopeGpt.Jobs.Training;
using NopeGpt.Model;

namespace NopeGpt.Jobs;

/// <summary>What can be wrong with a <see cref="RunConfig"/>, each problem with its field, value and cure.</summary>
public static partial class RunConfigChecks
{
    // Stands in for a vocabulary that is the tokenizer's and so not known before the data set is.
    private const int AnyVocabulary = 4096;

    private const int MostGenerations = 64;

    /// <summary>The problems of the values, and of what they name in the store: data set, tokenizer, checkpoint.</summary>
    /// <param name="run">The run that the config belongs to, whose own results are no obstacle to it; null where it is not made yet.</param>
    public static IReadOnlyList<Problem> All(RunConfig config, Store store, string? run = null)
    {
        List<Problem> problems = [.. Values(config)];
        switch (config.Kind)
        {
            case RunKind.Prepare:
                Source(config.Prepare, problems);
                TokenizerExists(config.Prepare, store, problems);
                break;
            case RunKind.Pretrain: TokenFileFits(config, store, problems); break;
            case RunKind.Finetune: FinetuningFits(config, store, problems); break;
            case RunKind.Tokenizer: TokenizerCanBeMade(config.Tokenizer, store, problems); break;
            case RunKind.Export: ExportFits(config, store, run, problems); break;
            case RunKind.Evaluate:
                CheckpointExists(config.Evaluate, store, problems);
                MeasuredDataFit(config, store, problems);
                break;
        }
        return problems;
    }

    /// <summary>The problems of a run that waits for no other, and so must name the checkpoint that it measures.</summary>
    public static IReadOnlyList<Problem> Alone(RunConfig config, Store store) => config.Kind == RunKind.Evaluate && config.Evaluate.Checkpoint.Length == 0
        ? [.. All(config, store), new Problem("evaluate.checkpoint", "", "name a run's id or a folder with a model.safetensors: this run waits for none whose model it could take")]
        : All(config, store);

    /// <summary>The problems of the values themselves.</summary>
    internal static IReadOnlyList<Problem> Values(RunConfig config)
    {
        List<Problem> problems = [];
        Ranges(config, problems);
        if (config.Name.Length > 80 || config.Name.Any(char.IsControl))
            problems.Add(new Problem("name", Short(config.Name), "use at most 80 characters without line breaks or control characters"));
        Device(config, problems);
        switch (config.Kind)
        {
            case RunKind.Pretrain: Pretraining(config, problems); break;
            case RunKind.Finetune: Finetuning(config, problems); break;
            case RunKind.Prepare: Preparation(config.Prepare, problems); break;
            case RunKind.Evaluate: Texts("evaluate.prompts", config.Evaluate.Prompts, problems); break;
            case RunKind.Tokenizer: TokenizerTraining(config.Tokenizer, problems); break;
            case RunKind.Export: Exporting(config.Export, problems); break;
        }
        return problems;
    }

    /// <summary>True for settings that a run of this kind reads.</summary>
    public static bool Applies(Setting setting, RunKind kind) => setting.Section switch
    {
        "" => true,
        _ when kind == RunKind.Finetune => AppliesToFinetuning(setting.Path),
        "finetune" => false,
        "prepare" => kind == RunKind.Prepare,
        "evaluate" => kind == RunKind.Evaluate,
        "tokenizer" => kind == RunKind.Tokenizer,
        "export" => kind == RunKind.Export,
        "data" => kind is RunKind.Pretrain or RunKind.Evaluate,
        _ => kind == RunKind.Pretrain,
    };

    private static void Ranges(RunConfig config, List<Problem> problems)
    {
        foreach (Setting setting in Settings.All.Where(s => s.Minimum is not null && Applies(s, config.Kind)))
        {
            object value = Settings.Get(config, setting)!;
            double number = Convert.ToDouble(value, CultureInfo.InvariantCulture);
            if (!(number >= setting.Minimum && number <= setting.Maximum))
                problems.Add(new Problem(setting.Path, Convert.ToString(value, CultureInfo.InvariantCulture)!, $"must lie from {setting.Minimum} to {setting.Maximum}"));
        }
    }

    private static void Pretraining(RunConfig config, List<Problem> problems)
    {
        ModelConfig model = config.Model.VocabularySize == 0 ? config.Model with { VocabularySize = AnyVocabulary } : config.Model;
        problems.AddRange(model.Problems().Select(p => p with { Field = "model." + p.Field }));
        if (model.Positions == Positions.Learned && config.Data.TokensPerSample > model.ContextLength)
            problems.Add(new Problem("data.tokens_per_sample", Text(config.Data.TokensPerSample), $"is more than model.context_length = {model.ContextLength}, the positions that the model can learn: choose at most that"));
        if (config.Data.Dataset.Length == 0)
            problems.Add(new Problem("data.dataset", "", "name a data set of the store or the path of a token file"));
        Devices(config, problems);
        Length(config, RunLength.Scheduled(config, null), problems);
        long tokens = (long)config.Training.BatchSize * config.Data.TokensPerSample;
        if (tokens > 1 << 24)
            problems.Add(new Problem("training.batch_size", Text(config.Training.BatchSize), $"makes {tokens} tokens in one micro-batch with data.tokens_per_sample = {config.Data.TokensPerSample}: at most {1 << 24}; use training.gradient_accumulation_steps for larger steps"));
        Texts("training.sample_prompts", config.Training.SamplePrompts, problems);
    }

    private static void Preparation(PrepareConfig prepare, List<Problem> problems)
    {
        if (!Store.IsName(prepare.Dataset))
            problems.Add(new Problem("prepare.dataset", Short(prepare.Dataset), "cannot be a name: use letters, digits, dots, hyphens and underscores, at most 64, beginning with a letter or digit"));
        if (prepare.Source.Length == 0)
            problems.Add(new Problem("prepare.source", "", $"use {PrepareConfig.Stories}, {OpenedSource.Forms}"));
        if (prepare.Columns.Length > 0 && prepare.TextColumn.Length > 0)
            problems.Add(new Problem("prepare.text_column", Short(prepare.TextColumn), $"is one column more beside prepare.columns = {Short(prepare.Columns)}: give one of the two"));
        try { if (prepare.Columns.Length > 0) _ = ColumnMapping.Parse(prepare.Columns); }
        catch (FormatException e) { problems.Add(new Problem("prepare.columns", Short(prepare.Columns), e.Message)); }
        bool conversations = prepare.Kind is PrepareKind.Chat or PrepareKind.Preference || (prepare.Kind == PrepareKind.Auto && prepare.Columns.Length + prepare.TextColumn.Length == 0 && IsKnownChat(prepare.Source));
        if (prepare.MaxTokens > 0 && conversations)
            problems.Add(new Problem("prepare.max_tokens", Convert.ToString(prepare.MaxTokens, CultureInfo.InvariantCulture), "is for plain text: use 0, and choose a smaller subset of the conversations"));
        if (prepare.EndOfText != EndOfText.After && conversations)
            problems.Add(new Problem("prepare.end_of_text", Settings.SnakeCase(prepare.EndOfText.ToString()), "is for plain text: conversations have their own ends; use after"));
        if (prepare.Source != PrepareConfig.Stories) return;
        if (prepare.Kind is PrepareKind.Chat or PrepareKind.Preference)
            problems.Add(new Problem("prepare.kind", Settings.SnakeCase(prepare.Kind.ToString()), $"{PrepareConfig.Stories} are plain text: use text, or another source"));
        if (prepare.Columns.Length > 0) problems.Add(new Problem("prepare.columns", Short(prepare.Columns), $"{PrepareConfig.Stories} have no columns to choose of: leave it empty"));
        if (prepare.TextColumn.Length > 0) problems.Add(new Problem("prepare.text_column", Short(prepare.TextColumn), $"{PrepareConfig.Stories} have no columns to choose of: leave it empty"));
    }

    private static bool IsKnownChat(string source)
    {
        try { return OpenedSource.Known(source) is { Kind: not DatasetKind.Text }; }
        catch (FormatException) { return false; /* the source's own problem */ }
    }

    private static void Texts(string field, IReadOnlyList<string> texts, List<Problem> problems)
    {
        if (texts.Count > 16) problems.Add(new Problem(field, $"{texts.Count} texts", "use at most 16"));
        foreach (string text in texts.Where(t => t.Length > 2000)) problems.Add(new Problem(field, Short(text), "use at most 2,000 characters for each text"));
    }

    private static void Source(PrepareConfig prepare, List<Problem> problems)
    {
        SourceIsThere("prepare.source", prepare.Source, problems);
    }

    private const int MostOpened = 1000;

    private static void SourceIsThere(string field, string source, List<Problem> problems)
    {
        if (source is PrepareConfig.Stories or "") return;
        try
        {
            // Whether the Hub has it is seen when the run asks.
            if (OpenedSource.NameOf(source) is not null) return;
            // One that may not be read ends the run sooner or later.
            foreach (SourceFile file in Data.Documents.Source.Open(source).Files.Take(MostOpened)) File.OpenHandle(file.Name).Dispose();
        }
        catch (FormatException e) { problems.Add(new Problem(field, Short(source), e.Message)); }
        catch (Exception e) when (e is IOException or ArgumentException or UnauthorizedAccessException)
        {
            problems.Add(new Problem(field, Short(source), $"{e.Message.Split(" (Parameter")[0].TrimEnd('.')}: use {PrepareConfig.Stories}, {OpenedSource.Forms}"));
        }
    }

    /// <summary>Of a published encoding the file is fetched by the run.</summary>
    private static void TokenizerExists(PrepareConfig prepare, Store store, List<Problem> problems)
    {
        if (prepare.Tokenizer.Length == 0 || Tokenizer.IsPublished(prepare.Tokenizer)) return;
        try { _ = Tokenizer.Load(prepare.Tokenizer, store.TokenizerPlaces); }
        catch (FileNotFoundException) when (Path.Exists(prepare.Tokenizer)) { /* it names a published encoding, whose file is fetched by the run too */ }
        catch (Exception e) when (e is IOException or InvalidDataException or ArgumentException or UnauthorizedAccessException)
        {
            problems.Add(new Problem("prepare.tokenizer", Short(prepare.Tokenizer), e.Message));
        }
    }

    private static void TokenFileFits(RunConfig config, Store store, List<Problem> problems)
    {
        if (config.Data.Dataset.Length == 0) return;
        try
        {
            string path = store.ResolveTokenFile(config.Data.Dataset);
            if (config.Data.RawTokens && !File.Exists(Store.TokenizerBeside(path)) && File.Exists(path)) throw new InvalidDataException($"{path} has no tokenizer.json beside it, and as a raw file does not tell its vocabulary: put there the tokenizer.json that made it");
            using TokenFile file = TrainingData.Open(config.Data.Dataset, config.Data.RawTokens, store);
            if (config.Model.VocabularySize != 0 && config.Model.VocabularySize != file.VocabularySize)
                problems.Add(new Problem("model.vocabulary_size", Text(config.Model.VocabularySize), $"does not match the tokenizer of {config.Data.Dataset}, which has {file.VocabularySize} tokens: use {file.VocabularySize}, or 0 to take the tokenizer's"));
            if (!File.Exists(Store.TokenizerBeside(path)))
                problems.Add(new Problem("data.dataset", Short(config.Data.Dataset), $"has no tokenizer.json beside it ({Store.TokenizerBeside(path)}): prepare the data set again"));
            else file.CheckTokenizer(Tokenizer.Load(Store.TokenizerBeside(path), store.TokenizerPlaces), Store.TokenizerBeside(path));
            if (problems.Any(p => p.Field.StartsWith("data.", StringComparison.Ordinal) || p.Field == "training.batch_size")) return;
            MixtureFits(config, store, problems);
        }
        catch (Exception e) when (e is IOException or InvalidDataException or UnauthorizedAccessException)
        {
            string known = string.Join(", ", DatasetNames(store));
            problems.Add(new Problem("data.dataset", Short(config.Data.Dataset), e is FileNotFoundException or DirectoryNotFoundException
                ? $"there is no such data set; {(known.Length == 0 ? "prepare one first" : $"the store has {known}")}" : e.Message));
        }
        catch (Exception e) when (e is ArgumentException or NotSupportedException)
        {
            problems.Add(new Problem("data.dataset", Short(config.Data.Dataset), "cannot be a path: name a data set of the store or the path of a token file"));
        }
    }

    private static void MixtureFits(RunConfig config, Store store, List<Problem> problems)
    {
        try
        {
            using TrainingData files = new(config.Data, store);
            try
            {
                long samples = files.Source(config.Data, config.Training.BatchSize, config.Seed).TrainingWindows;
                if (config.Kind == RunKind.Pretrain && config.Training is { MaxSteps: 0, MaxEpochs: > 0 }) Length(config, RunLength.Scheduled(config, samples), problems);
            }
            catch (ArgumentException e) { problems.Add(new Problem("data.tokens_per_sample", Text(config.Data.TokensPerSample), e.Message)); }
        }
        catch (Exception e) when (e is IOException or InvalidDataException or UserException)
        {
            problems.Add(new Problem("data.mixture", Short(string.Join(" | ", config.Data.Mixture)), e is FileNotFoundException or DirectoryNotFoundException
                ? $"{e.Message.TrimEnd('.')}; the store has {string.Join(", ", DatasetNames(store))}" : e.Message));
        }
    }

    // Sizes for the data that the checkpoint learned from are its training's own, whatever the config has.
    private static void MeasuredDataFit(RunConfig config, Store store, List<Problem> problems)
    {
        if (config.Data.Dataset.Length == 0 || config.Evaluate.Checkpoint.Length == 0 || problems.Any(p => p.Field == "evaluate.checkpoint")) return;
        // Whether the tokenizer is the checkpoint's is seen when that is opened.
        RunConfig measured = config with { Model = config.Model with { VocabularySize = 0 } };
        try
        {
            if (TrainedBy(config.Evaluate.Checkpoint, store) is not { } trained) TokenFileFits(measured, store, problems);
            else if (!SameData(config.Data, trained.Data, store))
                TokenFileFits(measured with { Seed = trained.Seed, Training = trained.Training }, store, problems);
        }
        catch (UserException e) { problems.Add(new Problem("evaluate.checkpoint", Short(config.Evaluate.Checkpoint), e.Message)); }
    }

    /// <summary>The config of the run that pretrained a checkpoint, or the base of one that was fine-tuned; null where it is not known.</summary>
    /// <param name="checkpoint">A run's id, or a checkpoint folder.</param>
    /// <exception cref="UserException">The run's run.json is damaged.</exception>
    internal static RunConfig? TrainedBy(string checkpoint, Store store)
    {
        // A base that is copied by hand could be its own.
        for (int generation = 0; generation < MostGenerations; generation++)
        {
            if (!RunFolder.TryOpen(store, checkpoint, out RunFolder? run))
            {
                string owner = Path.GetDirectoryName(Path.GetDirectoryName(Path.TrimEndingDirectorySeparator(Path.GetFullPath(checkpoint)))) ?? "";
                if (!File.Exists(Path.Combine(owner, "run.json"))) return null;
                run = RunFolder.Open(owner);
            }
            RunConfig config = run.Read().Config;
            if (config.Kind == RunKind.Pretrain) return config;
            if (config.Kind != RunKind.Finetune) return null;
            checkpoint = config.Finetune.BaseCheckpointPath;
        }
        return null;
    }

    /// <summary>True when both name one token file.</summary>
    internal static bool SameData(DataConfig one, DataConfig other, Store store) =>
        one.Dataset.Length > 0 && other.Dataset.Length > 0 && store.ResolveTokenFile(one.Dataset) == store.ResolveTokenFile(other.Dataset);

    private static void CheckpointExists(EvaluateConfig evaluate, Store store, List<Problem> problems)
    {
        if (evaluate.Checkpoint.Length == 0 || RunFolder.TryOpen(store, evaluate.Checkpoint, out _) || File.Exists(Path.Combine(evaluate.Checkpoint, "model.safetensors")) || Inference.CheckpointModel.IsAdapter(evaluate.Checkpoint)) return;
        problems.Add(new Problem("evaluate.checkpoint", Short(evaluate.Checkpoint), "is neither a run's id nor a folder with a model.safetensors"));
    }

    /// <summary>Data sets that stand under their final name, in alphabetical order.</summary>
    public static IEnumerable<string> DatasetNames(Store store) =>
        Directory.EnumerateDirectories(store.DatasetsFolder).Select(d => Path.GetFileName(d)).Where(n => Store.IsName(n) && File.Exists(store.DatasetTokens(n))).Order(StringComparer.Ordinal);

    private static string Text(int value) => value.ToString(CultureInfo.InvariantCulture);

    private static string Short(string text) => text.Length <= 80 ? text : text[..77] + "...";
}
