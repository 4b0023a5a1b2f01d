using NopeGpt.Jobs.Datasets;
using NopeGpt.Model;

namespace NopeGpt.Jobs.Queue;

/// <summary>What people and pages do with runs: add, list, stop, resume.</summary>
public sealed partial class RunQueue
{
    private readonly RunLedger ledger;
    private readonly Store store;
    private readonly QueueSwitch settings;
    private readonly RunTrash trash;
    private readonly TimeProvider time;

    internal RunQueue(RunLedger ledger, Store store, QueueSwitch settings, RunTrash trash, TimeProvider time)
    {
        (this.ledger, this.store, this.settings, this.trash, this.time) = (ledger, store, settings, trash, time);
        ledger.Changed += id => Changed?.Invoke(id);
        ledger.Noticed += id => Changed?.Invoke(id);
    }

    /// <summary>A run's row changed (its id). Raised on any thread, after the change is on disk.</summary>
    public event Action<string>? Changed;

    /// <summary>Checks the config, makes the run's folder and puts the run at the end of the queue.</summary>
    /// <param name="after">Runs that must have completed first. They, and those that they wait for, fill what the config leaves open (see <see cref="EarlierRuns"/>). What they have yet
    /// to make (a data set, a checkpoint) is checked by the trainer when it starts.</param>
    /// <exception cref="ProblemsException">Everything that is wrong with the config, and runs to wait for that do not exist.</exception>
    /// <exception cref="UserException">The store cannot be written.</exception>
    public Task<RunRow> AddAsync(RunConfig config, IReadOnlyList<string>? after = null, CancellationToken cancel = default) => AddAsync(config, after ?? [], new RunCard(), null, cancel);

    /// <param name="card">What people say of it.</param>
    /// <param name="checkpoint">See <see cref="RunFolder.Create"/>.</param>
    private async Task<RunRow> AddAsync(RunConfig config, IReadOnlyList<string> after, RunCard card, string? checkpoint, CancellationToken cancel)
    {
        ArgumentNullException.ThrowIfNull(config);
        List<Problem> problems = [];
        EarlierRuns earlier = await EarlierAsync(after, problems, cancel).ConfigureAwait(false);
        RunConfig whole = earlier.Complete(config);
        problems.AddRange(earlier.Problems(whole));
        if (problems.Count > 0) throw new ProblemsException(problems);
        return (await AddAllAsync([Record(NewIds(1)[0], whole, [.. after.Distinct()])], card, checkpoint, cancel).ConfigureAwait(false))[0];
    }

    /// <summary>Queues the runs that lead from nothing to a model that one can talk to (see <see cref="Quickstart"/>).</summary>
    /// <param name="size">tiny or default.</param>
    /// <returns>Their ids: prepare, pretrain, evaluate.</returns>
    /// <exception cref="UserException">An unknown size.</exception>
    public Task<IReadOnlyList<string>> AddQuickstartAsync(string size, CancellationToken cancel = default) => AddChainAsync(Quickstart.Runs(size), cancel: cancel);

    /// <summary>Runs in the queue's order.</summary>
    public Task<IReadOnlyList<RunRow>> ListAsync(RunState? state = null, RunKind? kind = null, CancellationToken cancel = default) =>
        ledger.ListAsync(rows => rows.Where(r => (state == null || r.State == state) && (kind == null || r.Kind == kind)), cancel);

    public Task<RunRow?> FindAsync(string id, CancellationToken cancel = default) => ledger.FindAsync(id, cancel);

    /// <summary>Takes a waiting run out of the queue, or asks a working one to end. Asking again for a kill makes a save into a kill.
    /// Nothing happens to a run that has ended.</summary>
    /// <exception cref="UserException">There is no such run.</exception>
    public async Task StopAsync(string id, StopRequest request, CancellationToken cancel = default)
    {
        if (request == StopRequest.None) throw new ArgumentException("a stop is either a save or a kill", nameof(request));
        await FoundAsync(id, cancel).ConfigureAwait(false);
        if (await ledger.CancelAsync(id, "taken out of the queue; resume to put it back", time.GetUtcNow(), cancel).ConfigureAwait(false)) return;
        // The supervisor sees the row and passes the request on to the trainer.
        string reason = request == StopRequest.Kill ? "it is being killed" : "it saves and ends";
        RunState[] from = request == StopRequest.Kill ? RunStates.Working : [RunState.Starting, RunState.Running];
        await ledger.MoveAsync(id, from, row => row
            .SetProperty(r => r.State, RunState.Stopping)
            .SetProperty(r => r.StopRequest, request)
            .SetProperty(r => r.ResumesItself, false)
            .SetProperty(r => r.Reason, reason), cancel).ConfigureAwait(false);
    }

