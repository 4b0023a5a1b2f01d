using System.Text.Json;
using System.Text.Json.Serialization;

namespace NopeGpt.Jobs;

/// <summary>One thing that happened in a run: a line of events.jsonl and, in the same JSON, a message to the hub.
/// The sequence counts from 1 within a run, without gaps, over all its attempts.</summary>
[JsonPolymorphic(TypeDiscriminatorPropertyName = "type")]
[JsonDerivedType(typeof(StartedEvent), "started")]
[JsonDerivedType(typeof(ProgressEvent), "progress")]
[JsonDerivedType(typeof(MetricsEvent), "metrics")]
[JsonDerivedType(typeof(SampleEvent), "sample")]
[JsonDerivedType(typeof(CheckpointEvent), "checkpoint")]
[JsonDerivedType(typeof(WarningEvent), "warning")]
[JsonDerivedType(typeof(EndedEvent), "ended")]
public abstract record TrainingEvent
{
    public long Sequence { get; init; }

    public DateTimeOffset Time { get; init; }

    /// <summary>The one JSON shape of events, in the file and on the wire: snake_case, NaN and infinities as named literals.</summary>
    public static JsonSerializerOptions Json { get; } = new(JsonSerializerDefaults.General)
    {
        PropertyNamingPolicy = JsonNamingPolicy.SnakeCaseLower,
        DictionaryKeyPolicy = null,
        NumberHandling = JsonNumberHandling.AllowNamedFloatingPointLiterals,
        DefaultIgnoreCondition = JsonIgnoreCondition.WhenWritingNull,
        Converters = { new JsonStringEnumConverter(JsonNamingPolicy.SnakeCaseLower, allowIntegerValues: false) },
        AllowOutOfOrderMetadataProperties = true,
    };
}

/// <summary>A trainer process began or went on: the start of a segment of the curves. What earlier events say of steps after FromStep holds no more:
/// a killed trainer had done them, and they are done and told again.</summary>
/// <param name="Attempt">1 for the first start, then one more for each resume.</param>
/// <param name="FromStep">The step of the checkpoint it goes on from; 0 at the first start.</param>
/// <param name="Device">For example "cpu, 2 threads, libtorch 2.10.0".</param>
public sealed record StartedEvent(int Attempt, long FromStep, int ProcessId, string Device) : TrainingEvent;

/// <summary>Progress of work that is not counted in optimizer steps.</summary>
/// <param name="Stage">What is being done, in words: "writing stories".</param>
/// <param name="Fraction">Done part of the whole run, 0 to 1.</param>
/// <param name="BytesPerSecond">Text that the stage works through in a second; null where it is not known.</param>
/// <param name="EtaSeconds">Expected time to the end of the stage; null where it is not known.</param>
public sealed record ProgressEvent(string Stage, double Fraction, double? BytesPerSecond = null, double? EtaSeconds = null) : TrainingEvent;

/// <summary>Numbers of one optimizer step or evaluation. Names: train/loss, eval/loss, train/learning_rate, train/gradient_norm,
/// train/tokens_per_second, system/memory_bytes ...</summary>
/// <param name="Step">Optimizer steps done.</param>
/// <param name="MaxSteps">Steps of the whole run.</param>
/// <param name="Tokens">Training tokens seen so far.</param>
/// <param name="EtaSeconds">Expected time to the end; null where it is not known yet.</param>
public sealed record MetricsEvent(long Step, long MaxSteps, long Tokens, double? EtaSeconds, IReadOnlyDictionary<string, double> Values) : TrainingEvent;

/// <summary>A text that the model wrote.</summary>
public sealed record SampleEvent(long Step, string Prompt, string Text) : TrainingEvent;

/// <summary>A checkpoint stands under its final name.</summary>
/// <param name="Path">Folder, relative to the run's folder: checkpoints/step-000000100.</param>
/// <param name="Loss">Newest evaluation loss, else the training loss.</param>
/// <param name="WaitSeconds">Time that training stood still for it: copying the state, and waiting where the checkpoint before was not written yet.</param>
/// <param name="WriteSeconds">Time that writing it took beside the training.</param>
public sealed record CheckpointEvent(long Step, string Path, double Loss, long Bytes, double? WaitSeconds = null, double? WriteSeconds = null) : TrainingEvent;

/// <summary>Something that a person should know; the run goes on.</summary>
/// <param name="Step">The optimizer step that it is about; null where it is about none.</param>
/// <param name="Documents">Numbers of the documents that the step's batch begins in, where they may be the cause; see <see cref="Data.BatchSource.DocumentIds"/>.</param>
public sealed record WarningEvent(string Message, long? Step = null, IReadOnlyList<long>? Documents = null) : TrainingEvent;

/// <summary>The trainer process ends in order. A run whose process died has no such event after its last start.</summary>
/// <param name="State">Completed, Interrupted (stopped and saved) or Failed.</param>
/// <param name="Reason">One sentence; null when completed.</param>
/// <param name="Step">Of a run that diverged, the step that was not taken.</param>
/// <param name="Documents">Of a run that diverged, the documents of that step's batch.</param>
/// <param name="Code">The <see cref="ExitCode"/> that the process ends with, for those who are not its parent; null in the events of version 0.1.</param>
public sealed record EndedEvent(RunState State, string? Reason, long? Step = null, IReadOnlyList<long>? Documents = null, int? Code = null) : TrainingEvent;
