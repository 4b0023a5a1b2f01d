using Hangfire;

namespace NopeGpt.Jobs.Queue;

/// <summary>What Hangfire runs: it wakes the supervisor of a run. The lease makes a second delivery harmless, and the run table decides what
/// happens next, so Hangfire never tries again by itself.</summary>
/// <remarks>Public because Hangfire calls it by its type and method name.</remarks>
public sealed class TrainingJob
{
    private readonly Supervisor supervisor;

    internal TrainingJob(Supervisor supervisor) => this.supervisor = supervisor;

    /// <summary>Ends with the trainer.</summary>
    /// <exception cref="OperationCanceledException">Hangfire's server stops, or someone took the job from it: the job is not done, and must not
    /// count as done. The supervisor looks after the trainer all the same.</exception>
    [AutomaticRetry(Attempts = 0)]
    public Task RunAsync(string runId, CancellationToken cancel) => supervisor.StartAsync(runId).WaitAsync(cancel);
}
