using NopeGpt.Jobs.Queue;
using NopeGpt.Model.Storage;
using NopeGpt.Tests;

namespace NopeGpt.Jobs.Tests.Faults;

/// <summary>A moment in the life of a trainer.</summary>
public enum KillMoment
{
    BeforeItsLock,
    LockedAndSilent,
    LoadingItsLibraries,
    InTheFirstStep,
    InTheMidstOfAStep,
    InTheMidstOfACheckpoint,
    BetweenACheckpointAndItsEvent,
    InTheMidstOfAnEvaluation,
    InTheMidstOfTheLastCheckpoint,
    AfterItsLastWords,
}

/// <summary>Looks at a trainer from outside until it comes to a moment, and kills it there. The process is frozen first and looked at again, so that the moment
/// is certain; one that has passed in between is waited for anew.</summary>
/// <param name="log">Held as soon as the trainer works; null for an ordinary one.</param>
internal sealed class MomentWatch(int process, RunFolder run, RunConfig config, HeldLog? log = null)
{
    private static readonly TimeSpan Patience = TimeSpan.FromSeconds(60);
    private readonly EventTail tail = new(run.EventsPath);
    private readonly List<TrainingEvent> told = [];

    public async Task KillAtAsync(KillMoment moment)
    {
        await Task.Run(() =>
        {
            long start = TimeProvider.System.GetTimestamp();
            while (true)
            {
                if (!ProcessSignals.IsAlive(process) || TimeProvider.System.GetElapsedTime(start) > Patience)
                    throw new TimeoutException($"the moment {moment} did not come; {told.Count} events, the last {told.LastOrDefault()}; {(log is null && File.Exists(run.LogPath) ? File.ReadAllText(run.LogPath) : "no log")}");
                if (!Holds(moment))
                {
                    if (told is [.., MetricsEvent]) log?.Hold();
                    continue;
                }
                ProcessSignals.Freeze(process);
                if (ProcessSignals.IsAlive(process) && Holds(moment)) break;
                ProcessSignals.Continue(process);
            }
            log?.Replace();
            ProcessSignals.Kill(process);
        });
    }

    private bool Holds(KillMoment moment)
    {
        told.AddRange(tail.Read());
        bool locked = run.ReadIdentity()?.ProcessId == process;
        return moment switch
        {
            KillMoment.BeforeItsLock => !locked,
            KillMoment.LockedAndSilent => locked && told.Count == 0,
            KillMoment.LoadingItsLibraries => locked && told.Count == 0 && Maps().Contains("libtorch", StringComparison.Ordinal),
            KillMoment.InTheFirstStep => told is [.., StartedEvent],
            KillMoment.InTheMidstOfAStep => told is [.., MetricsEvent { Step: > 2 } step] && step.Values.ContainsKey("train/loss") && !Evaluates(step.Step) && !Saves(step.Step),
            KillMoment.InTheMidstOfACheckpoint => told.OfType<CheckpointEvent>().Any() && Unfinished().Length > 0,
            KillMoment.BetweenACheckpointAndItsEvent => Checkpoint.List(run.CheckpointsPath) is [var (_, step), ..] && !told.OfType<CheckpointEvent>().Any(c => c.Step == step),
            KillMoment.InTheMidstOfAnEvaluation => told is [.., MetricsEvent step] && step.Values.ContainsKey("train/loss") && Evaluates(step.Step),
            KillMoment.InTheMidstOfTheLastCheckpoint => Unfinished().Any(u => u.StartsWith($".{Checkpoint.FolderName(config.Training.MaxSteps)}.", StringComparison.Ordinal)),
            KillMoment.AfterItsLastWords => told is [.., EndedEvent],
            _ => throw new ArgumentOutOfRangeException(nameof(moment), moment, null),
        };
    }

    private bool Evaluates(long step) => step % config.Training.EvalInterval == 0;

    private bool Saves(long step) => step % config.Training.CheckpointInterval == 0;

    private string[] Unfinished() => Directory.Exists(run.CheckpointsPath) ? [.. Directory.EnumerateDirectories(run.CheckpointsPath, ".*.tmp").Select(p => Path.GetFileName(p))] : [];

    private string Maps()
    {
        try { return File.ReadAllText($"/proc/{process}/maps"); }
        catch (IOException) { return ""; }
    }
}
