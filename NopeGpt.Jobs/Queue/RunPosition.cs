namespace NopeGpt.Jobs.Queue;

/// <summary>What a run's events say about where it stands; each <see cref="Read"/> takes in only what was written since the last.</summary>
internal sealed class RunPosition(RunFolder folder)
{
    private readonly EventTail tail = new(folder.EventsPath);

    /// <summary>The newest start; null before the first.</summary>
    public StartedEvent? Began { get; private set; }

    /// <summary>The newest orderly end; it may belong to an earlier attempt than the newest start.</summary>
    public EndedEvent? Ended { get; private set; }

    /// <summary>The newest numbers of an optimizer step.</summary>
    public MetricsEvent? Metrics { get; private set; }

    /// <summary>The newest progress of work that is not counted in steps.</summary>
    public ProgressEvent? Progress { get; private set; }

    /// <summary>The end of the newest attempt; null where it had none, or goes on.</summary>
    public EndedEvent? LastEnd => Ended is not null && (Began is null || Ended.Sequence > Began.Sequence) ? Ended : null;

    /// <summary>Number of the newest event that tells of work; a trainer's warning that it stands still is none.</summary>
    public long Worked { get; private set; }

    /// <summary>Number of the newest event; 0 before the first.</summary>
    public long Last { get; private set; }

    public void Read()
    {
        foreach (TrainingEvent happened in tail.Read()) Take(happened);
    }

    /// <summary>Done and whole in the units of <see cref="RunRow.Step"/>; null while nothing is known.</summary>
    public (long Step, long MaxSteps)? Done(RunKind kind) =>
        kind.Trains()
            ? Metrics is { MaxSteps: > 0 } metrics ? (metrics.Step, metrics.MaxSteps) : null
            : Progress is { } progress && double.IsFinite(progress.Fraction) ? ((long)Math.Round(100 * Math.Clamp(progress.Fraction, 0, 1)), 100) : null;

    private void Take(TrainingEvent happened)
    {
        Last = happened.Sequence;
        if (happened is not WarningEvent) Worked = happened.Sequence;
        switch (happened)
        {
            case StartedEvent began: Began = began; break;
            case EndedEvent ended: Ended = ended; break;
            case MetricsEvent metrics: Metrics = metrics; break;
            case ProgressEvent progress: Progress = progress; break;
        }
    }
}
