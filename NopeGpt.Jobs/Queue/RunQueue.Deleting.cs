using NopeGpt.Model.Storage;

namespace NopeGpt.Jobs.Queue;

// What leaves the store, and what must not.
public sealed partial class RunQueue
{
    /// <summary>Moves a run that is not at work to the trash, from which it goes for good after some days.</summary>
    /// <param name="evenIfNeeded">Also where other runs need it.</param>
    /// <exception cref="UserException">It is at work, or needed; the message says by whom.</exception>
    public async Task DeleteAsync(string id, bool evenIfNeeded = false, CancellationToken cancel = default)
    {
        RunRow row = await FoundAsync(id, cancel).ConfigureAwait(false);
        if (!evenIfNeeded && await NeededByAsync(row, cancel).ConfigureAwait(false) is { Count: > 0 } needing)
            throw new UserException($"run {row.Title} is needed: {string.Join("; ", needing)}; delete those first, or insist");
        RunFolder.TryOpen(store, id, out RunFolder? folder);
        using FileStream? free = folder?.TryLock();
        if (folder is not null && free is null) throw AtWork(row);
        // First the row: where this is broken off in between, the folder is found again and nothing is lost.
        if (!await ledger.RemoveAsync(id, [RunState.Queued, .. RunStates.Ended], cancel).ConfigureAwait(false)) throw AtWork(await FoundAsync(id, cancel).ConfigureAwait(false));
        if (folder is null) return;
        try { trash.Take(folder); }
        catch (Exception e) when (e is IOException or UnauthorizedAccessException)
        {
            await ledger.AddAsync(row, CancellationToken.None).ConfigureAwait(false);
            throw new UserException($"run {row.Title} cannot be moved to the trash ({e.Message.TrimEnd('.')}): mend the rights of {store.Root}", ExitCode.DiskFull);
        }
    }

    /// <summary>Days for which a deleted run can be had back; 0 for not at all.</summary>
    public int TrashDays => trash.Days;

    /// <summary>In words, who would be without something if the run were gone; empty for nobody.</summary>
    public async Task<IReadOnlyList<string>> NeededByAsync(string id, CancellationToken cancel = default) => await NeededByAsync(await FoundAsync(id, cancel).ConfigureAwait(false), cancel).ConfigureAwait(false);

    /// <summary>Takes a deleted run out of the trash.</summary>
    /// <exception cref="UserException">It is not there any more.</exception>
    public async Task<RunRow> RestoreAsync(string id, CancellationToken cancel = default)
    {
        RunRow row = RunImport.Row(trash.Restore(id), time.GetUtcNow());
        await ledger.AddAsync(row, cancel).ConfigureAwait(false);
        return row;
    }

    /// <summary>Runs in the trash and when they were deleted.</summary>
    public IReadOnlyList<(string Id, DateTimeOffset Deleted)> Trash => trash.List();

    /// <summary>As <see cref="Trash"/>, with what their folders tell.</summary>
    public IReadOnlyList<TrashedRun> Trashed() => [.. trash.List().Select(t => trash.Describe(t.Id, t.Deleted)).OfType<TrashedRun>()];

    /// <summary>Keeps a checkpoint whatever the run's policy says, or leaves it to the policy again.</summary>
    /// <exception cref="UserException">There is no such run or checkpoint.</exception>
    public async Task PinAsync(string id, long step, bool pinned, CancellationToken cancel = default)
    {
        RunRow row = await FoundAsync(id, cancel).ConfigureAwait(false);
        RunFolder folder = Opened(row);
        if (pinned && Checkpoint.List(folder.CheckpointsPath).All(c => c.Step != step)) throw new UserException($"run {row.Title} has no checkpoint of step {step}: it may have been deleted already");
        try { folder.ChangeCard(card => card with { Pinned = [.. pinned ? card.Pinned.Append(step).Distinct().Order() : card.Pinned.Where(s => s != step)] }); }
        catch (Exception e) when (e is IOException or UnauthorizedAccessException)
        {
            throw new UserException($"the card of run {row.Title} cannot be written ({e.Message.TrimEnd('.')}): free some space or mend the folder's rights", ExitCode.DiskFull);
        }
        ledger.Tell(id);
    }

    private async Task<IReadOnlyList<string>> NeededByAsync(RunRow row, CancellationToken cancel)
    {
        List<string> words = [];
        foreach (RunRow other in await ListAsync(cancel: cancel).ConfigureAwait(false))
        {
            bool unfinished = other.State is not (RunState.Completed or RunState.Failed or RunState.Cancelled);
            if (unfinished && other.Predecessors.Contains(row.Id)) words.Add($"run {other.Title} waits for it");
            else if (other.Id != row.Id && other.Kind == RunKind.Finetune && IsBaseOf(row, other)) words.Add($"run {other.Title} is an adapter on a checkpoint of it");
        }
        return words;
    }

    private bool IsBaseOf(RunRow row, RunRow tuned)
    {
        try
        {
            if (!RunFolder.TryOpen(store, tuned.Id, out RunFolder? folder) || folder.Read().Config is not { Finetune: { Method: FinetuneMethod.Lora } finetune }) return false;
            string named = finetune.BaseCheckpointPath;
            return named == row.Id || named.StartsWith(row.Id + "/", StringComparison.Ordinal) || Path.GetFullPath(named).StartsWith(store.RunFolder(row.Id) + "/", StringComparison.Ordinal);
        }
        catch (UserException) { return false; }
    }

    private static UserException AtWork(RunRow row) => new($"run {row.Title} {Words.Of(row.State)}: stop it before you delete it");
}

/// <summary>A deleted run that can be restored.</summary>
/// <param name="Name">What people called it; empty where its run.json is damaged.</param>
public sealed record TrashedRun(string Id, string Name, DateTimeOffset Deleted, long Bytes);
