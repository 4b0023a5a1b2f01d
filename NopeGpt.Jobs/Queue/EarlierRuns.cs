using NopeGpt.Data.Documents;
using NopeGpt.Jobs.Datasets;
using NopeGpt.Jobs.Tokenizers;
using NopeGpt.Model;

namespace NopeGpt.Jobs.Queue;

/// <summary>The runs that a run waits for, in the order in which they work, and what they make: it fills what the run leaves open, and what the run names may be theirs though it
/// is not there yet.</summary>
internal sealed class EarlierRuns(Store store)
{
    private readonly List<EarlierRun> _runs = [];

    /// <param name="title">For problems: step 2 (pretrain).</param>
    public void Add(string id, RunConfig config, string title) => _runs.Add(new(id, config, title));

    /// <summary>The config with what it leaves open taken from the nearest run that makes it: a tokenizer to prepare with, text to train a tokenizer on, a data set to train on, a
    /// model to train further, to measure or to export.</summary>
    public RunConfig Complete(RunConfig config) => config.Kind switch
    {
        RunKind.Prepare when config.Prepare.Tokenizer.Length == 0 => config with { Prepare = config.Prepare with { Tokenizer = TokenizerFor(config.Prepare) } },
        RunKind.Tokenizer when config.Tokenizer.Source.Length == 0 && Last(RunKind.Prepare)?.Config.Prepare is { } text =>
            config with { Tokenizer = config.Tokenizer with { Source = text.Source, TextColumn = config.Tokenizer.TextColumn.Length > 0 ? config.Tokenizer.TextColumn : text.TextColumn } },
        RunKind.Pretrain when config.Data.Dataset.Length == 0 => config with { Data = config.Data with { Dataset = Dataset(PrepareKind.Text) } },
        RunKind.Finetune => config with
        {
            Finetune = config.Finetune with
            {
                BaseCheckpointPath = Or(config.Finetune.BaseCheckpointPath, Model?.Id),
                DatasetSubsets = config.Finetune.DatasetSubsets.Count == 0 && Dataset(PrepareKind.Chat) is { Length: > 0 } talks ? [talks] : config.Finetune.DatasetSubsets,
            },
        },
        RunKind.Evaluate => config with { Evaluate = config.Evaluate with { Checkpoint = Or(config.Evaluate.Checkpoint, Model?.Id) } },
        RunKind.Export => config with { Export = config.Export with { Checkpoint = Or(config.Export.Checkpoint, Model?.Id) } },
        _ => config,
    };

    /// <summary>Everything that is wrong with a config whose run waits for these, but for what only they can show.</summary>
    public IReadOnlyList<Problem> Problems(RunConfig config)
    {
        List<Problem> problems = [.. RunConfigChecks.Alone(config, store).Where(p => !IsPending(p, config))];
        switch (config.Kind)
        {
            case RunKind.Prepare: Prepared(config, problems); break;
            case RunKind.Tokenizer: Named("tokenizer.name", config.Tokenizer.Name, Tokenizers.FirstOrDefault(t => t.Name == config.Tokenizer.Name && !Same(t.Run.Config.Tokenizer, config.Tokenizer, t.Run.Config.Kind)).Run, problems); break;
            case RunKind.Finetune: FineTuned(config, problems); break;
            case RunKind.Evaluate: RunConfigChecks.MeasuredWillFit(config, config.Evaluate.Checkpoint.Length > 0 && Trains(config.Evaluate.Checkpoint) is not null, Makes(config.Data.Dataset), store, problems); break;
            case RunKind.Export: Exported(config, problems); break;
        }
        return problems;
    }

    private EarlierRun? Model => _runs.LastOrDefault(r => r.Config.Kind.Trains());

    private IEnumerable<(string Name, EarlierRun Run)> Tokenizers => _runs.Where(r => r.Config.Kind is RunKind.Tokenizer or RunKind.Prepare)
        .Select(r => (r.Config.Kind == RunKind.Tokenizer ? r.Config.Tokenizer.Name : r.Config.Prepare.Dataset, r));

    private EarlierRun? Last(RunKind kind) => _runs.LastOrDefault(r => r.Config.Kind == kind);

    private static string Or(string given, string? found) => given.Length > 0 ? given : found ?? "";

    /// <summary>The tokenizer that a run before trains. Conversations are made for a model of the runs before, so they take that of its text as well.</summary>
    private string TokenizerFor(PrepareConfig prepare)
    {
        if (Last(RunKind.Tokenizer) is { } trained) return trained.Config.Tokenizer.Name;
        if (Holds(prepare) != PrepareKind.Chat || Last(RunKind.Prepare)?.Config.Prepare is not { } text) return "";
        if (text.Tokenizer.Length > 0) return text.Tokenizer;
        // A tokenizer that was trained by itself keeps its name: the data set has its own beside it.
        return new TokenizerLibrary(store).HasOrigin(text.Dataset) ? Path.Combine(store.DatasetFolder(text.Dataset), "tokenizer.json") : text.Dataset;
    }

    /// <summary>The nearest data set that holds what is wanted, or else one whose columns will tell what it holds; empty for none.</summary>
    private string Dataset(PrepareKind wanted)
    {
        EarlierRun[] made = [.. _runs.Where(r => r.Config.Kind == RunKind.Prepare)];
        return (made.LastOrDefault(r => Holds(r.Config.Prepare) == wanted) ?? made.LastOrDefault(r => Holds(r.Config.Prepare) == PrepareKind.Auto))?.Config.Prepare.Dataset ?? "";
    }

