using System.CommandLine;
using System.Text.Json;
using NopeGpt.Jobs.Configuration;
using NopeGpt.Jobs.Queue;
using NopeGpt.Jobs.Training;
using NopeGpt.Model;
using NopeGpt.Model.Native;

namespace NopeGpt.Jobs.Commands;

/// <summary>A verb that makes a run of the training loop, in this process or in the queue of the store.</summary>
internal abstract class TrainingVerb : Verb
{
    private readonly RunKind _kind;
    private readonly string _usage;

    private readonly Option<string?> _resume = CommonOptions.Text("--resume", "ID", "Go on with this run (its id, or its folder) from its newest checkpoint, with its own settings.");
    private readonly QueueingOptions _queueing = new();
    private readonly Option<string?> _root = CommonOptions.Root();
    private readonly Option<bool> _json = CommonOptions.Flag("--json", "Print {id, folder, state, metrics, ...} as JSON on stdout when done; progress goes to stderr. Of a sweep {group, runs}.");
    private readonly TrainingRecipe _recipe;

    /// <param name="usage">What it must be given.</param>
    protected TrainingVerb(string name, RunKind kind, string summary, string usage) : base(name, summary) => (_kind, _usage, _recipe) = (kind, usage, new(kind, Own));

    public override IReadOnlyList<Option> Options => [.. Own, .. _recipe.Options];

    private Option[] Own => [_resume, .. _queueing.All, _root, _json];

    public override bool WriteHelp(TextWriter output)
    {
        RunHelp help = new(output);
        help.Usage(Description, $"nopegpt {Name} {_usage} [options]    (words are joined by - or _)");
        _recipe.WriteHelp(help, Own);
        return true;
    }

    public override Func<CancellationToken, Task<int>> Read(Arguments arguments)
    {
        bool queue = _queueing.IsGiven(arguments), json = arguments.Flag(_json);
        bool resumes = arguments.Text(_resume) is not null;
        RunConfig config = resumes ? new RunConfig() : _recipe.Read(arguments);
        // Everything else that is wrong is told at once with what is wrong with the store, and without making one.
        Store? store = Store(arguments);
        if (store is null) return _ => Task.FromResult(ExitCode.DiskFull);
        RunFolder? run = resumes ? Resumed(arguments, store) : null;
        _queueing.Check(arguments, resumes);
        IReadOnlyList<string> after = resumes ? [] : _queueing.After(arguments, store);
        if (!resumes && _queueing.Sweeps(arguments)) return Sweep(arguments, config, after, store, json);
        if (!resumes)
        {
            EarlierRuns earlier = RunQueue.Earlier(after, store);
            config = RunQueue.WithFullPaths(earlier.Complete(config), store, waits: after.Count > 0);
            foreach (Problem problem in earlier.Problems(config)) arguments.Add(_recipe.Named(problem));
            if (_kind == RunKind.Pretrain) _recipe.Reference.CheckEncoding(arguments, config.Data, store);
            if (!queue) CheckDevice(arguments, config);
        }
        return async cancel =>
        {
            run ??= NewRun(store, config, after, queue);
            return queue ? Queue(run, json, isNew: !resumes) : await RunAsync(run, store, arguments.TorchLibrary, json, cancel);
        };
    }

    private Func<CancellationToken, Task<int>> Sweep(Arguments arguments, RunConfig config, IReadOnlyList<string> after, Store store, bool json)
    {
        if (_kind == RunKind.Pretrain) _recipe.Reference.CheckEncoding(arguments, config.Data, store);
        SweepPlan? plan = _queueing.Plan(arguments, config, after, store);
        return _ => Task.FromResult(QueueingOptions.Queue(plan!, after, store, json));
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

    /// <summary>The run to go on with; null where there is none, or the options ask for something else than it is.</summary>
    private RunFolder? Resumed(Arguments arguments, Store store)
    {
        string named = arguments.Text(_resume)!;
        foreach (Option other in _recipe.Starts.Where(arguments.Has)) arguments.Problems.Add($"{other.Name}: a run that goes on has its own settings: leave this out, or leave --resume out for a new run");
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
        if (own.Kind != _kind)
        {
            arguments.Add(_resume.Name, named, $"is a run of the kind {RunOptions.Words(own.Kind)}: `nopegpt train {named}` goes on with it");
            return null;
        }
        RunConfig wanted = _recipe.Change(arguments, own);
        wanted = RunQueue.WithFullPaths(wanted, store, waits: false);
        foreach ((Setting setting, Option option) in _recipe.Given(arguments))
        {
            (string has, string asks) = (RunOptions.Words(Settings.Get(own, setting)), RunOptions.Words(Settings.Get(wanted, setting)));
            if (has != asks) arguments.Add(option.Name, asks, $"run {run.Id} has {(has.Length == 0 ? "none" : has)}, and a run goes on with its own settings: leave this out, or leave --resume out for a new run");
        }
        return run;
    }

    /// <summary>A device that is not there is told before the run is made; in the queue the run waits for one.</summary>
    private static void CheckDevice(Arguments arguments, RunConfig config)
    {
        if (!config.Device.StartsWith("cuda", StringComparison.Ordinal) || config.Problems().Any(p => p.Field == "device")) return;
        try { _ = ComputeDevice.StartAll(arguments.TorchLibrary, config.Device); }
        catch (Exception e) when (e is UserException or TorchUnavailableException) { arguments.Add("--device", config.Device, e.Message); }
    }

    private static RunFolder NewRun(Store store, RunConfig config, IReadOnlyList<string> after, bool queued)
    {
        DateTimeOffset now = TimeProvider.System.GetUtcNow();
        return RunFolder.Create(store, new RunRecord(RunRecord.CurrentFormat, RunFolder.NewIds(store, now, 1)[0], now, after, config), queued);
    }

    private static int Queue(RunFolder run, bool json, bool isNew)
    {
        if (!isNew) run.RequestQueue();
        Console.Error.WriteLine($"run {run.Id} is in the queue: a dashboard of this store runs it, now or when one is started");
        if (json) Print(run, RunState.Queued, null);
        return ExitCode.Done;
    }

    private async Task<int> RunAsync(RunFolder run, Store store, string? torchLibrary, bool json, CancellationToken cancel)
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
        else if (code == ExitCode.StoppedAndSaved) await Console.Error.WriteLineAsync($"go on with: nopegpt {Name} --root {store.Root} --resume {run.Id}");
        else if (code == ExitCode.Done) await Console.Error.WriteLineAsync($"let it write: nopegpt generate --root {store.Root} --checkpoint {run.Id} --prompt \"Once upon a time\"");
        return code;
    }

    private static void Print(RunFolder run, RunState otherwise, int? code) => Console.WriteLine(JsonSerializer.Serialize(RunDocument.Of(run, otherwise, code), Settings.Json));
}
