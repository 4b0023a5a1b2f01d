using System.Data.Common;
using System.Globalization;
using Hangfire;
using Hangfire.Common;
using Hangfire.States;
using Microsoft.EntityFrameworkCore;
using Microsoft.Extensions.Hosting;
using Microsoft.Extensions.Logging;
using NopeGpt.Jobs.Queue.Hosts;

namespace NopeGpt.Jobs.Queue;

/// <summary>Gives each free slot the first run of our order that may start, and says of the others what they wait for.</summary>
internal sealed class Dispatcher : BackgroundService
{
    private static readonly TimeSpan LookEvery = TimeSpan.FromSeconds(1), HandOverAgainAfter = TimeSpan.FromSeconds(30);
    private readonly RunLedger ledger;
    private readonly Supervisor supervisor;
    private readonly DevicePool devices;
    private readonly QueueSwitch settings;
    private readonly IBackgroundJobClient jobs;
    private readonly ThisHost host;
    private readonly SharedTable shared;
    private readonly TimeProvider time;
    private readonly ILogger<Dispatcher> log;
    private readonly SemaphoreSlim wake = new(0);
    private readonly Dictionary<string, long> handedOver = [];
    private readonly Predecessors predecessors;
    private readonly Dictionary<string, (DateTimeOffset For, long Since, TimeSpan Left)> pauses = [];

    public Dispatcher(
        RunLedger ledger, Predecessors predecessors, Supervisor supervisor, QueueSwitch settings, DevicePool devices, IBackgroundJobClient jobs, ThisHost host, SharedTable shared, TimeProvider time, ILogger<Dispatcher> log)
    {
        (this.ledger, this.predecessors, this.supervisor, this.settings, this.devices) = (ledger, predecessors, supervisor, settings, devices);
        (this.jobs, this.host, this.shared, this.time, this.log) = (jobs, host, shared, time, log);
        ledger.Changed += Wake;
        ledger.Noticed += Wake;
    }

    public override void Dispose()
    {
        ledger.Changed -= Wake;
        ledger.Noticed -= Wake;
        base.Dispose();
    }

    protected override async Task ExecuteAsync(CancellationToken stoppingToken)
    {
        while (true)
        {
            try { await DispatchAsync(stoppingToken).ConfigureAwait(false); }
            catch (Exception e) when (e is DbException or DbUpdateException)
            {
                log.LogWarning("The queue could not be worked on just now, and is tried again: {Message}", e.GetBaseException().Message);
            }
#pragma warning disable CA1031 // A job storage that is down, or whatever else, must not end the queue: it is said, and tried again.
            catch (Exception e) when (e is not OperationCanceledException)
#pragma warning restore CA1031
            {
                log.LogError(e, "The queue could not be worked on; it is tried again");
            }
            await wake.WaitAsync(LookEvery, stoppingToken).ConfigureAwait(false);
        }
    }

    private void Wake(string id)
    {
        if (wake.CurrentCount == 0) wake.Release();
    }

    private async Task DispatchAsync(CancellationToken cancel)
    {
        IReadOnlyList<RunRow> rows = await ledger.ListAsync(all => all.Where(r => RunStates.Active.Contains(r.State)), cancel).ConfigureAwait(false);
        List<RunRow> working = [.. rows.Where(r => r.State != RunState.Queued && host.Has(r))];
        Dictionary<string, RunRow> kept = [];
        foreach (RunRow row in working)
        {
            if (row.State == RunState.Starting && row.LeaseOwner is null) await HandOverAsync(row, cancel).ConfigureAwait(false);
        }
        foreach (string gone in handedOver.Keys.Except(rows.Select(r => r.Id)).ToList()) handedOver.Remove(gone);
        foreach (string gone in pauses.Keys.Except(rows.Where(r => r.RetryAt is not null).Select(r => r.Id)).ToList()) pauses.Remove(gone);
        QueueSettings queue = settings.Read();
        foreach (RunRow row in rows.Where(r => r.State == RunState.Queued))
        {
            if (supervisor.IsClosing) return;
            (string? reason, string? fault) = await predecessors.LookAsync(row, cancel).ConfigureAwait(false);
            if (fault is not null) await ledger.CancelFollowerAsync(row.Id, reason!, fault, time.GetUtcNow(), cancel).ConfigureAwait(false);
            else if ((PeoplesWish(row, queue) ?? reason) is { } wait) await ExplainAsync(row, wait, cancel).ConfigureAwait(false);
            // Why it pauses stands in its row.
            else if (Pauses(row)) continue;
            else await StartAsync(row, working, kept, cancel).ConfigureAwait(false);
        }
    }

