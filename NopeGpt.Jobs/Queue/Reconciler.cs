using Microsoft.EntityFrameworkCore;
using Microsoft.Extensions.Logging;
using NopeGpt.Jobs.Queue.Hosts;

namespace NopeGpt.Jobs.Queue;

/// <summary>Makes the run table agree with the run folders and the living processes, once, before anything else works on it.</summary>
internal sealed class Reconciler(RunLedger ledger, Supervisor supervisor, RunEnding ending, CardKeeper cards, ThisHost host, SharedTable shared, Store store, TimeProvider time, ILogger<Reconciler> log)
{
    private static readonly TimeSpan UnseenAtMost = TimeSpan.FromMinutes(10);

    /// <summary>Hosts that share the table match it with the folders one after the other, and settle what is their own; of the others' see <see cref="HostWatch"/>.</summary>
    /// <param name="watch">Trainers that live are watched from now on. A command line verb, which ends at once, leaves them to the next dashboard.</param>
    public async Task RunAsync(CancellationToken cancel, bool watch = true)
    {
        await using (await shared.LockAsync("folders", cancel).ConfigureAwait(false)) await MatchFoldersAsync(cancel).ConfigureAwait(false);
        foreach (RunRow row in await ledger.ListAsync(rows => rows.Where(r => RunStates.Working.Contains(r.State) || r.ResumesItself), cancel).ConfigureAwait(false))
        {
            if (row.State == RunState.Interrupted) await ledger.MoveAsync(row.Id, [RunState.Interrupted], RunLedger.Queue, cancel).ConfigureAwait(false);
            else if (host.Has(row) && RunFolder.TryOpen(store, row.Id, out RunFolder? folder)) await SettleAsync(row, folder, watch, cancel).ConfigureAwait(false);
        }
        // A process that was killed between a change and its card left an old one.
        await cards.KeepAllAsync(cancel).ConfigureAwait(false);
    }

    /// <summary>Makes the table anew from the folders, as if it had been lost. Nobody else may work on it meanwhile.</summary>
    /// <returns>Number of runs.</returns>
    public async Task<int> RebuildAsync(CancellationToken cancel)
    {
        await ledger.ClearAsync(cancel).ConfigureAwait(false);
        await RunAsync(cancel, watch: false).ConfigureAwait(false);
        return (await ledger.ListAsync(cancel: cancel).ConfigureAwait(false)).Count;
    }

    /// <summary>The process that works on the run now: it holds the folder's lock and is the one that the row or the folder names.</summary>
    public static TrainerIdentity? LiveTrainer(RunFolder folder, TrainerIdentity? named)
    {
        if (folder.ReadIdentity() is not { } identity || !TrainerProcess.IsAlive(identity))
            // Started, and not yet as far as to say so in the folder.
            return named is not null && TrainerProcess.IsAlive(named) ? named : null;
        using FileStream? free = folder.TryLock();
        return free is null ? identity : null;
    }

    /// <summary>What is known of a trainer that ended unseen.</summary>
    public static TrainerEnd Fate(RunFolder folder, EndedEvent? ended) =>
        new(null, ended, TrainerEnd.NewestCheckpoint(folder), TrainerEnd.LastLogLine(folder), StopRequest.None, false);

    /// <summary>A folder without a row gets one; a row without a folder goes.</summary>
    private async Task MatchFoldersAsync(CancellationToken cancel)
    {
        HashSet<string> known = [.. (await ledger.ListAsync(cancel: cancel).ConfigureAwait(false)).Select(r => r.Id)];
        HashSet<string> present = [];
        foreach (string path in Directory.EnumerateDirectories(store.RunsFolder).Order(StringComparer.Ordinal))
        {
            // A crash while a run was being made leaves a folder that is not under its final name.
            if (path.EndsWith(".new", StringComparison.Ordinal) || !RunFolder.TryOpen(store, Path.GetFileName(path), out RunFolder? folder)) continue;
            present.Add(folder.Id);
            if (known.Contains(folder.Id)) continue;
            try
            {
                RunRow row = RunImport.Row(folder, time.GetUtcNow());
                // Its trainer lives here.
                if (row.State == RunState.Running) row.Host = host.Name;
                await ledger.AddAsync(row, cancel).ConfigureAwait(false);
            }
            catch (DbUpdateException) when (shared.IsShared) { /* it was added by somebody else in this moment */ }
            catch (Exception e) when (e is UserException or IOException or UnauthorizedAccessException) { log.LogWarning("A run is left out: {Message}", e.Message); }
        }
        DeleteLeftovers();
        foreach (string gone in known.Except(present))
        {
            // A folder that another machine has just made may not be seen here yet.
            if (shared.IsShared && await ledger.FindAsync(gone, cancel).ConfigureAwait(false) is { } row && row.Created > time.GetUtcNow() - UnseenAtMost) continue;
            log.LogWarning("Run {Run} has no folder any more, so it leaves the table", gone);
            await ledger.RemoveAsync(gone, cancel).ConfigureAwait(false);
        }
    }

