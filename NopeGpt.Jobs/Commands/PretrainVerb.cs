using System.CommandLine;
using System.Text.Json;
using System.Text.Json.Nodes;
using NopeGpt.Jobs.Configuration;
using NopeGpt.Jobs.Queue;
using NopeGpt.Jobs.Training;
using NopeGpt.Model;
using NopeGpt.Model.Native;

namespace NopeGpt.Jobs.Commands;

/// <summary>`nopegpt pretrain`: a pretraining run in this process, or in the queue of the store.</summary>
internal sealed class PretrainVerb : Verb
{
    private const string Summary = "Train a model from its initialisation. Ctrl+C saves and ends with exit code 3; --resume goes on bit for bit.";

    /// <summary>What most runs set, in the order of the help.</summary>
    private static readonly string[] Usual =
    [
        "data.dataset", "data.tokens_per_sample", "data.num_eval_samples",
        "training.batch_size", "training.gradient_accumulation_steps", "training.max_steps", "training.eval_interval", "training.checkpoint_interval",
        "optimizer.optimizer", "optimizer.learning_rate", "optimizer.schedule", "optimizer.warmup_steps", "optimizer.max_gradient_norm",
        "model.embedding_dimensions", "model.num_q_heads", "model.num_kv_heads", "model.num_decoder_layers", "model.hidden_ratio", "model.dropout",
        "name", "device", "threads", "seed",
    ];

    private readonly Option<string?> _preset = CommonOptions.Text("--preset", "NAME", $"Recipe to start from ({string.Join(", ", Presets.All.Select(p => p.Name))}); what else is given changes it.");
    private readonly Option<string?> _model = CommonOptions.Text("--model_preset", "NAME", $"Architecture and sizes to start from ({string.Join(", ", ModelPresets.All.Select(p => p.Name))}). The vocabulary is the data set's.");
    private readonly Option<string?> _config = CommonOptions.Text("--config", "FILE", "JSON with settings of a run, or a run.json; --preset comes before it and options after it.");
    private readonly Option<string?> _resume = CommonOptions.Text("--resume", "ID", "Go on with this run (its id, or its folder) from its newest checkpoint, with its own settings.");
    private readonly Option<bool> _queue = CommonOptions.Flag("--queue", "Put the run into the store's queue, for the dashboard to run, instead of running it here.");
    private readonly Option<string?> _root = CommonOptions.Root();
    private readonly Option<bool> _json = CommonOptions.Flag("--json", "Print {id, folder, state, metrics, ...} as JSON on stdout when done; progress goes to stderr.");
    private readonly ReferencePretraining _reference = new();
    private readonly RunOptions _settings;

    public PretrainVerb() : base("pretrain", Summary) => _settings = new(RunKind.Pretrain, [.. Own.Select(o => o.Name[2..])], ReferencePretraining.Aliases);

    public override IReadOnlyList<Option> Options => [.. Own, .. _settings.Options, .. _reference.Options];

    private Option[] Own => [_preset, _model, _config, _resume, _queue, _root, _json];

    public override bool WriteHelp(TextWriter output)
    {
        RunHelp help = new(output);
        help.Usage(Summary, "nopegpt pretrain --dataset NAME_OR_TOKEN_FILE [options]        words of an option may be joined by - or _");
        ILookup<string, (Setting Setting, Option Option)> byPath = _settings.All.ToLookup(o => o.Setting.Path);
        foreach ((string title, string section) in new[] { ("Data", "data"), ("Training", "training"), ("Optimizer", "optimizer"), ("Model", "model"), ("Run", "") })
            help.Group(title, Usual.SelectMany(path => byPath[path]).Where(o => o.Setting.Section == section));
        help.Group("Start and result", Own);
        foreach (IGrouping<string, (Setting Setting, Option Option)> section in _settings.All.Where(o => !Usual.Contains(o.Setting.Path)).GroupBy(o => o.Setting.Section))
            help.Group($"Advanced: {(section.Key.Length == 0 ? "run" : section.Key)}", section);
        help.Group("Names of NoPE GPT's script that are called otherwise here", _reference.Options);
        return true;
    }

