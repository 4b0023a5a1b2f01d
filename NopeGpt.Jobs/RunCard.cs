namespace NopeGpt.Jobs;

/// <summary>card.json: what people and the queue say of a run beside its config. A copy of fields of the run table, so that the table can be made anew from the folders;
/// the pinned checkpoints are its own.</summary>
public sealed record RunCard
{
    /// <summary>The queue has it: it waits there, or is at work, or goes on by itself.</summary>
    public bool Waiting { get; init; }

    /// <summary>Number of the run's last event when <see cref="Waiting"/> became true: an end that is told later is the newer word.</summary>
    public long Sequence { get; init; }

    /// <summary>Why it was taken out of the queue; null where it was not.</summary>
    public string? Cancelled { get; init; }

    /// <summary>The run because of which it was taken out; empty for none.</summary>
    public string Fault { get; init; } = "";

    public int Priority { get; init; }

    /// <summary>Its place in the queue: smaller goes first.</summary>
    public long Position { get; init; }

    /// <summary>A person holds it.</summary>
    public bool Held { get; init; }

    public DateTimeOffset? NotBefore { get; init; }

    public IReadOnlyList<string> Tags { get; init; } = [];

    public string Notes { get; init; } = "";

    /// <summary>What runs of one sweep have in common.</summary>
    public string Group { get; init; } = "";

    /// <summary>The run that it was duplicated or forked from.</summary>
    public string Parent { get; init; } = "";

    public long? ParentStep { get; init; }

    /// <summary>Steps of checkpoints that are never deleted by themselves.</summary>
    public IReadOnlyList<long> Pinned { get; init; } = [];

    // Lists are compared by what is in them.
    public bool Equals(RunCard? other) => other is not null && Waiting == other.Waiting && Sequence == other.Sequence && Cancelled == other.Cancelled && Fault == other.Fault && Priority == other.Priority && Position == other.Position && Held == other.Held
        && NotBefore == other.NotBefore && Notes == other.Notes && Group == other.Group && Parent == other.Parent && ParentStep == other.ParentStep
        && Tags.SequenceEqual(other.Tags) && Pinned.SequenceEqual(other.Pinned);

    public override int GetHashCode() => HashCode.Combine(Waiting, Priority, Position, Held, NotBefore, Notes, Group);
}