    /// <summary>What a killed process was still making: run folders, exports, and data sets of runs that are not there any more or are done.</summary>
    private void DeleteLeftovers()
    {
        DateTime recent = time.GetUtcNow().UtcDateTime - TimeSpan.FromHours(1);
        IEnumerable<string> datasets = Directory.EnumerateDirectories(store.DatasetsFolder, ".*.new").Where(d => !MayGoOn(Path.GetFileName(d).Split('.')[^2]));
        IEnumerable<string> exports = Directory.Exists(store.ExportsFolder) ? Directory.EnumerateDirectories(store.ExportsFolder, ".*.tmp") : [];
        foreach (string folder in Directory.EnumerateDirectories(store.RunsFolder, "*.new").Concat(datasets).Concat(exports).Where(d => Directory.GetLastWriteTimeUtc(d) < recent).ToList())
        {
            try
            {
                Directory.Delete(folder, recursive: true);
                log.LogInformation("{Folder} was left by a process that was killed, and is deleted", folder);
            }
            catch (Exception e) when (e is IOException or UnauthorizedAccessException) { log.LogWarning("{Folder} cannot be deleted: {Message}", folder, e.Message); }
        }
    }

    // Preparing goes on from its last finished shard when it is resumed.
    private bool MayGoOn(string id)
    {
        if (!RunFolder.TryOpen(store, id, out RunFolder? folder)) return false;
        RunPosition position = new(folder);
        position.Read();
        return position.LastEnd is not { State: RunState.Completed };
    }

    /// <summary>Takes over a run whose owner is gone: its trainer, where that lives, or its end.</summary>
    public async Task SettleAsync(RunRow row, RunFolder folder, bool watch, CancellationToken cancel)
    {
        // A number in another host's row says nothing here.
        TrainerIdentity? trainer = LiveTrainer(folder, host.Has(row) ? row.Trainer : null);
        if (trainer is not null && !watch) return;
        bool leased = row.LeaseOwner is not null;
        // Somebody else may be faster.
        if (!await ledger.TakeOverAsync(row, host.Name, host.Owner, trainer, time.GetUtcNow(), cancel).ConfigureAwait(false)) return;
        row.LeaseOwner = host.Owner;
        if (trainer is not null)
        {
            supervisor.Adopt(row.Id, trainer);
            log.LogInformation("Run {Run} is working (process {Process}) and is watched again", row.Id, trainer.ProcessId);
            return;
        }
        RunPosition position = new(folder);
        position.Read();
        // Its supervisor may have died before it wrote the trainer's number down.
        bool begun = row.ProcessId is not null || (leased && position.Began?.Sequence > row.SequenceBefore);
        if (row.State == RunState.Starting && !begun)
        {
            // Claimed, and no trainer came of it.
            await ledger.MoveAsync(row.Id, [RunState.Starting], RunLedger.Queue, cancel).ConfigureAwait(false);
            return;
        }
        EndedEvent? ended = position.LastEnd is { } last && last.Sequence > row.SequenceBefore ? last : null;
        TrainerEnd end = Fate(folder, ended) with { Asked = row.ResumesItself ? StopRequest.None : row.StopRequest, Sequence = position.Last };
        await ending.UnseenAsync(row, end, folder.ReadIdentity() is { Foreground: true }, cancel).ConfigureAwait(false);
    }
}
