using NopeGpt.Data;
using NopeGpt.Data.Documents;
using NopeGpt.Data.Tokenization;
using NopeGpt.Jobs.Datasets;
using NopeGpt.Jobs.Tokenizers;

namespace NopeGpt.Jobs.Training;

/// <summary>Trains a tokenizer on text and puts it into the store. Stopped or killed it leaves nothing behind and begins anew.</summary>
internal sealed class TokenizerRun(RunContext run)
{
    /// <summary>Shares of the work that are done when the text is read and when the merges are learned; the rest is measuring.</summary>
    private const double Read = 0.6, Learned = 0.95;

    private readonly TokenizerLibrary _library = new(run.Store);
    private readonly StageMeter _meter = new(new MakerReports(run.Log, run.Warn, run.Events.Write), run.Time);

    private TokenizerConfig Recipe => run.Config.Tokenizer;

    public void Run()
    {
        IReadOnlyList<Model.Problem> problems = RunConfigChecks.All(run.Config, run.Store);
        if (problems.Count > 0) throw new ProblemsException(problems);
        run.Events.Write(new StartedEvent(run.Events.Attempts + 1, 0, Environment.ProcessId, $"cpu, {Environment.ProcessorCount} cores"));
        CancellationToken cancel = run.Stop.Token;
        try
        {
            using OpenedSource? opened = Recipe.Source == PrepareConfig.Stories ? null
                : OpenedSource.Open(run.Store, Recipe.Source, new SourceOptions { ShardBytes = TokenPreparation.ShardBytes }, _meter.Download, cancel: cancel);
            string fingerprint = opened?.Source.Fingerprint ?? $"{PrepareConfig.Stories} {run.Config.Seed}";
            if (!UseExisting(fingerprint)) Train(opened, fingerprint, cancel);
        }
        catch (OperationCanceledException) { throw new StoppedException("stopped; training the tokenizer begins anew when resumed"); }
    }

    /// <summary>A run that was killed after its last step has made its tokenizer already.</summary>
    private bool UseExisting(string fingerprint)
    {
        if (!_library.Contains(Recipe.Name)) return false;
        if (_library.Info(Recipe.Name)?.SourceFingerprint != fingerprint)
            throw new UserException($"tokenizer.source = {Recipe.Source}: the text has changed since the tokenizer {Recipe.Name} was trained on it; choose another name or delete that tokenizer");
        run.Log($"the tokenizer {Recipe.Name} is there already");
        run.Events.Write(new ProgressEvent("the tokenizer was there already", 1));
        return true;
    }

    private void Train(OpenedSource? opened, string fingerprint, CancellationToken cancel)
    {
        TrainingText text = new(Recipe, _meter.Timed("reading the text", 0, Read), cancel);
        Tokenizer tokenizer = BytePairTrainer.Train(opened is null ? text.Stories(run.Config.Seed) : text.Read(opened.Source, Columns(opened, cancel)), Recipe.Options(), Merging(), cancel);
        if (text.Report.HasProblems) run.Warn($"{Recipe.Source}: {text.Report}");
        if (text.Count == 0) throw new UserException($"{Recipe.Source} holds no text: choose files with documents{(text.Report.Problems is [var first, ..] ? $" ({first})" : "")}");
        if (tokenizer.VocabularySize < Recipe.VocabularySize)
            run.Warn($"only {tokenizer.VocabularySize} of {Recipe.VocabularySize} tokens came out: no further pair occurs {Math.Max(1, Recipe.MinimumFrequency)} times in {text.Bytes} bytes of text; give more text, or a lower tokenizer.minimum_frequency");
        _ = _meter.Timed("measuring the tokenizer", Learned, 1);
        double ratio = TokenizerComparison.Compare(text.Sample, [(Recipe.Name, tokenizer)], cancel)[0].BytesPerToken;
        _library.Add(Recipe.Name, tokenizer, new TokenizerInfo
        {
            Made = run.Time.GetUtcNow(), Recipe = Recipe, RunId = run.Folder.Id, SourceFingerprint = fingerprint, Documents = text.Count, TextBytes = text.Bytes, BytesPerToken = ratio,
        });
        run.Log($"{text.Count} documents, {text.Bytes} bytes, {tokenizer.VocabularySize} tokens: {ratio:0.00} bytes a token");
        run.Events.Write(new MetricsEvent(0, 0, 0, null, new Dictionary<string, double>
        {
            ["data/bytes"] = text.Bytes, ["data/documents"] = text.Count, ["data/vocabulary_size"] = tokenizer.VocabularySize, ["data/bytes_per_token"] = ratio,
        }));
        run.Events.Write(new ProgressEvent("the tokenizer is ready", 1));
        run.Log($"tokenizer {Recipe.Name}: {run.Store.TokenizerFolder(Recipe.Name)}");
    }

    /// <summary>The column that the recipe names, or those that are known or guessed.</summary>
    /// <exception cref="InvalidDataException">They are not there; the message lists those that are.</exception>
    private ColumnMapping Columns(OpenedSource opened, CancellationToken cancel)
    {
        IReadOnlyList<string> present = opened.Source.Columns(cancel);
        ColumnMapping columns = Recipe.TextColumn.Length > 0 ? new ColumnMapping { Text = Recipe.TextColumn }
            : OpenedSource.Known(Recipe.Source) is { } known && known.Columns.Columns.All(present.Contains) ? known.Columns
            : ColumnMapping.Guess(present, source: opened.Source.Name);
        columns.Check(present, opened.Source.Name);
        return columns;
    }

    private Action<BytePairProgress> Merging()
    {
        int first = 256 + Recipe.SpecialTokens.Count;
        Action<double, long>? learning = null;
        return state =>
        {
            // Reading reports by itself, by its parts.
            if (state.Tokens == 0) return;
            if (learning is null) run.Log($"{state.Documents} documents, {state.Bytes} bytes, {state.DistinctWords} different words");
            learning ??= _meter.Timed("learning the merges", Read, Learned);
            learning((double)(state.Tokens - first) / Math.Max(1, Recipe.VocabularySize - first), 0);
        };
    }
}