    /// <summary>Puts a run that is not finished back at the end of the queue. It goes on from its newest checkpoint, or begins anew without one.</summary>
    /// <exception cref="UserException">It cannot go on; the message says why.</exception>
    public async Task ResumeAsync(string id, CancellationToken cancel = default)
    {
        RunRow row = await FoundAsync(id, cancel).ConfigureAwait(false);
        if (!RunFolder.TryOpen(store, id, out _)) throw new UserException($"run {row.Title} cannot go on: its folder is gone");
        foreach (string before in row.Predecessors)
        {
            RunRow? other = await FindAsync(before, cancel).ConfigureAwait(false);
            if (other is null) throw new UserException($"run {row.Title} cannot go on: run {before}, which it waits for, is gone");
            if (other.State is RunState.Failed or RunState.Cancelled)
                throw new UserException($"run {row.Title} cannot go on: run {other.Title}, which it waits for, {Words.Of(other.State)}; resume that one first");
        }
        if (await ledger.RequeueAsync(id, RunStates.Resumable, cancel).ConfigureAwait(false)) return;
        RunState state = (await FindAsync(id, cancel).ConfigureAwait(false))?.State ?? throw NoSuchRun(id);
        throw new UserException(state == RunState.Completed
            ? $"run {row.Title} is completed: there is nothing left to do"
            : $"run {row.Title} {Words.Of(state)}: only a run that has ended unfinished can go on");
    }

    // The trainer works in another folder than the one who adds the run. A data set that a run before this one makes is a name, not a file here.
    internal static RunConfig WithFullPaths(RunConfig config, Store store, bool waits)
    {
        (PrepareConfig prepare, DataConfig data, EvaluateConfig evaluate, TokenizerConfig tokenizer) = (config.Prepare, config.Data, config.Evaluate, config.Tokenizer);
        prepare = prepare with { Source = FullSource(prepare.Source) };
        if (Path.Exists(prepare.Tokenizer)) prepare = prepare with { Tokenizer = Full(prepare.Tokenizer) };
        if (data.Dataset.Length > 0 && (!Store.IsName(data.Dataset) || (!waits && File.Exists(data.Dataset)))) data = data with { Dataset = Full(data.Dataset) };
        data = data with { Mixture = [.. data.Mixture.Select(entry => FullEntry(entry, waits))] };
        if (!RunFolder.TryOpen(store, evaluate.Checkpoint, out _) && Directory.Exists(evaluate.Checkpoint)) evaluate = evaluate with { Checkpoint = Full(evaluate.Checkpoint) };
        tokenizer = tokenizer with { Source = FullSource(tokenizer.Source) };
        FinetuneConfig finetune = config.Finetune;
        if (!RunFolder.TryOpen(store, finetune.BaseCheckpointPath, out _) && Path.Exists(finetune.BaseCheckpointPath)) finetune = finetune with { BaseCheckpointPath = Full(finetune.BaseCheckpointPath) };
        if (finetune.DatasetSubsets.Count > 0) finetune = finetune with { DatasetSubsets = [.. finetune.Datasets.Select(d => !Store.IsName(d) || (!waits && File.Exists(d)) ? Full(d) : d)] };
        ExportConfig export = config.Export with { Checkpoint = FullModel(config.Export.Checkpoint, store), Adapter = FullModel(config.Export.Adapter, store) };
        if (export.Out.Length > 0) export = export with { Out = Full(export.Out) };
        return config with { Finetune = finetune, Prepare = prepare, Data = data, Evaluate = evaluate, Tokenizer = tokenizer, Export = export };
    }

    // A run's id, RUN_ID/STEP, or a path.
    private static string FullModel(string words, Store store) => !RunFolder.TryOpen(store, words, out _) && Path.Exists(words) ? Full(words) : words;

    // NAME=WEIGHT or PATH=WEIGHT.
    private static string FullEntry(string entry, bool waits) =>
        entry.LastIndexOf('=') is var equals and > 0 && (!Store.IsName(entry[..equals]) || (!waits && File.Exists(entry[..equals]))) ? Full(entry[..equals]) + entry[equals..] : entry;

    // A data set of the Hub has no path here.
    private static string FullSource(string source)
    {
        if (source is PrepareConfig.Stories or "") return source;
        try { return OpenedSource.NameOf(source) is null ? Full(source) : source; }
        catch (FormatException) { return source; }
    }

    // What is no path at all is left to the checks, which a section that the run does not read has not been through.
    private static string Full(string path) => path.Contains('\0') ? path : Path.GetFullPath(path);

    private async Task<RunRow> FoundAsync(string id, CancellationToken cancel) => await FindAsync(id, cancel).ConfigureAwait(false) ?? throw NoSuchRun(id);

    private static UserException NoSuchRun(string id) => new($"there is no run {id}: name one of the list");
}
