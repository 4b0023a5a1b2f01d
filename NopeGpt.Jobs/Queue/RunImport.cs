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
        Device = record.Config.Device,
        MaxSteps = record.Config.Kind.Trains() ? RunLength.Scheduled(record.Config, null) ?? 0 : 100,
    };

    /// <summary>Takes over what people and the queue said.</summary>
    public static void TakeCard(RunRow row, RunCard card)
    {
        (row.Priority, row.QueuePosition, row.Held, row.NotBefore) = (card.Priority, card.Position, card.Held, card.NotBefore);
        (row.Tags, row.Notes, row.Group) = (string.Join(',', card.Tags), card.Notes, card.Group);
        (row.Parent, row.ParentStep) = (card.Parent, card.ParentStep);
    }

    /// <summary>The row of a run as its folder tells it: the last orderly end decides; a trainer that lives makes it running; anything else
    /// is interrupted.</summary>
    /// <exception cref="UserException">run.json is damaged or of a newer version.</exception>
    public static RunRow Row(RunFolder folder, DateTimeOffset now)
    {
        RunRow row = Row(folder.Read());
        // A folder that was copied under another name is another run.
        row.Id = folder.Id;
        RunCard card = folder.ReadCard();
        TakeCard(row, card);
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
        row.BestStep = TrainerEnd.NewestCheckpoint(folder) ?? -1;
        row.SequenceBefore = position.Last;
        if (card.Waiting && position.LastEnd is not { State: RunState.Completed })
        {
            row.State = RunState.Queued;
            return row;
        }
        row.Ended = position.LastEnd?.Time ?? now;
        (row.State, row.Reason) = position.Began is null && position.Ended is null
            ? (RunState.Interrupted, "it has not begun, and its place in the queue is not known any more; resume to queue it")
            : Reconciler.Fate(folder, position.LastEnd).DecideLater();
        return row;
    }
}