    public override Func<CancellationToken, Task<int>> Read(Arguments arguments)
    {
        bool queue = arguments.Flag(_queue), json = arguments.Flag(_json);
        bool resumes = arguments.Text(_resume) is not null;
        RunConfig config = resumes ? new RunConfig() : Config(arguments, Start(arguments));
        // Everything else that is wrong is told at once with what is wrong with the store, and without making one.
        Store? store = Store(arguments);
        if (store is null) return _ => Task.FromResult(ExitCode.DiskFull);
        RunFolder? run = resumes ? Resumed(arguments, store) : null;
        if (!resumes)
        {
            config = RunQueue.WithFullPaths(config, store, waits: false);
            foreach (Problem problem in RunConfigChecks.All(config, store)) arguments.Add(_settings.Named(problem));
            _reference.CheckEncoding(arguments, config.Data, store);
            CheckDevice(arguments, config);
        }
        return async cancel =>
        {
            run ??= NewRun(store, config, queue);
            return queue ? Queue(run, json, isNew: !resumes) : await RunAsync(run, store, arguments.TorchLibrary, json, cancel);
        };
    }

    private Store? Store(Arguments arguments)
    {
        try { return arguments.Store(_root); }
        catch (UserException e) when (arguments.Problems.Count > 0)
        {
            arguments.Problems.Add(e.Message);
            return null;
        }
    }

    /// <summary>The recipe and the file that the options change.</summary>
    private RunConfig Start(Arguments arguments)
    {
        RunConfig start = new();
        try
        {
            if (arguments.Text(_preset) is { } name) start = Presets.Find(name).Config;
        }
        catch (UserException e) { arguments.Add(_preset.Name, arguments.Text(_preset)!, e.Message); }
        if (arguments.Text(_config) is { } file && ReadJson(arguments, file) is { } json)
        {
            List<Problem> wrong = [];
            using JsonDocument document = JsonDocument.Parse(json.ToJsonString());
            start = arguments.Has(_preset) ? Settings.Bind(start, document.RootElement, wrong) : Settings.Bind(document.RootElement, wrong);
            foreach (Problem problem in wrong) arguments.Add(problem with { Field = $"{file}: {problem.Field}" });
            if (start.Kind != RunKind.Pretrain) arguments.Add($"{file}: kind", RunOptions.Words(start.Kind), "this command trains a model from its initialisation: use a configuration of the kind pretrain");
        }
        try
        {
            if (arguments.Text(_model) is { } architecture) start = start with { Model = ModelPresets.Find(architecture).Config with { VocabularySize = 0 } };
        }
        catch (ArgumentException e) { arguments.Add(_model.Name, arguments.Text(_model)!, e.Message.Split(" (Parameter")[0]); }
        return start with { Kind = RunKind.Pretrain };
    }

    /// <summary>The settings in a file: its object, or the config of a run.json.</summary>
    private JsonNode? ReadJson(Arguments arguments, string file)
    {
        try
        {
            JsonNode? json = JsonNode.Parse(File.ReadAllText(file));
            if (json is JsonObject record && record.ContainsKey("format_version") && record["config"] is JsonObject config) return config;
            if (json is JsonObject) return json;
            arguments.Add(_config.Name, file, "must hold a JSON object with settings: {\"training\": {\"max_steps\": 1000}, ...}");
        }
        catch (JsonException e) { arguments.Add(_config.Name, file, $"is not JSON ({e.Message.TrimEnd('.')}): mend it"); }
        catch (Exception e) when (e is IOException or UnauthorizedAccessException or ArgumentException or NotSupportedException) { arguments.Add(_config.Name, file, $"cannot be read ({e.Message.TrimEnd('.')})"); }
        return null;
    }

    private RunConfig Config(Arguments arguments, RunConfig start)
    {
        RunConfig config = _settings.Read(arguments, start);
        config = _reference.Read(arguments, config, _settings.Given(arguments).Select(o => o.Setting.Path).ToHashSet());
        if (config.Optimizer is { LowMemoryOptimizer: true, Optimizer: OptimizerKind.Adamw })
            Console.Error.WriteLine("note: --low_memory_optimizer is for --optimizer adafactor; AdamW has no such form");
        return config;
    }

