using NopeGpt.Data;
using NopeGpt.Data.Documents;
using NopeGpt.Data.Tokenization;
using NopeGpt.Jobs.Tokenizers;

namespace NopeGpt.Jobs.Training;

/// <summary>Trains a tokenizer on text and puts it into the store. Stopped or killed it leaves nothing behind and begins anew.</summary>
internal sealed class TokenizerRun(RunContext run)
{
    /// <summary>Shares of the work: reading the text, learning the merges, measuring the result.</summary>
    private const double Read = 0.6, Learned = 0.95;

    private readonly TokenizerLibrary _library = new(run.Store);

    private TokenizerConfig Recipe => run.Config.Tokenizer;

    public void Run()
    {
        IReadOnlyList<Model.Problem> problems = RunConfigChecks.All(run.Config, run.Store);
        if (problems.Count > 0) throw new ProblemsException(problems);
        run.Events.Write(new StartedEvent(run.Events.Attempts + 1, 0, Environment.ProcessId, $"cpu, {Environment.ProcessorCount} cores"));
        try
        {
            Source source = Source.Open(Recipe.Source, new SourceOptions { ShardBytes = TokenPreparation.ShardBytes });
            string fingerprint = source.Fingerprint;
            if (UseExisting(fingerprint)) return;
            Train(source, fingerprint);
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

    private void Train(Source source, string fingerprint)
    {
        CancellationToken cancel = run.Stop.Token;
        ColumnMapping column = Recipe.TextColumn.Length > 0 ? new ColumnMapping { Text = Recipe.TextColumn } : ColumnMapping.Guess(source.Columns(cancel), DatasetKind.Text, Recipe.Source);
        TrainingText text = new(source, column, Recipe.MaximumBytes, cancel);
        Meter meter = new(run, text);
        Tokenizer tokenizer = BytePairTrainer.Train(text.Documents(), Recipe.Options(), meter.Report, cancel);
        if (text.Report.HasProblems) run.Warn($"{Recipe.Source}: {text.Report}");
        if (text.Count == 0) throw new UserException($"{Recipe.Source} holds no text: choose files with documents{(text.Report.Problems is [var first, ..] ? $" ({first})" : "")}");
        if (tokenizer.VocabularySize < Recipe.VocabularySize)
            run.Warn($"only {tokenizer.VocabularySize} of {Recipe.VocabularySize} tokens came out: no further pair occurs {Math.Max(1, Recipe.MinimumFrequency)} times in {text.Bytes} bytes of text; give more text, or a lower tokenizer.minimum_frequency");
        run.Events.Write(new ProgressEvent("measuring the tokenizer", Learned));
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

    /// <summary>Speed and expected end of each of the two stages.</summary>
    private sealed class Meter
    {
        private readonly RunContext _run;
        private readonly TrainingText _text;
        private readonly int _first;
        private long _start, _reported;
        private bool _learning;

        public Meter(RunContext run, TrainingText text)
        {
            (_run, _text, _first) = (run, text, 256 + run.Config.Tokenizer.SpecialTokens.Count);
            Begin("reading the text", 0);
            text.Advanced += () => Report(new BytePairProgress(text.Count, text.Bytes, 0, 0));
        }

        public void Report(BytePairProgress progress)
        {
            if (progress.Tokens > 0 && !_learning)
            {
                _learning = true;
                _run.Log($"{progress.Documents} documents, {progress.Bytes} bytes, {progress.DistinctWords} different words");
                Begin("learning the merges", Read);
            }
            long now = _run.Time.GetTimestamp();
            if (_reported != 0 && _run.Time.GetElapsedTime(_reported, now) < TimeSpan.FromMilliseconds(250)) return;
            _reported = now;
            double seconds = _run.Time.GetElapsedTime(_start, now).TotalSeconds;
            double part = _learning ? (double)(progress.Tokens - _first) / Math.Max(1, _run.Config.Tokenizer.VocabularySize - _first) : _text.Fraction;
            double? left = part > 0 ? seconds * (1 - part) / part : null;
            _run.Events.Write(_learning
                ? new ProgressEvent("learning the merges", Read + ((Learned - Read) * part), null, left)
                : new ProgressEvent("reading the text", Read * part, seconds > 0 ? progress.Bytes / seconds : null, left));
        }

        private void Begin(string stage, double from)
        {
            _start = _run.Time.GetTimestamp();
            _run.Events.Write(new ProgressEvent(stage, from));
            _run.Log(stage);
        }
    }
}
