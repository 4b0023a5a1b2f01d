using System.Text.Json;
using System.Text.Json.Serialization;

namespace NopeGpt.Jobs.Queue;

/// <summary>What a notice tells of.</summary>
internal enum NoticeEvent
{
    Finished,
    Failed,

    /// <summary>Loss or gradient was not finite.</summary>
    Diverged,

    /// <summary>It works and has said nothing for long.</summary>
    Stalled,

    /// <summary>Its trainer was killed, and it does not go on by itself.</summary>
    Interrupted,

    /// <summary>It failed, and the queue stopped at that.</summary>
    QueuePaused,
}

/// <summary>What a webhook gets, as JSON in snake_case.</summary>
/// <param name="Id">The same each time that a notice is sent: a receiver that compares it takes none twice.</param>
/// <param name="Text">One sentence for people; chat services show it.</param>
/// <param name="Url">The run's page; null where no dashboard's address is known.</param>
/// <param name="Host">The name of the machine.</param>
/// <param name="Time">When it happened, UTC.</param>
internal sealed record RunNotice(string Id, NoticeEvent Event, string Text, NoticeRun Run, string? Url, string Host, DateTimeOffset Time)
{
    public string ToJson() => JsonSerializer.Serialize(this, Json);

    private static JsonSerializerOptions Json { get; } = new(TrainingEvent.Json) { DefaultIgnoreCondition = JsonIgnoreCondition.Never };
}

/// <param name="Reason">Why it ended so; null where the state says enough.</param>
/// <param name="Step">Optimizer steps done of MaxSteps; of what has no steps, percent.</param>
/// <param name="Metrics">The last value of each, as far as the end of its events tells; "NaN" where one is not a number.</param>
internal sealed record NoticeRun(string Id, string Name, RunKind Kind, RunState State, string? Reason, long Step, long MaxSteps, IReadOnlyDictionary<string, double> Metrics);
