using System.Data.Common;
using Microsoft.EntityFrameworkCore;
using Microsoft.Extensions.Hosting;
using Microsoft.Extensions.Logging;
using NopeGpt.Jobs.Queue.Hosts;

namespace NopeGpt.Jobs.Queue;

/// <summary>Sees what is done to the store's runs without the dashboard, while it runs: runs that ask to be queued, and runs that a person works on from
/// a terminal. One look a second at two files of each run; the rest only where one of them is new.</summary>
internal sealed class FolderWatch(RunLedger ledger, Supervisor supervisor, ThisHost host, SharedTable shared, RunNotices notices, Store store, TimeProvider time, ILogger<FolderWatch> log) : BackgroundService
{
    private static readonly TimeSpan LookEvery = TimeSpan.FromSeconds(1);
    private static readonly RunState[] Idle = [.. RunStates.Ended, RunState.Queued];

    /// <summary>The process that was looked at last, by the time at which it began with the run.</summary>
    private readonly Dictionary<string, DateTimeOffset> _seen = new(StringComparer.Ordinal);

    private readonly HashSet<string> _told = new(StringComparer.Ordinal);

    protected override async Task ExecuteAsync(CancellationToken stoppingToken)
    {
        using PeriodicTimer timer = new(LookEvery, time);
        do
        {
            foreach (string path in Folders())
            {
                if (stoppingToken.IsCancellationRequested || supervisor.IsClosing) return;
                try { await LookAsync(path, stoppingToken).ConfigureAwait(false); }
                catch (Exception e) when (e is UserException or IOException or UnauthorizedAccessException or DbException or DbUpdateException)
                {
                    // A database that is busy now will not be for ever; a damaged run.json is said once.
                    if (_told.Add(path + e.Message)) log.LogWarning("Run {Run} could not be looked at: {Message}", Path.GetFileName(path), e.Message);
                }
            }
        }
        while (await timer.WaitForNextTickAsync(stoppingToken).ConfigureAwait(false));
    }

    private List<string> Folders()
    {
        try { return [.. Directory.EnumerateDirectories(store.RunsFolder).Where(p => !p.EndsWith(".new", StringComparison.Ordinal)).Order(StringComparer.Ordinal)]; }
        catch (IOException e)
        {
            if (_told.Add(e.Message)) log.LogWarning("The runs in {Folder} cannot be listed: {Message}", store.RunsFolder, e.Message);
            return [];
        }
    }

    private async Task LookAsync(string path, CancellationToken cancel)
    {
        string id = Path.GetFileName(path);
        if (!RunFolder.TryOpen(store, id, out RunFolder? folder)) return;
        if (shared.Leads && folder.AsksForQueue) await EnqueueAsync(folder, cancel).ConfigureAwait(false);
        if (folder.LastProcess is not { } began || (_seen.TryGetValue(id, out DateTimeOffset seen) && seen == began)) return;
        // A process of another machine is for the host there to see.
        if (folder.ReadIdentity() is not { } process || TrainerProcess.IsOfThisMachine(process)) await MeetAsync(folder, began, cancel).ConfigureAwait(false);
        _seen[id] = began;
    }

    private async Task EnqueueAsync(RunFolder folder, CancellationToken cancel)
    {
        if (await ledger.FindAsync(folder.Id, cancel).ConfigureAwait(false) is null)
        {
            RunRow row = RunImport.Row(folder.Read(), folder.ReadCard());
            (row.Id, row.State) = (folder.Id, RunState.Queued);
            await ledger.AddAsync(row, cancel).ConfigureAwait(false);
        }
        else await ledger.RequeueAsync(folder.Id, RunStates.Resumable, cancel).ConfigureAwait(false);
        folder.TakeQueueRequest();
    }

    /// <summary>A process began with the run that was not seen before; the table may know of it or not.</summary>
    private async Task MeetAsync(RunFolder folder, DateTimeOffset began, CancellationToken cancel)
    {
        string id = folder.Id;
        DateTimeOffset now = time.GetUtcNow();
        int attempt;
        if (await ledger.FindAsync(id, cancel).ConfigureAwait(false) is not { } row)
        {
            row = RunImport.Row(folder, now);
            await ledger.AddAsync(row, cancel).ConfigureAwait(false);
            if (row.State != RunState.Running) return;
            attempt = Math.Max(1, row.Attempt);
        }
        else if (Idle.Contains(row.State)) attempt = row.Attempt + 1;
        else return;
        if (Reconciler.LiveTrainer(folder, null) is { } trainer)
        {
            await ledger.MoveAsync(id, [.. Idle, RunState.Running], r => r
                .SetProperty(x => x.State, RunState.Running)
                .SetProperty(x => x.Reason, (string?)null)
                .SetProperty(x => x.ResumesItself, false)
                .SetProperty(x => x.Attempt, attempt)
                .SetProperty(x => x.Started, began)
                .SetProperty(x => x.Ended, (DateTimeOffset?)null)
                .SetProperty(x => x.Host, host.Name)
                .SetProperty(x => x.LeaseOwner, host.Owner)
                .SetProperty(x => x.Heartbeat, now)
                .SetProperty(x => x.ProcessId, trainer.ProcessId)
                .SetProperty(x => x.ProcessStartTicks, trainer.StartTicks), cancel).ConfigureAwait(false);
            await ledger.RequeueFollowersAsync(id, cancel).ConfigureAwait(false);
            supervisor.Adopt(id, trainer);
            log.LogInformation("Run {Run} is worked on by process {Process} and is watched", id, trainer.ProcessId);
        }
        else await SettleAsync(folder, row, began, cancel).ConfigureAwait(false);
    }

    /// <summary>An attempt may have come and gone unseen: the table knows how far the events were when the one before it ended. Rows of version 0.1 and those that
    /// never worked know only the time, which a clock that is set back makes worthless.</summary>
    private async Task SettleAsync(RunFolder folder, RunRow row, DateTimeOffset began, CancellationToken cancel)
    {
        RunPosition position = new(folder);
        position.Read();
        bool known = row.SequenceBefore > 0 ? position.Last <= row.SequenceBefore : began <= row.Ended;
        if (known) return;
        TrainerEnd end = Reconciler.Fate(folder, position.LastEnd);
        (RunState state, string? reason) = end.DecideLater();
        (long step, long steps) = position.Done(row.Kind) ?? (row.Step, row.MaxSteps);
        (int attempts, DateTimeOffset? started) = (position.Began?.Attempt ?? row.Attempt, position.Began?.Time ?? row.Started);
        DateTimeOffset ended = position.LastEnd?.Time ?? time.GetUtcNow();
        row.Attempt = attempts;
        IReadOnlyList<string> told = notices.Ending(row, state, reason, end, paused: false);
        bool moved = await ledger.MoveAsync(folder.Id, RunStates.Ended, r => r
            .SetProperty(x => x.SequenceBefore, position.Last)
            .SetProperty(x => x.State, state)
            .SetProperty(x => x.Reason, reason)
            .SetProperty(x => x.ResumesItself, false)
            .SetProperty(x => x.Attempt, attempts)
            .SetProperty(x => x.Started, started)
            .SetProperty(x => x.Ended, ended)
            .SetProperty(x => x.Step, step)
            .SetProperty(x => x.MaxSteps, steps), cancel).ConfigureAwait(false);
        if (moved) notices.Release(told);
        else notices.Withdraw(told);
    }
}
