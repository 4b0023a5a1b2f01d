using Microsoft.Extensions.Logging;

namespace NopeGpt.Jobs.Queue;

/// <summary>Writes what follows the end of a run's trainer: an end that stays, or another attempt by itself.</summary>
internal sealed class RunEnding(RunLedger ledger, QueueSwitch settings, QueueOptions options, RunNotices notices, TimeProvider time, ILogger<RunEnding> log)
{
    private readonly RetryPolicy policy = new(options.Attempts, options.RetryPause);

    /// <summary>A trainer ended that was watched.</summary>
    /// <param name="theirs">A person started it on a terminal, and says what comes next.</param>
    /// <param name="closing">The dashboard closes, and whoever closes it may have signalled the trainer, too.</param>
    public Task SeenAsync(RunRow row, TrainerEnd end, bool theirs, bool closing)
    {
        (RunState state, string? reason) = end.Decide();
        if (state == RunState.Interrupted && (row.ResumesItself || (closing && !theirs && (end.Died || end.StoppedByOthers))))
            return EndAsync(row, state, $"the dashboard was closed ({reason}); it goes on by itself when the dashboard starts again", end, goesOn: true);
        return end.Died && !theirs && policy.TriesAgain ? DiedAsync(row, end) : EndAsync(row, state, reason, end);
    }

    /// <summary>A trainer ended while nobody watched.</summary>
    /// <param name="theirs">As for <see cref="SeenAsync"/>.</param>
    public async Task UnseenAsync(RunRow row, TrainerEnd end, bool theirs, CancellationToken cancel)
    {
        (RunState state, string? reason) = end.DecideLater();
        if (theirs || (!end.Died && !(state == RunState.Interrupted && row.ResumesItself))) await EndAsync(row, state, reason, end).ConfigureAwait(false);
        else if (row.ResumesItself)
        {
            await EndAsync(row, RunState.Interrupted, reason, end, goesOn: true).ConfigureAwait(false);
            await ledger.MoveAsync(row.Id, [RunState.Interrupted], RunLedger.Queue, cancel).ConfigureAwait(false);
        }
        else if (!policy.TriesAgain) await EndAsync(row, state, reason, end).ConfigureAwait(false);
        else if (row.Kind.Trains() && end.Checkpoint is null)
        {
            await EndAsync(row, RunState.Failed, "the trainer ended while the dashboard was not there to see it, before its first checkpoint; resume to begin anew", end).ConfigureAwait(false);
        }
        else await DiedAsync(row, end).ConfigureAwait(false);
    }

    /// <summary>The run could not even be begun.</summary>
    public Task FailedAsync(RunRow row, string reason) => EndAsync(row, RunState.Failed, reason);

    private async Task DiedAsync(RunRow row, TrainerEnd end)
    {
        // Preparing goes on from its last whole part; what else has no checkpoints begins anew.
        Retry retry = policy.After(row.Fruitless, row.BestStep, row.Kind == RunKind.Prepare ? row.Step : end.Checkpoint);
        string where = end.Checkpoint is { } step ? $"from step {step}" : row.Kind == RunKind.Prepare ? "from its last finished part" : "from the beginning";
        if (retry.Pause is not { } pause)
        {
            string limit = retry.Fruitless > 1 ? $"; {retry.Fruitless} attempts got no further ({where}), so it is not tried again by itself" : "";
            await EndAsync(row, RunState.Failed, $"{end.What}{limit}; resume to try again", end).ConfigureAwait(false);
            return;
        }
        string reason = $"{end.What}; it goes on {where} by itself after a pause of {Commands.TerminalProgress.Duration(pause.TotalSeconds)}";
        if (!await ledger.RetryAsync(row.Id, reason, retry, time.GetUtcNow() + pause, row.LeaseOwner).ConfigureAwait(false)) return;
        log.LogWarning("Run {Run}: {Reason}", row.Id, reason);
    }

    /// <param name="end">How its trainer ended; null where it had none.</param>
    private async Task EndAsync(RunRow row, RunState state, string? reason, TrainerEnd? end = null, bool goesOn = false)
    {
        // Before the run's end is known: else the next one could start in between.
        bool paused = state == RunState.Failed && settings.Failed(row);
        IReadOnlyList<string> told = goesOn ? [] : notices.Ending(row, state, reason, end, paused);
        if (!await ledger.EndAsync(row.Id, state, reason, time.GetUtcNow(), goesOn, row.LeaseOwner, end?.Sequence ?? 0).ConfigureAwait(false))
        {
            notices.Withdraw(told);
            return;
        }
        notices.Release(told);
        // Another host may have room for it now.
        if (goesOn && options.IsShared) await ledger.MoveAsync(row.Id, [RunState.Interrupted], RunLedger.Queue).ConfigureAwait(false);
        log.LogInformation("Run {Run} {State}{Reason}", row.Id, Words.Of(state), reason is null ? "" : ": " + reason);
    }
}
