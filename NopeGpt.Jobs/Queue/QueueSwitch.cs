using System.Text.Json;

namespace NopeGpt.Jobs.Queue;

/// <summary>What people decide for the whole queue.</summary>
/// <param name="Paused">Nothing starts; what works goes on.</param>
/// <param name="StopAtFailure">A run that fails pauses the queue; otherwise the next one starts.</param>
/// <param name="Reason">Why it is paused; null for a person's wish.</param>
public sealed record QueueSettings(bool Paused = false, bool StopAtFailure = false, string? Reason = null);

/// <summary>queue.json in the storage root, so that it outlasts the table and is one for all hosts.</summary>
internal sealed class QueueSwitch(Store store)
{
    private readonly Lock gate = new();

    private string Path => System.IO.Path.Combine(store.Root, "queue.json");

    /// <summary>A damaged or missing file stands for the defaults.</summary>
    public QueueSettings Read()
    {
        try { return JsonSerializer.Deserialize<QueueSettings>(File.ReadAllText(Path), TrainingEvent.Json) ?? new(); }
        catch (Exception e) when (e is FileNotFoundException or DirectoryNotFoundException or JsonException) { return new(); }
    }

    /// <summary>A run has failed: pauses the queue where people want that.</summary>
    /// <returns>True where it is paused for that.</returns>
    public bool Failed(RunRow row)
    {
        string reason = $"run {row.Title} has failed";
        QueueSettings now = Read();
        if (now is { StopAtFailure: true, Paused: false }) now = Change(before => before with { Paused = true, Reason = reason });
        return now.Paused && now.Reason == reason;
    }

    /// <exception cref="IOException">The file cannot be written.</exception>
    public QueueSettings Change(Func<QueueSettings, QueueSettings> change)
    {
        lock (gate)
        {
            QueueSettings after = change(Read());
            string aside = $"{Path}.{Environment.ProcessId}.new";
            File.WriteAllText(aside, JsonSerializer.Serialize(after, TrainingEvent.Json) + "\n");
            File.Move(aside, Path, overwrite: true);
            return after;
        }
    }
}
