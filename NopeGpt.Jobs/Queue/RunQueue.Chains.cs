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
        List<Problem> problems = [.. Problems(new RunChange(priority, Tags: tags), tags)];
        if (configs.Count is 0 or > LongestChain) problems.Add(new Problem("runs", $"{configs.Count} runs", $"a chain has from 1 to {LongestChain} runs"));
        IReadOnlyList<string> ids = NewIds(Math.Min(configs.Count, LongestChain));
        EarlierRuns earlier = new(store);
        List<RunRecord> records = [];
        for (int step = 0; step < ids.Count; step++)
        {
            string title = $"step {step + 1} ({Words.Of(configs[step].Kind)})";
            RunConfig whole = WithFullPaths(earlier.Complete(configs[step]), store, step > 0);
            problems.AddRange(earlier.Problems(whole).Select(p => p with { Field = $"{title}: {p.Field}" }));
            earlier.Add(ids[step], whole, title);
            records.Add(new RunRecord(RunRecord.CurrentFormat, ids[step], time.GetUtcNow(), step == 0 ? [] : [ids[step - 1]], whole));
        }
        if (problems.Count > 0) throw new ProblemsException(problems);
        await AddAllAsync(records, new RunCard { Priority = priority, Tags = tags ?? [] }, null, cancel).ConfigureAwait(false);
        return ids;
    }

    /// <summary>The runs and all that they wait for, first the first.</summary>
    /// <exception cref="ProblemsException">One of them does not exist.</exception>
    private async Task<EarlierRuns> EarlierAsync(IReadOnlyList<string> after, CancellationToken cancel)
    {
        List<Problem> problems = [];
        foreach (string id in after)
        {
            if (!Store.IsName(id) || await ledger.FindAsync(id, cancel).ConfigureAwait(false) is null) problems.Add(new Problem("after", Shown(id), "there is no such run: name one of the list"));
        }
        return problems.Count > 0 ? throw new ProblemsException(problems) : Earlier(after, store);
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

    private Task<IReadOnlyList<RunRow>> AddAllAsync(IReadOnlyList<(RunConfig Config, IReadOnlyList<string> After)> runs, RunCard card, string? checkpoint, CancellationToken cancel)
    {
        IReadOnlyList<string> ids = NewIds(runs.Count);
        DateTimeOffset now = time.GetUtcNow();
        return AddAllAsync([.. runs.Select((run, i) => new RunRecord(RunRecord.CurrentFormat, ids[i], now, run.After, WithFullPaths(run.Config, store, run.After.Count > 0)))], card, checkpoint, cancel);
    }

    /// <summary>Makes the folders of runs and queues them: all or none.</summary>
    /// <param name="card">What people say of each.</param>
    /// <param name="checkpoint">See <see cref="RunFolder.Create"/>.</param>
    private async Task<IReadOnlyList<RunRow>> AddAllAsync(IReadOnlyList<RunRecord> records, RunCard card, string? checkpoint, CancellationToken cancel)
    {
        List<RunRow> rows = [];
        try
        {
            foreach (RunRecord record in records)
            {
                // Whoever finds the folder alone, because the table was not reached or is lost, queues it.
                RunFolder.Create(store, record, card: card with { Waiting = true }, checkpoint: checkpoint);
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
            foreach (RunRow row in rows) Directory.Delete(store.RunFolder(row.Id), recursive: true);
            if (e is IOException or UnauthorizedAccessException)
                throw new UserException($"the run's folder cannot be written in {store.RunsFolder} ({e.Message.TrimEnd('.')}): free some space or mend the folder's rights", ExitCode.DiskFull);
            throw;
        }
    }

    private IReadOnlyList<string> NewIds(int count) => RunFolder.NewIds(store, time.GetUtcNow(), count);

    private static string Shown(string text) => text.Length <= 80 ? text : text[..77] + "...";
}
