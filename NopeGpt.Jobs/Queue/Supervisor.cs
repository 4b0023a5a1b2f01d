using System.Data.Common;
using Microsoft.EntityFrameworkCore;
using Microsoft.Extensions.Logging;
using NopeGpt.Jobs.Queue.Hosts;

namespace NopeGpt.Jobs.Queue;

/// <summary>Starts, adopts and watches the trainers of this dashboard. One run has one trainer, whoever asks and how often.</summary>
internal sealed class Supervisor : IDisposable
{
    private static readonly TimeSpan InsistEvery = TimeSpan.FromSeconds(1);
    private readonly RunLedger ledger;
    private readonly RunEnding ending;
    private readonly RunNotices notices;
    private readonly Store store;
    private readonly TrainerProgram program;
    private readonly DevicePool devices;
    private readonly QueueOptions options;
    private readonly ThisHost host;
    private readonly TimeProvider time;
    private readonly ILogger<Supervisor> log;
    private readonly Lock gate = new();
    private readonly Dictionary<string, Task> tasks = [];
    private readonly Dictionary<string, Supervision> watched = [];
    private readonly HashSet<string> theirs = [];
    private readonly CancellationTokenSource detach = new(), letGo = new();
    private bool closing;

    public Supervisor(
        RunLedger ledger, RunEnding ending, RunNotices notices, Store store, TrainerProgram program, DevicePool devices, QueueOptions options, ThisHost host, TimeProvider time, ILogger<Supervisor> log)
    {
        (this.ledger, this.ending, this.notices, this.store, this.program, this.devices, this.options, this.host, this.time, this.log) = (ledger, ending, notices, store, program, devices, options, host, time, log);
        ledger.Changed += Wake;
        ledger.Noticed += Wake;
    }

    /// <summary>Who holds the leases that are taken here.</summary>
    public string Owner => host.Owner;

    /// <summary>True once nothing new may start.</summary>
    public bool IsClosing
    {
        get { lock (gate) return closing; }
    }

    /// <summary>True while somebody here looks after the run.</summary>
    public bool LooksAfter(string id)
    {
        lock (gate) return tasks.ContainsKey(id);
    }

    /// <summary>Takes the run's lease, starts its trainer and ends with it. Returns at once where the run is not waiting for its start,
    /// or is somebody's already: being called twice does no harm.</summary>
    public async Task StartAsync(string id)
    {
        Task? before;
        lock (gate) tasks.TryGetValue(id, out before);
        if (before is not null)
        {
            // It has ended in the table and was resumed at once, and the task of its last attempt is about to end: else it is at work.
            if (await ledger.FindAsync(id).ConfigureAwait(false) is not { State: RunState.Starting, LeaseOwner: null }) return;
            await before.ConfigureAwait(ConfigureAwaitOptions.SuppressThrowing);
        }
        await Begin(id, () => LeaseAndWatchAsync(id)).ConfigureAwait(false);
    }

    /// <summary>Watches a trainer that works already.</summary>
    public void Adopt(string id, TrainerIdentity identity)
    {
        lock (gate)
        {
            if (identity.Foreground) theirs.Add(id);
        }
        _ = Begin(id, () => AdoptAsync(id, identity));
    }

    /// <summary>Lets no run start any more, and ends the trainers' work or lets go of them, as the options say. Those that a person started on a terminal
    /// are always let go of.</summary>
    public async Task CloseAsync(CancellationToken cancel)
    {
        KeyValuePair<string, Task>[] open;
        string[] ours;
        lock (gate)
        {
            closing = true;
            open = [.. tasks];
            // Before they are let go of: then nobody knows any more whose they were.
            ours = [.. tasks.Keys.Where(id => !theirs.Contains(id))];
        }
        await letGo.CancelAsync().ConfigureAwait(false);
        if (options.OnShutdown == ShutdownPolicy.Detach) await detach.CancelAsync().ConfigureAwait(false);
        else
        {
            foreach (string id in ours) await StopForCloseAsync(id, cancel).ConfigureAwait(false);
        }
        await Task.WhenAll(open.Select(o => o.Value)).WaitAsync(cancel).ConfigureAwait(false);
    }