    /// <summary>Gives the run the devices that it asks for, or says which it waits for.</summary>
    private async Task StartAsync(RunRow row, List<RunRow> working, Dictionary<string, RunRow> kept, CancellationToken cancel)
    {
        DeviceAnswer answer = devices.Find(row, working, kept);
        foreach (string device in answer.Kept) kept.TryAdd(device, row);
        if (answer.Reason is { } reason)
        {
            await ExplainAsync(row, reason, cancel).ConfigureAwait(false);
            return;
        }
        string given = string.Join(',', answer.Devices);
        if (!await ClaimAsync(row, given, cancel).ConfigureAwait(false)) return;
        (row.State, row.Host, row.Devices) = (RunState.Starting, host.Name, given);
        working.Add(row);
        handedOver.Remove(row.Id);
        await HandOverAsync(row, cancel).ConfigureAwait(false);
    }

    /// <summary>What people want of the queue or the run that keeps it waiting; null for nothing.</summary>
    private string? PeoplesWish(RunRow row, QueueSettings queue)
    {
        if (queue.Paused) return queue.Reason is { } why ? $"the queue is paused: {why}" : "the queue is paused";
        if (row.Held) return "it is held; release it to let it start";
        if (row.NotBefore is not { } earliest || time.GetUtcNow() >= earliest) return null;
        return string.Create(CultureInfo.InvariantCulture, $"it starts no earlier than {TimeZoneInfo.ConvertTime(earliest, time.LocalTimeZone):yyyy-MM-dd HH:mm:ss zzz}");
    }

    /// <summary>True while the pause after a crash lasts. It is measured from when it was first seen, and is never longer than pauses are: clocks are set back.</summary>
    private bool Pauses(RunRow row)
    {
        if (row.RetryAt is not { } at) return false;
        if (!pauses.TryGetValue(row.Id, out var pause) || pause.For != at)
        {
            TimeSpan left = at - time.GetUtcNow();
            pauses[row.Id] = pause = (at, time.GetTimestamp(), left > RetryPolicy.Longest ? TimeSpan.Zero : left);
        }
        return time.GetElapsedTime(pause.Since) < pause.Left;
    }

    // One of several hosts says it, or they would talk across each other.
    private Task ExplainAsync(RunRow row, string reason, CancellationToken cancel) =>
        row.Reason == reason || !shared.Leads ? Task.CompletedTask : ledger.MoveAsync(row.Id, [RunState.Queued], r => r.SetProperty(x => x.Reason, reason), cancel);

    private Task<bool> ClaimAsync(RunRow row, string given, CancellationToken cancel) =>
        ledger.MoveAsync(row.Id, [RunState.Queued], r => r
            .SetProperty(x => x.State, RunState.Starting)
            .SetProperty(x => x.Host, host.Name)
            .SetProperty(x => x.Devices, given)
            .SetProperty(x => x.Reason, (string?)null)
            .SetProperty(x => x.RetryAt, (DateTimeOffset?)null), cancel);

    /// <summary>Gives a claimed run to Hangfire, and again where nothing came of it (a job deleted by hand, a storage that was lost): the lease
    /// lets only one of several deliveries work.</summary>
    private async Task HandOverAsync(RunRow row, CancellationToken cancel)
    {
        if (handedOver.TryGetValue(row.Id, out long at) && time.GetElapsedTime(at) < HandOverAgainAfter) return;
        (string id, string queue) = (row.Id, devices.For(row).Queue);
        try
        {
            // The job keeps its queue, so that Requeue on Hangfire's page brings it back to a worker.
            jobs.Create(Job.FromExpression<TrainingJob>(job => job.RunAsync(id, CancellationToken.None), queue), new EnqueuedState(queue));
            handedOver[id] = time.GetTimestamp();
        }
        catch (BackgroundJobClientException e)
        {
            string reason = $"waiting: the job storage does not answer ({(e.InnerException ?? e).Message.TrimEnd('.')})";
            if (row.Reason == reason) return;
            log.LogWarning("Run {Run} is {Reason}", id, reason);
            await ledger.MoveAsync(id, [RunState.Starting], r => r.SetProperty(x => x.Reason, reason), cancel).ConfigureAwait(false);
        }
    }
}
