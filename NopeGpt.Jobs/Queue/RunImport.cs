namespace NopeGpt.Jobs.Queue;

/// <summary>Rows from run folders.</summary>
internal static class RunImport
{
    /// <summary>The row of a run that has not begun.</summary>
    /// <param name="card">What people say of it; null for nothing.</param>
    public static RunRow Row(RunRecord record, RunCard? card = null)
    {
        card ??= new();
        return new()
        {
            Id = record.Id,
            Name = record.Config.Name,
            Kind = record.Config.Kind,
            Created = record.Created,
            After = string.Join(',', record.After),
            Device = record.Config.Device,
            MaxSteps = record.Config.Kind.Trains() ? RunLength.Scheduled(record.Config, null) ?? 0 : 100,
            Priority = card.Priority,
            QueuePosition = card.Position,
            Held = card.Held,
            NotBefore = card.NotBefore,
            Tags = string.Join(',', card.Tags),
            Notes = card.Notes,
            Group = card.Group,
            Parent = card.Parent,
            ParentStep = card.ParentStep,
            BestStep = card.ParentStep ?? -1,
        };
    }

    /// <summary>The card that the row's folder is to have.</summary>
    /// <param name="card">The one that it has.</param>
    public static RunCard Card(RunRow row, RunCard card) => card with
    {
        Waiting = row.ResumesItself || row.State is RunState.Queued or RunState.Starting or RunState.Running,
        Cancelled = row.State == RunState.Cancelled ? row.Reason ?? "" : null,
        Fault = row.Fault,
        Priority = row.Priority,
        Position = row.QueuePosition,
        Held = row.Held,
        NotBefore = row.NotBefore,
        Tags = row.TagList,
        Notes = row.Notes,
        Group = row.Group,
        Parent = row.Parent,
        ParentStep = row.ParentStep,
    };

    /// <summary>The row of a run as its folder tells it: the last orderly end decides; a trainer that lives makes it running; what the queue had goes on
    /// waiting, or has its unseen end settled by the reconciler; anything else is interrupted.</summary>
    /// <exception cref="UserException">run.json is damaged or of a newer version.</exception>
    public static RunRow Row(RunFolder folder, DateTimeOffset now)
    {
        RunCard card = folder.ReadCard();
        RunRow row = Row(folder.Read(), card);
        // A folder that was copied under another name is another run.
        row.Id = folder.Id;
        RunPosition position = new(folder);
        position.Read();
        (row.Step, row.MaxSteps) = position.Done(row.Kind) ?? (0, row.MaxSteps);
        row.Attempt = position.Began?.Attempt ?? 0;
        row.Started = position.Began?.Time;
        row.BestStep = TrainerEnd.NewestCheckpoint(folder) ?? -1;
        if (Reconciler.LiveTrainer(folder, null) is { } trainer)
        {
            (row.State, row.ProcessId, row.ProcessStartTicks) = (RunState.Running, trainer.ProcessId, trainer.StartTicks);
            if (position.Began is { } began && began.ProcessId == trainer.ProcessId) row.Devices = Devices(began.Device);
            return row;
        }
        bool ended = position.LastEnd is { } end && (end.Sequence > card.Sequence || end.State == RunState.Completed);
        if (card.Waiting && !ended)
        {
            bool begun = position.Last > card.Sequence && position.Began?.Sequence > card.Sequence;
            row.SequenceBefore = card.Sequence;
            row.State = begun ? RunState.Running : RunState.Queued;
            return row;
        }
        row.Ended = position.LastEnd?.Time ?? now;
        if (card.Cancelled is { } cancelled && !ended)
        {
            (row.State, row.Reason, row.Fault) = (RunState.Cancelled, cancelled, card.Fault);
            return row;
        }
        (row.State, row.Reason) = position.Began is null && position.Ended is null
            ? (RunState.Interrupted, "it has not begun, and its place in the queue is not known any more; resume to queue it")
            : Reconciler.Fate(folder, position.LastEnd).DecideLater();
        return row;
    }

    /// <summary>The devices in a trainer's own words: "cuda:1, cuda:0", or "cpu, 2 threads"; empty where there are none.</summary>
    private static string Devices(string words) => string.Join(',', words.Split(", ").Where(w => DeviceRequest.Parse(w) is { Wish: DeviceWish.Cpu or DeviceWish.NamedGpus }));
}
