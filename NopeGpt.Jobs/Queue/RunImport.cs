namespace NopeGpt.Jobs.Queue;

/// <summary>Rows from run folders.</summary>
internal static class RunImport
{
    /// <summary>The row of a run that has not begun.</summary>
    public static RunRow Row(RunRecord record) => new()
    {
        Id = record.Id,
        Name = record.Config.Name,
        Kind = record.Config.Kind,
        Created = record.Created,
        After = string.Join(',', record.After),
        MaxSteps = record.Config.Kind.Trains() ? RunLength.Scheduled(record.Config, null) ?? 0 : 100,
    };

    /// <summary>The row of a run as its folder tells it: the last orderly end decides; a trainer that lives makes it running; anything else
    /// is interrupted.</summary>
    /// <exception cref="UserException">run.json is damaged or of a newer version.</exception>
    public static RunRow Row(RunFolder folder, DateTimeOffset now)
    {
        RunRow row = Row(folder.Read());
        // A folder that was copied under another name is another run.
        row.Id = folder.Id;
        RunPosition position = new(folder);
        position.Read();
        (row.Step, row.MaxSteps) = position.Done(row.Kind) ?? (0, row.MaxSteps);
        row.Attempt = position.Began?.Attempt ?? 0;
        row.Started = position.Began?.Time;
        if (Reconciler.LiveTrainer(folder, null) is { } trainer)
        {
            (row.State, row.ProcessId, row.ProcessStartTicks) = (RunState.Running, trainer.ProcessId, trainer.StartTicks);
            return row;
        }
        row.Ended = position.LastEnd?.Time ?? now;
        (row.State, row.Reason) = position.Began is null && position.Ended is null
            ? (RunState.Interrupted, "it has not begun, and its place in the queue is not known any more; resume to queue it")
            : Reconciler.Fate(folder, position.LastEnd).DecideLater();
        return row;
    }
}
