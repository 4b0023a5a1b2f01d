namespace NopeGpt.Jobs;

/// <summary>Where a run stands.</summary>
public enum RunState
{
    /// <summary>Waits for its turn, a device or another run; the reason says for what.</summary>
    Queued,

    /// <summary>Its trainer process is being started.</summary>
    Starting,

    Running,

    /// <summary>A stop was asked for; the trainer saves and ends.</summary>
    Stopping,

    /// <summary>Not finished; goes on from its last checkpoint when asked.</summary>
    Interrupted,

    Completed,

    Failed,

    /// <summary>Taken out of the queue before it had begun, by a person or because a run it waits for did not complete.</summary>
    Cancelled,
}

/// <summary>Groups of states, each named once.</summary>
public static class RunStates
{
    /// <summary>A host has the run: its trainer is being started, works or saves.</summary>
    public static RunState[] Working { get; } = [RunState.Starting, RunState.Running, RunState.Stopping];

    /// <summary>Ended unfinished: a person may let it go on.</summary>
    public static RunState[] Resumable { get; } = [RunState.Interrupted, RunState.Failed, RunState.Cancelled];

    /// <summary>Waits or is worked on.</summary>
    public static RunState[] Active { get; } = [RunState.Queued, .. Working];

    public static RunState[] Ended { get; } = [RunState.Completed, .. Resumable];
}

/// <summary>How a trainer process ended. The numbers are a contract.</summary>
public static class ExitCode
{
    public const int Done = 0;
    public const int Defect = 1;
    public const int BadConfiguration = 2;
    public const int StoppedAndSaved = 3;
    public const int Diverged = 4;
    public const int OutOfMemory = 5;
    public const int DiskFull = 6;
}