    private async Task StopForCloseAsync(string id, CancellationToken cancel)
    {
        try
        {
            await ledger.MoveAsync(id, [RunState.Starting, RunState.Running], row => row
                .SetProperty(r => r.State, RunState.Stopping)
                .SetProperty(r => r.StopRequest, StopRequest.Save)
                .SetProperty(r => r.ResumesItself, true)
                .SetProperty(r => r.Reason, "the dashboard closes; it saves and ends"), cancel).ConfigureAwait(false);
        }
        catch (Exception e) when (e is DbException or DbUpdateException)
        {
            log.LogWarning("The trainers work on without the dashboard, because the run table cannot be written ({Message})", e.Message);
            await detach.CancelAsync().ConfigureAwait(false);
        }
    }

    public void Dispose()
    {
        ledger.Changed -= Wake;
        ledger.Noticed -= Wake;
        detach.Dispose();
        letGo.Dispose();
    }

    private void Wake(string id)
    {
        lock (gate)
        {
            if (watched.TryGetValue(id, out Supervision? supervision)) supervision.Wake();
        }
    }

    private Task Begin(string id, Func<Task> work)
    {
        lock (gate)
        {
            if (closing || tasks.ContainsKey(id)) return Task.CompletedTask;
            // On the pool, so that the entry stands before the work can end.
            return tasks[id] = Task.Run(async () =>
            {
                try { await work().ConfigureAwait(false); }
                finally
                {
                    lock (gate)
                    {
                        tasks.Remove(id);
                        theirs.Remove(id);
                    }
                }
            });
        }
    }

    private async Task LeaseAndWatchAsync(string id)
    {
        long sequence = RunFolder.TryOpen(store, id, out RunFolder? known) ? known.LastSequence() : 0;
        if (await ledger.FindAsync(id).ConfigureAwait(false) is not { } row) return;
        if (!await ledger.TakeLeaseAsync(id, Owner, time.GetUtcNow(), sequence).ConfigureAwait(false)) return;
        row.LeaseOwner = Owner;
        try
        {
            RunFolder folder = RunFolder.Open(store.RunFolder(id));
            // A request of an earlier attempt; a new one stands in the row, and is passed on from there.
            folder.RequestStop(StopRequest.None);
            using TrainerProcess trainer = TrainerProcess.Start(program, folder, store, devices.TrainerOptions(row));
            log.LogInformation("Run {Run} is started (process {Process})", id, trainer.Identity.ProcessId);
            await WatchAsync(folder, trainer).ConfigureAwait(false);
        }
        catch (Exception e) when (e is UserException or IOException or UnauthorizedAccessException)
        {
            log.LogWarning("Run {Run} cannot be worked on: {Message}", id, e.Message);
            await InsistAsync(id, () => ending.FailedAsync(row, e.Message)).ConfigureAwait(false);
        }
    }

    /// <summary>A table that does not answer just now must not leave a run between two states.</summary>
    private async Task InsistAsync(string id, Func<Task> write)
    {
        while (!letGo.IsCancellationRequested)
        {
            try
            {
                await write().ConfigureAwait(false);
                return;
            }
            catch (Exception e) when (e is DbException or DbUpdateException or IOException)
            {
                log.LogWarning("The end of run {Run} could not be written just now: {Message}", id, e.Message);
                await Task.Delay(InsistEvery, time, letGo.Token).ConfigureAwait(ConfigureAwaitOptions.SuppressThrowing);
            }
        }
    }

    private async Task AdoptAsync(string id, TrainerIdentity identity)
    {
        using TrainerProcess trainer = TrainerProcess.Adopt(identity);
        await WatchAsync(RunFolder.Open(store.RunFolder(id)), trainer).ConfigureAwait(false);
    }

    private async Task WatchAsync(RunFolder folder, TrainerProcess trainer)
    {
        using Supervision supervision = new(folder, trainer, ledger, ending, notices, options, Owner, time, log, letGo.Token);
        lock (gate) watched[folder.Id] = supervision;
        CancellationToken end = trainer.Identity.Foreground ? letGo.Token : detach.Token;
        try { await supervision.WatchAsync(end).ConfigureAwait(false); }
        catch (OperationCanceledException) when (end.IsCancellationRequested)
        {
            // Asked for: the trainer works on, its row says so, and the next dashboard adopts it.
            log.LogInformation("Run {Run} goes on without the dashboard", folder.Id);
        }
        finally
        {
            lock (gate) watched.Remove(folder.Id);
        }
    }
}