    /// <summary>Text, chat, or auto where that is not known before its source is read.</summary>
    private static PrepareKind Holds(PrepareConfig prepare)
    {
        if (prepare.Kind is PrepareKind.Chat or PrepareKind.Preference) return PrepareKind.Chat;
        if (prepare.Kind == PrepareKind.Text || prepare.Source == PrepareConfig.Stories) return PrepareKind.Text;
        try { return OpenedSource.Known(prepare.Source) is { } known ? known.Kind == DatasetKind.Text ? PrepareKind.Text : PrepareKind.Chat : PrepareKind.Auto; }
        catch (FormatException) { return PrepareKind.Auto; }
    }

    /// <summary>True for a problem of something that a run before is yet to make.</summary>
    private bool IsPending(Problem problem, RunConfig config) => problem.Field switch
    {
        "prepare.tokenizer" => Tokenizers.Any(t => t.Name == config.Prepare.Tokenizer || config.Prepare.Tokenizer == Path.Combine(store.DatasetsFolder, t.Name, "tokenizer.json")),
        "data.dataset" => Makes(config.Data.Dataset),
        "data.mixture" => config.Data.Mixture.Any(entry => entry.LastIndexOf('=') is var equals and > 0 && Makes(entry[..equals])),
        "finetune.dataset_subsets" => Makes(problem.Value),
        "finetune.base_checkpoint_path" => Trains(config.Finetune.BaseCheckpointPath) is not null,
        "evaluate.checkpoint" => Trains(config.Evaluate.Checkpoint) is not null,
        "export.checkpoint" => Trains(config.Export.Checkpoint) is not null,
        "export.adapter" => Trains(config.Export.Adapter) is not null,
        _ => false,
    };

    private bool Makes(string dataset) => dataset.Length > 0 && _runs.Any(r => r.Config.Kind == RunKind.Prepare && r.Config.Prepare.Dataset == dataset);

    /// <summary>The run before that trains what the words name: its id, or ID/STEP.</summary>
    private EarlierRun? Trains(string words) => _runs.FirstOrDefault(r => r.Config.Kind.Trains() && words.Split('/')[0] == r.Id);

    private void Prepared(RunConfig config, List<Problem> problems) =>
        Named("prepare.dataset", config.Prepare.Dataset,
            _runs.FirstOrDefault(r => r.Config.Kind == RunKind.Prepare && r.Config.Prepare.Dataset == config.Prepare.Dataset && (MakerState.Normal(r.Config.Prepare) != MakerState.Normal(config.Prepare) || r.Config.Seed != config.Seed)), problems);

    private static bool Same(TokenizerConfig one, TokenizerConfig other, RunKind kind) =>
        kind == RunKind.Tokenizer && one with { SpecialTokens = [] } == other with { SpecialTokens = [] } && one.SpecialTokens.SequenceEqual(other.SpecialTokens);

    /// <summary>What a run before makes under the same name in another way leaves no place for it.</summary>
    private static void Named(string field, string name, EarlierRun? other, List<Problem> problems)
    {
        if (other is not null) problems.Add(new Problem(field, name, $"is made by {other.Title} in another way: choose another name"));
    }

    private void FineTuned(RunConfig config, List<Problem> problems)
    {
        foreach (EarlierRun text in config.Finetune.Datasets.Select(d => _runs.LastOrDefault(r => r.Config.Kind == RunKind.Prepare && r.Config.Prepare.Dataset == d)).OfType<EarlierRun>().Where(r => Holds(r.Config.Prepare) == PrepareKind.Text))
            problems.Add(new Problem("finetune.dataset_subsets", text.Config.Prepare.Dataset, $"will hold documents of {text.Title}, not conversations: prepare some with prepare.kind chat, or pretrain on it"));
        if (Trains(config.Finetune.BaseCheckpointPath) is not { } before) return;
        if (before.MakesAdapter)
            problems.Add(new Problem("finetune.base_checkpoint_path", before.Id, $"will be an adapter of {before.Title}, and not a whole model: use finetune.method full there, or name the folder of an export of it"));
        else if (ModelOf(before) is { } model) RunConfigChecks.BaseWillFit(config, model, problems);
    }

    private void Exported(RunConfig config, List<Problem> problems)
    {
        if (_runs.FirstOrDefault(r => r.Config.Kind == RunKind.Export && store.ExportFolder(r.Config, r.Id) is { } target && target == store.ExportFolder(config, null)) is { } other)
            problems.Add(new Problem("export.out", config.Export.Out, $"is written by {other.Title} already: give this run another folder, or another name"));
        if (Trains(config.Export.Adapter) is { MakesAdapter: false } whole)
            problems.Add(new Problem("export.adapter", whole.Id, $"{whole.Title} trains a whole model: name it as export.checkpoint"));
        if (Trains(config.Export.Checkpoint) is { } before) RunConfigChecks.ExportWillFit(config.Export, ModelOf(before), before.MakesAdapter, problems);
    }

    /// <summary>The network that a run trains; null where it is not known.</summary>
    private ModelConfig? ModelOf(EarlierRun run) =>
        run.Config.Kind == RunKind.Pretrain ? run.Config.Model
        : Trains(run.Config.Finetune.BaseCheckpointPath) is { } before && before != run ? ModelOf(before)
        : RunConfigChecks.ModelAt(run.Config.Finetune.BaseCheckpointPath, store);

    private sealed record EarlierRun(string Id, RunConfig Config, string Title)
    {
        public bool MakesAdapter => Config is { Kind: RunKind.Finetune, Finetune.Method: FinetuneMethod.Lora };
    }
}
