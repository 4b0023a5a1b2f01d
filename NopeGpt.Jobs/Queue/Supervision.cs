using System.Data.Common;
using Microsoft.EntityFrameworkCore;
using Microsoft.Extensions.Logging;

namespace NopeGpt.Jobs.Queue;

/// <summary>Watches one trainer until it ends: keeps its row true, passes stop requests on, writes how it ended.</summary>
/// <param name="owner">Who holds the run's lease here.</param>
/// <param name="closing">The dashboard closes.</param>
internal sealed class Supervision(
    RunFolder folder, TrainerProcess trainer, RunLedger ledger, RunEnding ending, RunNotices notices, QueueOptions options, string owner, TimeProvider time, ILogger log, CancellationToken closing) : IDisposable
{
    private static readonly TimeSpan LookEvery = TimeSpan.FromMilliseconds(500), ReportEvery = TimeSpan.FromSeconds(1);

    /// <summary>Whoever shuts the machine down signals the trainer and the dashboard, in any order.</summary>
    private static readonly TimeSpan SignalsApart = TimeSpan.FromSeconds(1);

    private readonly SemaphoreSlim wake = new(0);
    private readonly RunPosition position = new(folder);
    private readonly TimeSpan stallLimit = StallLimit(folder);
    private long? saveAsked;
    private bool terminated;
    private bool killed;
    private bool overdue;
    private bool lost;
    private bool passedOn;
    private long reported;
    private (long Event, long Time) worked;
    private bool stalled;
    private (long Step, long MaxSteps)? lastDone;

    /// <summary>The row changed: look at it now.</summary>
    public void Wake()
    {
        if (wake.CurrentCount == 0) wake.Release();
    }

    /// <summary>Ends when the trainer has ended and its row says how.</summary>
    /// <exception cref="OperationCanceledException">Detached: the trainer works on, and its row still says so.</exception>
    public async Task WatchAsync(CancellationToken detach)
    {
        reported = time.GetTimestamp();
        worked = (0, reported);
        Task<int?> exit = trainer.WaitAsync(detach);
        using CancellationTokenSource over = new();
        Task beating = BeatAsync(over.Token);
        int? code;
        try
        {
            while (!exit.IsCompleted)
            {
                await TryAsync(LookAsync).ConfigureAwait(false);
                if (passedOn) return;
                await Task.WhenAny(exit, wake.WaitAsync(LookEvery, detach)).ConfigureAwait(false);
            }
            code = await exit.ConfigureAwait(false);
        }
        finally
        {
            await over.CancelAsync().ConfigureAwait(false);
            await beating.ConfigureAwait(false);
        }
        while (!lost && !await TryAsync(() => EndAsync(code)).ConfigureAwait(false)) await Task.Delay(ReportEvery, time, detach).ConfigureAwait(false);
    }

    /// <summary>Says that the supervisor lives for as long as the trainer does, apart from all else that is done for the run: files that cannot be read
    /// for a while must not make other hosts take it for lost.</summary>
    private async Task BeatAsync(CancellationToken over)
    {
        while (true)
        {
            await Task.Delay(options.BeatEvery, time, over).ConfigureAwait(ConfigureAwaitOptions.SuppressThrowing);
            if (over.IsCancellationRequested) return;
            DateTimeOffset now = time.GetUtcNow();
            await TryAsync(() => ledger.UpdateHeldAsync(folder.Id, owner, row => row.SetProperty(r => r.Heartbeat, now))).ConfigureAwait(false);
        }
    }

    /// <summary>Another host took the run over, because this process stood still for longer than its lease. Two trainers must not work on one run:
    /// this one ends without saving. Where the other watches this very trainer, it works on.</summary>
    private void GiveUp(RunRow row)
    {
        if (row.Trainer is { } theirs && theirs == trainer.Identity with { Foreground = false })
        {
            passedOn = true;
            log.LogWarning("Run {Run} is watched by host {Host} now", folder.Id, row.Host);
        }
        else if (!lost)
        {
            lost = true;
            log.LogWarning("Run {Run} was taken over{By} while this process stood still: its trainer here is killed", folder.Id, row.Host.Length > 0 ? $" by host {row.Host}" : "");
            trainer.Kill();
        }
    }

    public void Dispose() => wake.Dispose();

    /// <summary>A full disk or a busy database must not leave a trainer without its supervisor.</summary>
    private async Task<bool> TryAsync(Func<Task> work)
    {
        try
        {
            await work().ConfigureAwait(false);
            return true;
        }
        catch (Exception e) when (e is DbException or DbUpdateException or IOException or UnauthorizedAccessException)
        {
            log.LogWarning("Run {Run} could not be looked after just now: {Message}", folder.Id, e.Message);
            return false;
        }
    }

    private async Task LookAsync()
    {
        if (await ledger.FindAsync(folder.Id).ConfigureAwait(false) is not { } row) return;
        if (row.LeaseOwner != owner)
        {
            GiveUp(row);
            return;
        }
        (int process, long ticks, _) = trainer.Identity;
        if (row.ProcessId != process || row.ProcessStartTicks != ticks)
            await ledger.UpdateHeldAsync(folder.Id, owner, r => r.SetProperty(x => x.ProcessId, process).SetProperty(x => x.ProcessStartTicks, ticks)).ConfigureAwait(false);
        // Its own word that it holds the folder's lock, and so its handlers for signals, follows soon after.
        bool ready = folder.ReadIdentity() == trainer.Identity;
        if (ready && row.State == RunState.Starting)
        {
            await ledger.MoveAsync(folder.Id, [RunState.Starting], r => r.SetProperty(x => x.State, RunState.Running).SetProperty(x => x.Reason, (string?)null)).ConfigureAwait(false);
        }
        if (row.State == RunState.Stopping) PassOn(row.StopRequest, ready);
        await ReportAsync(row).ConfigureAwait(false);
    }

    private void PassOn(StopRequest request, bool ready)
    {
        if (request == StopRequest.Kill)
        {
            Kill(StopRequest.Kill);
            return;
        }
        if (saveAsked is null)
        {
            folder.RequestStop(StopRequest.Save);
            saveAsked = time.GetTimestamp();
        }
        // Before it is ready a signal would kill it; the file reaches it all the same.
        if (ready && !terminated)
        {
            trainer.Terminate();
            terminated = true;
        }
        if (!killed && time.GetElapsedTime(saveAsked.Value) >= options.StopGrace)
        {
            overdue = true;
            log.LogWarning("Run {Run} did not save within {Seconds} s of being asked: its trainer is killed", folder.Id, options.StopGrace.TotalSeconds);
            Kill(StopRequest.Save);
        }
    }

    private void Kill(StopRequest request)
    {
        if (killed) return;
        folder.RequestStop(request);
        trainer.Kill();
        killed = true;
    }

    private async Task ReportAsync(RunRow row)
    {
        TimeSpan since = time.GetElapsedTime(reported);
        if (since < ReportEvery) return;
        reported = time.GetTimestamp();
        position.Read();
        await ReportStallAsync(row).ConfigureAwait(false);
        (long Step, long MaxSteps)? done = position.Done(row.Kind);
        if (done == lastDone) return;
        await WriteProgressAsync(done).ConfigureAwait(false);
        lastDone = done;
    }

    /// <summary>Says so where a trainer is silent, and takes it back when it is not any more. The trainer watches itself too, but one that is stuck entirely
    /// cannot tell.</summary>
    private async Task ReportStallAsync(RunRow run)
    {
        if (stallLimit <= TimeSpan.Zero) return;
        if (position.Worked != worked.Event)
        {
            worked = (position.Worked, time.GetTimestamp());
            if (!stalled) return;
            stalled = !await ledger.MoveAsync(folder.Id, [RunState.Running], row => row.SetProperty(r => r.Reason, (string?)null)).ConfigureAwait(false);
            return;
        }
        TimeSpan silent = time.GetElapsedTime(worked.Time);
        if (stalled || silent < stallLimit) return;
        string reason =
            $"{RunRow.StalledReason}no news from the trainer for {Commands.TerminalProgress.Duration(silent.TotalSeconds)}; if none comes, stop it and resume, which goes on from the last checkpoint";
        stalled = await ledger.MoveAsync(folder.Id, [RunState.Running], row => row.SetProperty(r => r.Reason, reason)).ConfigureAwait(false);
        if (!stalled) return;
        notices.Stalled(run, reason, worked.Event);
        log.LogWarning("Run {Run} is stalled: no news from its trainer for {Seconds:0} s", folder.Id, silent.TotalSeconds);
    }

    /// <summary>A little more than the trainer's own, whose news of a long step may be some seconds late.</summary>
    private static TimeSpan StallLimit(RunFolder folder)
    {
        try
        {
            RunConfig config = folder.Read().Config;
            return config.Kind.Trains() ? TimeSpan.FromMinutes(1.25 * config.Training.StallMinutes) : TimeSpan.Zero;
        }
        // A run.json that was damaged meanwhile must not leave its trainer without anybody who looks after it.
        catch (Exception e) when (e is UserException or IOException or UnauthorizedAccessException) { return TimeSpan.Zero; }
    }

    private Task<bool> WriteProgressAsync((long Step, long MaxSteps)? done)
    {
        DateTimeOffset now = time.GetUtcNow();
        return ledger.UpdateHeldAsync(folder.Id, owner, row =>
        {
            row.SetProperty(r => r.Heartbeat, now);
            if (done is var (step, steps)) row.SetProperty(r => r.Step, step).SetProperty(r => r.MaxSteps, steps);
        });
    }

    private async Task EndAsync(int? code)
    {
        position.Read();
        if (await ledger.FindAsync(folder.Id).ConfigureAwait(false) is not { } row || row.LeaseOwner != owner) return;
        await WriteProgressAsync(position.Done(row.Kind)).ConfigureAwait(false);
        EndedEvent? ended = position.LastEnd is { } last && last.Sequence > row.SequenceBefore ? last : null;
        TrainerEnd end = new(code, ended, TrainerEnd.NewestCheckpoint(folder), TrainerEnd.LastLogLine(folder), row.StopRequest, overdue) { Sequence = position.Last };
        bool theirs = trainer.Identity.Foreground;
        if (end.StoppedByOthers && !theirs) await Task.Delay(SignalsApart, time, closing).ConfigureAwait(ConfigureAwaitOptions.SuppressThrowing);
        await ending.SeenAsync(row, end, theirs, closing.IsCancellationRequested).ConfigureAwait(false);
    }
}
