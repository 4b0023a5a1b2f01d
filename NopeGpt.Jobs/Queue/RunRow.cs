namespace NopeGpt.Jobs.Queue;

/// <summary>One run in the table: its place in the queue and who works on it. The run's folder stays the truth about everything else.</summary>
public sealed class RunRow
{
    public string Id { get; set; } = "";
    public string Name { get; set; } = "";
    public RunKind Kind { get; set; }
    public RunState State { get; set; }

    /// <summary>One sentence for people: what it waits for, or why it ended as it did; null where the state says enough.</summary>
    public string? Reason { get; set; }

    public DateTimeOffset Created { get; set; }

    /// <summary>When the newest attempt began.</summary>
    public DateTimeOffset? Started { get; set; }

    /// <summary>When the newest attempt ended; null while the run waits or works.</summary>
    public DateTimeOffset? Ended { get; set; }

    /// <summary>Greater goes first, whatever the place.</summary>
    public int Priority { get; set; }

    /// <summary>Its place among those of its priority: smaller goes first.</summary>
    public long QueuePosition { get; set; }

    /// <summary>A person holds it: it keeps its place and does not start.</summary>
    public bool Held { get; set; }

    /// <summary>It does not start before; null for no such wish.</summary>
    public DateTimeOffset? NotBefore { get; set; }

    /// <summary>Short words for people, separated by commas; empty for none.</summary>
    public string Tags { get; set; } = "";

    /// <summary>Free text of people.</summary>
    public string Notes { get; set; } = "";

    /// <summary>What runs of one sweep have in common; empty for none.</summary>
    public string Group { get; set; } = "";

    /// <summary>The run that it was duplicated or forked from; empty for none.</summary>
    public string Parent { get; set; } = "";

    /// <summary>The step of the parent's checkpoint that a fork went on from; null where it began anew.</summary>
    public long? ParentStep { get; set; }

    /// <summary>What it asks to work on, as its config has it: auto, cpu, cuda:0,cuda:1 ...</summary>
    public string Device { get; set; } = "auto";

    /// <summary>What it was given to work on, separated by commas; empty while it waits.</summary>
    public string Devices { get; set; } = "";

    /// <summary>The host that works on it or did last (see Jobs:Host); empty before the first.</summary>
    public string Host { get; set; } = "";

    /// <summary>Trainers that were started for this run.</summary>
    public int Attempt { get; set; }

    /// <summary>Attempts that died one after the other without getting further than any before.</summary>
    public int Fruitless { get; set; }

    /// <summary>The furthest checkpoint that any attempt left; -1 for none.</summary>
    public long BestStep { get; set; } = -1;

    /// <summary>After a crash it does not start again before; null where no crash is to be waited out.</summary>
    public DateTimeOffset? RetryAt { get; set; }

    /// <summary>Number of the last event before the newest attempt, and after its end that of its last event: what is told later belongs to an attempt that is not
    /// dealt with yet.</summary>
    public long SequenceBefore { get; set; }

    public StopRequest StopRequest { get; set; }

    /// <summary>Ids of the runs that must have completed first, separated by commas; empty for none.</summary>
    public string After { get; set; } = "";

    /// <summary>The run because of which this one is cancelled, with which it goes back into the queue; empty for none, and where a person took it out.</summary>
    public string Fault { get; set; } = "";

    /// <summary>True where the dashboard stopped the run because it closed itself: the run goes on when the dashboard starts again.</summary>
    public bool ResumesItself { get; set; }

    /// <summary>The process that supervises the trainer, as host/process/start; null while nobody does.</summary>
    public string? LeaseOwner { get; set; }

    public int? ProcessId { get; set; }

    /// <summary>See <see cref="TrainerIdentity"/>.</summary>
    public long? ProcessStartTicks { get; set; }

    /// <summary>When the lease's owner last said that it lives.</summary>
    public DateTimeOffset? Heartbeat { get; set; }

    /// <summary>Optimizer steps done (pretrain), else percent done.</summary>
    public long Step { get; set; }

    /// <summary>Optimizer steps of the whole run (pretrain), else 100.</summary>
    public long MaxSteps { get; set; }

    /// <summary>The runs of <see cref="After"/>.</summary>
    public IReadOnlyList<string> Predecessors => After.Split(',', StringSplitOptions.RemoveEmptyEntries);

    /// <summary>The words of <see cref="Tags"/>.</summary>
    public IReadOnlyList<string> TagList => Tags.Split(',', StringSplitOptions.RemoveEmptyEntries);

    /// <summary>It works, and its trainer has said nothing for long.</summary>
    public bool IsStalled => State == RunState.Running && Reason?.StartsWith(StalledReason, StringComparison.Ordinal) == true;

    /// <summary>How the reason of a run begins whose trainer is silent.</summary>
    internal const string StalledReason = "stalled: ";

    /// <summary>The devices of <see cref="Devices"/>.</summary>
    public IReadOnlyList<string> DeviceList => Devices.Split(',', StringSplitOptions.RemoveEmptyEntries);

    /// <summary>What people call it.</summary>
    public string Title => Name.Length > 0 ? Name : Id;

    /// <summary>The trainer that was last started for it.</summary>
    public TrainerIdentity? Trainer => ProcessId is { } id && ProcessStartTicks is { } ticks ? new TrainerIdentity(id, ticks) : null;
}
