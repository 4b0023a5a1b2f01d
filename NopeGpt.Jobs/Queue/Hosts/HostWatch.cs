using System.Data.Common;
using Microsoft.Extensions.Hosting;
using Microsoft.Extensions.Logging;

namespace NopeGpt.Jobs.Queue.Hosts;

/// <summary>Takes over runs that nobody looks after: of hosts that are gone, and of this one where its database failed in the midst of it. A host is gone for a run when the row's heartbeat has stood still for the lease, by this process's own clock:
/// clocks of hosts are never compared. A trainer that still holds its run's folder is left to work, whatever became of its supervisor.</summary>
internal sealed class HostWatch(RunLedger ledger, Reconciler reconciler, Supervisor supervisor, ThisHost host, Store store, QueueOptions options, TimeProvider time, ILogger<HostWatch> log)
    : BackgroundService
{
    /// <summary>A trainer that has just been started is seen in its folder after some seconds, and would otherwise be taken for none.</summary>
    private static readonly TimeSpan TrainersStart = TimeSpan.FromSeconds(15);

    private static readonly TimeSpan LookEvery = TimeSpan.FromSeconds(1);
    private readonly Dictionary<string, Sight> seen = new(StringComparer.Ordinal);
    private readonly HashSet<string> told = new(StringComparer.Ordinal);
    private long looked = time.GetTimestamp();

    protected override async Task ExecuteAsync(CancellationToken stoppingToken)
    {
        using PeriodicTimer timer = new(LookEvery < options.Lease / 4 ? LookEvery : options.Lease / 4, time);
        do
        {
            try { await LookAsync(stoppingToken).ConfigureAwait(false); }
            catch (Exception e) when (e is DbException or IOException or UnauthorizedAccessException or TimeoutException or InvalidOperationException)
            {
                log.LogWarning("The runs that nobody looks after could not be looked for: {Message}", e.Message);
            }
        }
        while (!supervisor.IsClosing && await timer.WaitForNextTickAsync(stoppingToken).ConfigureAwait(false));
    }

    private async Task LookAsync(CancellationToken cancel)
    {
        IReadOnlyList<RunRow> rows = await ledger.ListAsync(all => all.Where(r => RunStates.Working.Contains(r.State)), cancel).ConfigureAwait(false);
        // What is claimed here and not begun is the dispatcher's.
        rows = [.. rows.Where(r => host.Has(r) ? r.LeaseOwner is not null && !supervisor.LooksAfter(r.Id) : r.Host.Length > 0)];
        // Who did not look for a while, because the database was away or this process stood still, has not seen that others did.
        if (time.GetElapsedTime(looked) > options.Lease / 2) seen.Clear();
        looked = time.GetTimestamp();
        foreach (string gone in seen.Keys.Except(rows.Select(r => r.Id)).ToList()) seen.Remove(gone);
        foreach (RunRow row in rows)
        {
            Sight sight = new(row.Host, row.LeaseOwner, row.Heartbeat, looked);
            if (!seen.TryGetValue(row.Id, out Sight? before) || before with { Since = looked } != sight) seen[row.Id] = sight;
            else if (time.GetElapsedTime(before.Since) >= Patience(row)) await TakeAsync(row, cancel).ConfigureAwait(false);
        }
        told.IntersectWith(seen.Keys);
    }

    private TimeSpan Patience(RunRow row) => row is { State: RunState.Starting, LeaseOwner: not null } && options.Lease < TrainersStart ? TrainersStart : options.Lease;

    private async Task TakeAsync(RunRow row, CancellationToken cancel)
    {
        if (!RunFolder.TryOpen(store, row.Id, out RunFolder? folder)) return;
        if (row.LeaseOwner is null)
        {
            if (await ledger.UnclaimAsync(row, cancel).ConfigureAwait(false)) log.LogInformation("Run {Run} waits again: host {Host}, which was to start it, does not answer", row.Id, row.Host);
            return;
        }
        if (WorksElsewhere(folder))
        {
            await LeaveAsync(row, folder, cancel).ConfigureAwait(false);
            return;
        }
        log.LogWarning("Run {Run} is taken over: host {Host} has not looked after it for {Seconds:0} s", row.Id, row.Host, options.Lease.TotalSeconds);
        await reconciler.SettleAsync(row, folder, watch: true, cancel).ConfigureAwait(false);
    }

    /// <summary>The folder's lock is held, and not by a process that could be watched here.</summary>
    private static bool WorksElsewhere(RunFolder folder)
    {
        using FileStream? free = folder.TryLock();
        return free is null && !(folder.ReadIdentity() is { } identity && TrainerProcess.IsAlive(identity));
    }

    /// <summary>A trainer without a supervisor works on; what people ask of it reaches it through its folder.</summary>
    private async Task LeaveAsync(RunRow row, RunFolder folder, CancellationToken cancel)
    {
        if (row.StopRequest != StopRequest.None && folder.ReadStop() == StopRequest.None) folder.RequestStop(row.StopRequest);
        if (!told.Add(row.Id)) return;
        log.LogWarning("Run {Run} is not taken over: host {Host} does not answer, but its trainer holds the run's folder", row.Id, row.Host);
        string reason = $"host {row.Host} does not answer, and its trainer works on by itself";
        await ledger.MoveAsync(row.Id, [RunState.Running], r => r.SetProperty(x => x.Reason, reason), cancel).ConfigureAwait(false);
    }

    private sealed record Sight(string Host, string? Owner, DateTimeOffset? Heartbeat, long Since);
}