    /// <summary>The run to go on with; null where there is none, or the options ask for something else than it is.</summary>
    private RunFolder? Resumed(Arguments arguments, Store store)
    {
        string named = arguments.Text(_resume)!;
        foreach (Option other in new Option[] { _preset, _model, _config }.Where(arguments.Has)) arguments.Problems.Add($"{other.Name}: a run that goes on has its own settings: leave this out, or leave --resume out for a new run");
        if (!RunFolder.TryOpen(store, named, out RunFolder? run))
        {
            string? inStore = Path.GetDirectoryName(Path.TrimEndingDirectorySeparator(Path.GetFullPath(named))) == store.RunsFolder ? Path.GetFileName(Path.TrimEndingDirectorySeparator(named)) : null;
            if (inStore is null || !RunFolder.TryOpen(store, inStore, out run))
            {
                arguments.Add(_resume.Name, named, $"there is no such run in {store.RunsFolder}: name one by its id, and its store with --root");
                return null;
            }
        }
        RunConfig own = run.Read().Config;
        if (own.Kind != RunKind.Pretrain)
        {
            arguments.Add(_resume.Name, named, $"is a run of the kind {RunOptions.Words(own.Kind)}: `nopegpt train {named}` goes on with it");
            return null;
        }
        RunConfig wanted = Config(arguments, own);
        wanted = RunQueue.WithFullPaths(wanted, store, waits: false);
        foreach ((Setting setting, Option option) in _settings.Given(arguments))
        {
            (string has, string asks) = (RunOptions.Words(Settings.Get(own, setting)), RunOptions.Words(Settings.Get(wanted, setting)));
            if (has != asks) arguments.Add(option.Name, asks, $"run {run.Id} has {(has.Length == 0 ? "none" : has)}, and a run goes on with its own settings: leave this out, or leave --resume out for a new run");
        }
        return run;
    }

    /// <summary>A device that is not there is told before the run is made.</summary>
    private static void CheckDevice(Arguments arguments, RunConfig config)
    {
        if (!config.Device.StartsWith("cuda", StringComparison.Ordinal) || config.Problems().Any(p => p.Field == "device")) return;
        try { _ = ComputeDevice.Start(arguments.TorchLibrary, config.Device, config.Threads); }
        catch (Exception e) when (e is UserException or TorchUnavailableException) { arguments.Add("--device", config.Device, e.Message); }
    }

    private static RunFolder NewRun(Store store, RunConfig config, bool queued)
    {
        DateTimeOffset now = TimeProvider.System.GetUtcNow();
        string id;
        do id = RunFolder.NewId(now);
        while (Directory.Exists(store.RunFolder(id)));
        return RunFolder.Create(store, new RunRecord(RunRecord.CurrentFormat, id, now, [], config), queued);
    }

    private static int Queue(RunFolder run, bool json, bool isNew)
    {
        if (!isNew) run.RequestQueue();
        Console.Error.WriteLine($"run {run.Id} is in the queue: a dashboard of this store runs it, now or when one is started");
        if (json) Print(run, RunState.Queued, null);
        return ExitCode.Done;
    }

    private static async Task<int> RunAsync(RunFolder run, Store store, string? torchLibrary, bool json, CancellationToken cancel)
    {
        if (run.Events().OfType<EndedEvent>().LastOrDefault() is { State: RunState.Completed })
        {
            await Console.Error.WriteLineAsync($"run {run.Id} is completed: there is nothing left to do");
            if (json) Print(run, RunState.Completed, ExitCode.Done);
            return ExitCode.Done;
        }
        await Console.Error.WriteLineAsync($"run {run.Id} ({run.Path})");
        TerminalProgress terminal = new(Console.Error);
        int code = await TrainerProcessMain.RunAsync(run.Path, store, detached: false, torchLibrary, cancel, terminal.Show, terminal.Log);
        if (json) Print(run, RunState.Interrupted, code);
        else if (code == ExitCode.StoppedAndSaved) await Console.Error.WriteLineAsync($"go on with: nopegpt pretrain --root {store.Root} --resume {run.Id}");
        else if (code == ExitCode.Done) await Console.Error.WriteLineAsync($"let it write: nopegpt generate --root {store.Root} --checkpoint {run.Id} --prompt \"Once upon a time\"");
        return code;
    }

    private static void Print(RunFolder run, RunState otherwise, int? code) => Console.WriteLine(JsonSerializer.Serialize(RunDocument.Of(run, otherwise, code), Settings.Json));
}
