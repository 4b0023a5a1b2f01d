using NopeGpt.Jobs;

namespace NopeGpt.Web.Live;

/// <summary>What a run has told so far, at one moment.</summary>
/// <param name="Sequence">The last event's sequence number; 0 before the first.</param>
/// <param name="Step">Optimizer steps done; after a resume those of the checkpoint it went on from.</param>
/// <param name="MaxSteps">Steps of the whole run; 0 where the work is not counted in steps.</param>
/// <param name="Tokens">Training tokens seen.</param>
/// <param name="EtaSeconds">Expected time to the end (of the stage, where it is not optimizer steps), as the trainer last said.</param>
/// <param name="Stage">What is being done, in words, where it is not optimizer steps.</param>
/// <param name="Fraction">Done part of the whole run, 0 to 1.</param>
/// <param name="Metrics">The last value of each metric; may be NaN or infinite.</param>
/// <param name="Checkpoints">Those that still lie in the run's folder, by step.</param>
/// <param name="Samples">Texts that the model wrote, oldest first; the last <see cref="RunHistory.MostTexts"/>.</param>
/// <param name="Warnings">Oldest first; the last <see cref="RunHistory.MostTexts"/>.</param>
/// <param name="LastEvent">When the trainer last said something.</param>
/// <param name="Attempts">Starts of the trainer: 1 plus the resumes.</param>
public sealed record RunSnapshot(
    long Sequence,
    long Step,
    long MaxSteps,
    long Tokens,
    double? EtaSeconds,
    string? Stage,
    double Fraction,
    IReadOnlyDictionary<string, double> Metrics,
    IReadOnlyList<CheckpointEvent> Checkpoints,
    IReadOnlyList<SampleEvent> Samples,
    IReadOnlyList<WarningEvent> Warnings,
    DateTimeOffset? LastEvent,
    int Attempts)
{
    /// <summary>Text that the stage works through in a second; null where that is not known.</summary>
    public double? BytesPerSecond { get; init; }

    /// <summary>A run that has not said anything yet, or that does not exist.</summary>
    public static RunSnapshot Empty { get; } = new(0, 0, 0, 0, null, null, 0, new Dictionary<string, double>(), [], [], [], null, 0);
}
