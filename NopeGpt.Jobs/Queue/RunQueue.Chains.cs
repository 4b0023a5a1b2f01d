using NopeGpt.Model;

namespace NopeGpt.Jobs.Queue;

// Runs that wait for others.
public sealed partial class RunQueue
{
    private const int LongestChain = 100;

    /// <summary>Queues runs of which each waits for the one before. What a step leaves open is filled from the steps before it: see <see cref="EarlierRuns"/>.</summary>
    /// <param name="tags">Of every step.</param>
    /// <returns>Their ids, in the order of the steps.</returns>
    /// <exception cref="ProblemsException">Everything that is wrong with any step; nothing is queued then.</exception>
    /// <exception cref="UserException">The store cannot be written; nothing is queued then.</exception>
    public async Task<IReadOnlyList<string>> AddChainAsync(IReadOnlyList<RunConfig> configs, int priority = 0, IReadOnlyList<string>? tags = null, CancellationToken cancel = default)
    {
        ArgumentNullException.ThrowIfNull(configs);
        tags = Distinct(tags ?? []);
        List<Problem> problems = [];
        List<RunRecord> records = Chain(configs, priority, tags, problems);
        if (problems.Count > 0) throw new ProblemsException(problems);
        await AddAllAsync(records, new RunCard { Priority = priority, Tags = tags }, null, cancel).ConfigureAwait(false);
        return [.. records.Select(r => r.Id)];
    }

    /// <summary>Everything that is wrong with a chain, each with its step; empty where it can be queued.</summary>
    public IReadOnlyList<Problem> ChainProblems(IReadOnlyList<RunConfig> configs, int priority = 0, IReadOnlyList<string>? tags = null)
    {
        ArgumentNullException.ThrowIfNull(configs);
        List<Problem> problems = [];
        Chain(configs, priority, Distinct(tags ?? []), problems);
        return problems;
    }

    /// <summary>What a step is called in problems: step 2 (pretrain).</summary>
    /// <param name="step">From 0.</param>
    public static string StepTitle(int step, RunKind kind) => $"step {step + 1} ({Words.Of(kind)})";

    /// <summary>Everything that is wrong with a config whose run is to wait for others; empty where it can be queued.</summary>
    public async Task<IReadOnlyList<Problem>> ProblemsAsync(RunConfig config, IReadOnlyList<string> after, CancellationToken cancel = default)
    {
        ArgumentNullException.ThrowIfNull(config);
        ArgumentNullException.ThrowIfNull(after);
        List<Problem> problems = [];
        EarlierRuns earlier = await EarlierAsync(after, problems, cancel).ConfigureAwait(false);
        return [.. problems, .. earlier.Problems(earlier.Complete(config))];
    }

    private List<RunRecord> Chain(IReadOnlyList<RunConfig> configs, int priority, IReadOnlyList<string> tags, List<Problem> problems)
    {
        problems.AddRange(Problems(new RunChange(priority), tags));
        if (configs.Count is 0 or > LongestChain) problems.Add(new Problem("runs", $"{configs.Count} runs", $"a chain has from 1 to {LongestChain} runs"));
        IReadOnlyList<string> ids = NewIds(Math.Min(configs.Count, LongestChain));
        EarlierRuns earlier = new(store);
        List<RunRecord> records = [];
        for (int step = 0; step < ids.Count; step++)
        {
            string title = StepTitle(step, configs[step].Kind);
            RunConfig whole = WithFullPaths(earlier.Complete(configs[step]), store, step > 0);
            problems.AddRange(earlier.Problems(whole).Select(p => p with { Field = $"{title}: {p.Field}" }));
            earlier.Add(ids[step], whole, title);
            records.Add(Record(ids[step], whole, step == 0 ? [] : [ids[step - 1]]));
        }
        return records;
    }

    /// <summary>The runs and all that they wait for, first the first. One that does not exist is added to the problems.</summary>
    private async Task<EarlierRuns> EarlierAsync(IReadOnlyList<string> after, List<Problem> problems, CancellationToken cancel)
    {
        foreach (string id in after.Distinct())
        {
            if (!Store.IsName(id) || await ledger.FindAsync(id, cancel).ConfigureAwait(false) is null) problems.Add(new Problem("after", Shown(id), "there is no such run: name one of the list"));
        }
        return Earlier(after, store);
    }

    /// <summary>As the run folders tell it; what is damaged is left out.</summary>
    internal static EarlierRuns Earlier(IReadOnlyList<string> after, Store store)
    {
        EarlierRuns earlier = new(store);
        HashSet<string> seen = [];
        foreach (string id in after) Visit(id);
        return earlier;

        void Visit(string id)
        {
            if (!seen.Add(id) || !RunFolder.TryOpen(store, id, out RunFolder? folder)) return;
            try
            {
                RunRecord record = folder.Read();
                foreach (string before in record.After) Visit(before);
                earlier.Add(id, record.Config, $"run {(record.Config.Name.Length > 0 ? record.Config.Name : id)} ({Words.Of(record.Config.Kind)})");
            }
            catch (UserException) { /* the list of runs says so */ }
        }
    }

    private RunRecord Record(string id, RunConfig config, IReadOnlyList<string> after) => new(RunRecord.CurrentFormat, id, time.GetUtcNow(), after, WithFullPaths(config, store, after.Count > 0));

    /// <summary>Makes the folders of runs and queues them: all or none.</summary>
    /// <param name="card">What people say of each.</param>
    /// <param name="checkpoint">See <see cref="RunFolder.Create"/>.</param>
    /// <exception cref="UserException">The store cannot be written.</exception>
    private async Task<IReadOnlyList<RunRow>> AddAllAsync(List<RunRecord> records, RunCard card, string? checkpoint, CancellationToken cancel)
    {
        List<RunRow> rows = [];
        try
        {
            foreach (RunRecord record in records)
            {
                // Whoever finds a folder alone, because the table was not reached or is lost, queues it; but not one without those that belong to it.
                RunFolder.Create(store, record, card: card with { Waiting = records.Count == 1 }, checkpoint: checkpoint);
                RunRow row = RunImport.Row(record, card);
                row.State = RunState.Queued;
                rows.Add(row);
            }
            await ledger.AddAllAsync(rows, cancel).ConfigureAwait(false);
            return rows;
        }
        catch (Exception e)
        {
            // Without its row a folder would come into the list with the next start.
            foreach (RunRow row in rows) TakeBack(row.Id);
            if (e is IOException or UnauthorizedAccessException)
                throw new UserException($"the run's folder cannot be written in {store.RunsFolder} ({e.Message.TrimEnd('.')}): free some space or mend the folder's rights", ExitCode.DiskFull);
            throw;
        }
    }

    private void TakeBack(string id)
    {
        try { Directory.Delete(store.RunFolder(id), recursive: true); }
        catch (Exception e) when (e is IOException or UnauthorizedAccessException) { /* what is told is why it could not be made */ }
    }

    private IReadOnlyList<string> NewIds(int count) => RunFolder.NewIds(store, time.GetUtcNow(), count);

    private static string Shown(string text) => text.Length <= 80 ? text : text[..77] + "...";
}
