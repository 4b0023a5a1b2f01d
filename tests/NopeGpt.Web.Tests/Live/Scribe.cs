using System.Text.Json;
using NopeGpt.Jobs;

namespace NopeGpt.Web.Tests.Live;

/// <summary>Plays a trainer as far as its files go: makes a run's folder and writes numbered events.</summary>
internal sealed class Scribe
{
    private long _sequence;

    public Scribe(Store store, RunConfig? config = null)
    {
        Folder = RunFolder.Create(store, new RunRecord(RunRecord.CurrentFormat, RunFolder.NewId(DateTimeOffset.UtcNow), DateTimeOffset.UtcNow, [], config ?? new RunConfig { Name = "scribe" }));
    }

    public RunFolder Folder { get; }
    public string Id => Folder.Id;

    /// <summary>Numbers the events without writing them.</summary>
    public TrainingEvent[] Number(params TrainingEvent[] events) => [.. events.Select(e => e with { Sequence = ++_sequence, Time = DateTimeOffset.UnixEpoch.AddSeconds(1000 + _sequence) })];

    /// <summary>Numbers the events and writes them to the file.</summary>
    public TrainingEvent[] Write(params TrainingEvent[] events)
    {
        TrainingEvent[] numbered = Number(events);
        Append(numbered);
        return numbered;
    }

    public void Append(IEnumerable<TrainingEvent> events) => Append(string.Concat(events.Select(e => JsonSerializer.Serialize(e, TrainingEvent.Json) + "\n")));

    public void Append(string text) => File.AppendAllText(Folder.EventsPath, text);

    public static MetricsEvent Step(long step, double loss, long maxSteps = 100, string name = "train/loss") => new(step, maxSteps, step * 10, null, new Dictionary<string, double> { [name] = loss });

    public CheckpointEvent Checkpoint(long step)
    {
        string path = $"checkpoints/step-{step:d9}";
        Directory.CreateDirectory(Path.Combine(Folder.Path, path));
        return new CheckpointEvent(step, path, 1.5, 1000);
    }
}
