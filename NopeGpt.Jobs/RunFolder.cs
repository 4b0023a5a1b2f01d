using System.Diagnostics.CodeAnalysis;
using System.Globalization;
using System.Text;
using System.Text.Json;
using System.Text.Json.Nodes;
using System.Text.Json.Serialization;

namespace NopeGpt.Jobs;

/// <summary>How a run is asked to end.</summary>
public enum StopRequest
{
    None,

    /// <summary>Finish the step, save a checkpoint, end.</summary>
    Save,

    /// <summary>End now; the last checkpoint stays.</summary>
    Kill,
}

/// <summary>The process that works on a run. The start time tells it from a later process with the same number.</summary>
/// <param name="StartTicks">Field 22 of /proc/PID/stat: clock ticks between the machine's start and the process's.</param>
/// <param name="Foreground">A person started it on a terminal: a dashboard shows and stops it, but does not end it by being closed.</param>
public sealed record TrainerIdentity(int ProcessId, long StartTicks, bool Foreground = false)
{
    /// <summary>The machine on which the numbers mean something; empty where it is not known, and so taken for this one.</summary>
    public string Machine { get; init; } = "";

    // A row names a process without its machine, which the row's host tells.
    public bool Equals(TrainerIdentity? other) => other is not null && (ProcessId, StartTicks, Foreground) == (other.ProcessId, other.StartTicks, other.Foreground);

    public override int GetHashCode() => HashCode.Combine(ProcessId, StartTicks, Foreground);
}

/// <summary>One run on disk. Sole owner of run.json, card.json, events.jsonl, trainer.log, process.json, stop, queue, lock, checkpoints/ and tensorboard/.
/// Readers may be many; only the holder of the lock writes events.</summary>
public sealed class RunFolder
{
    private static readonly Lock CardGate = new();

    private RunFolder(string path) => Path = path;

    public string Path { get; }
    public string Id => System.IO.Path.GetFileName(Path);
    public string RecordPath => In("run.json");
    public string EventsPath => In("events.jsonl");
    public string LogPath => In("trainer.log");
    public string CheckpointsPath => In("checkpoints");
    public string TensorBoardPath => In("tensorboard");
    private string CardPath => In("card.json");
    private string StopPath => In("stop");
    private string QueuePath => In("queue");
    private string LockPath => In("lock");
    private string IdentityPath => In("process.json");

    /// <summary>A new id: sortable by time, unique within the store.</summary>
    public static string NewId(DateTimeOffset now) =>
        now.UtcDateTime.ToString("yyyyMMdd-HHmmss", CultureInfo.InvariantCulture) + "-" + Random.Shared.Next(0x10000).ToString("x4", CultureInfo.InvariantCulture);

    /// <summary>New ids in rising order, so that runs that are made together keep theirs wherever runs are sorted by id.</summary>
    public static IReadOnlyList<string> NewIds(Store store, DateTimeOffset now, int count)
    {
        SortedSet<string> ids = new(StringComparer.Ordinal);
        // There are 65,536 of one second.
        for (; ids.Count < count; now += TimeSpan.FromSeconds(1))
            for (int tries = 0; tries < 4096 && ids.Count < count; tries++)
                if (NewId(now) is var id && !Directory.Exists(store.RunFolder(id))) ids.Add(id);
        return [.. ids];
    }

    /// <summary>Makes the folder with its run.json; it appears under its final name only when whole.</summary>
    /// <param name="queued">It asks to be queued from the first moment on (see <see cref="RequestQueue"/>).</param>
    /// <param name="card">What people say of it; null for nothing.</param>
    /// <param name="checkpoint">The folder of another run's checkpoint that it goes on from. Its files are shared, not copied, where the disk can do that.</param>
    public static RunFolder Create(Store store, RunRecord record, bool queued = false, RunCard? card = null, string? checkpoint = null)
    {
        RunFolder folder = new(store.RunFolder(record.Id));
        string aside = folder.Path + ".new";
        try
        {
            Directory.CreateDirectory(System.IO.Path.Combine(aside, "checkpoints"));
            File.WriteAllText(System.IO.Path.Combine(aside, "run.json"), Serialize(record));
            if (queued) File.WriteAllText(System.IO.Path.Combine(aside, "queue"), "");
            if (card is not null) File.WriteAllText(System.IO.Path.Combine(aside, "card.json"), JsonSerializer.Serialize(card, RecordJson) + "\n");
            if (checkpoint is not null) LinkedFiles.Share(checkpoint, System.IO.Path.Combine(aside, "checkpoints", System.IO.Path.GetFileName(checkpoint)));
            Directory.Move(aside, folder.Path);
        }
        catch
        {
            if (Directory.Exists(aside)) Directory.Delete(aside, recursive: true);
            throw;
        }
        return folder;
    }

    /// <exception cref="UserException">No run lies there.</exception>
    public static RunFolder Open(string path)
    {
        RunFolder folder = new(System.IO.Path.GetFullPath(path).TrimEnd('/'));
        if (!Directory.Exists(folder.Path)) throw new UserException($"{folder.Path} does not exist: name a run's folder (runs/ID in the storage root) or its id");
        if (!File.Exists(folder.RecordPath)) throw new UserException($"{folder.Path} has no run.json, so it is not a run: name a run's folder");
        return folder;
    }

    /// <summary>False where no run of that id lies in the store.</summary>
    public static bool TryOpen(Store store, string id, [NotNullWhen(true)] out RunFolder? folder)
    {
        // A link may lead out of the store, where nothing is to be written or deleted.
        folder = Store.IsName(id) && File.Exists(System.IO.Path.Combine(store.RunFolder(id), "run.json")) && new DirectoryInfo(store.RunFolder(id)).LinkTarget is null ? new RunFolder(store.RunFolder(id)) : null;
        return folder is not null;
    }

    /// <exception cref="UserException">run.json is damaged or of a newer version.</exception>
    public RunRecord Read()
    {
        try
        {
            string text = File.ReadAllText(RecordPath);
            // First, because a newer format may have fields that this one does not know.
            if (JsonNode.Parse(text) is JsonObject json && json["format_version"] is JsonValue version && version.TryGetValue(out int format) && format > RunRecord.CurrentFormat)
                throw new UserException($"{RecordPath} was written by a newer NopeGpt (format {format}, this one reads {RunRecord.CurrentFormat}): use that version");
            return JsonSerializer.Deserialize<RunRecord>(text, RecordJson) ?? throw new JsonException("it is empty");
        }
        catch (JsonException e)
        {
            throw new UserException($"{RecordPath} is damaged ({e.Message.TrimEnd('.')}): restore it from a copy, or delete the run's folder");
        }
    }

    /// <summary>What people and the queue say of the run; all empty where nothing is written, or what is written is damaged.</summary>
    public RunCard ReadCard()
    {
        try { return JsonSerializer.Deserialize<RunCard>(File.ReadAllText(CardPath), RecordJson) ?? new(); }
        catch (Exception e) when (e is FileNotFoundException or DirectoryNotFoundException or JsonException) { return new(); }
    }

    /// <summary>Changes the card, one writer at a time in this process.</summary>
    public void ChangeCard(Func<RunCard, RunCard> change)
    {
        lock (CardGate)
        {
            RunCard before = ReadCard(), after = change(before);
            if (after != before) WriteAside(CardPath, JsonSerializer.Serialize(after, RecordJson) + "\n");
        }
    }

    public void Write(RunRecord record) => WriteAside(RecordPath, Serialize(record));

    /// <summary>The events after a sequence number, oldest first. A torn or damaged line is left out and reported.</summary>
    public IEnumerable<TrainingEvent> Events(long after = 0, Action<string>? warn = null)
    {
        if (!File.Exists(EventsPath)) yield break;
        using FileStream stream = new(EventsPath, FileMode.Open, FileAccess.Read, FileShare.ReadWrite | FileShare.Delete);
        using StreamReader reader = new(stream, Encoding.UTF8);
        int number = 0;
        while (reader.ReadLine() is { } line)
        {
            number++;
            if (line.Length == 0) continue;
            TrainingEvent? read = ParseEvent(line);
            if (read is null) warn?.Invoke($"{EventsPath} line {number} is damaged and left out");
            else if (read.Sequence > after) yield return read;
        }
    }

    /// <summary>Number of the newest event; 0 before the first. Reads the end of the file only.</summary>
    public long LastSequence()
    {
        if (!File.Exists(EventsPath)) return 0;
        using FileStream stream = new(EventsPath, FileMode.Open, FileAccess.Read, FileShare.ReadWrite | FileShare.Delete);
        for (long length = 64 << 10; ; length *= 8)
        {
            stream.Position = Math.Max(0, stream.Length - length);
            bool whole = stream.Position == 0;
            using StreamReader reader = new(stream, Encoding.UTF8, leaveOpen: true);
            // Cut in the midst, the first line is none.
            string[] lines = reader.ReadToEnd().Split('\n');
            if (lines.Skip(whole ? 0 : 1).Select(l => l.Length == 0 ? null : ParseEvent(l)).LastOrDefault(e => e is not null) is { } last) return last.Sequence;
            if (whole) return 0;
        }
    }

    /// <summary>The events in the last quarter of a megabyte of the file, oldest first: what a run says at its end is less.</summary>
    public IEnumerable<TrainingEvent> LastEvents()
    {
        const long End = 256 << 10;
        // Cut in the midst, the first line is no event.
        return File.Exists(EventsPath) ? new EventTail(EventsPath, Math.Max(0, new FileInfo(EventsPath).Length - End)).Read() : [];
    }

    /// <summary>The event of a line; null where the line is damaged.</summary>
    public static TrainingEvent? ParseEvent(string line) => ParseEvent(Encoding.UTF8.GetBytes(line));

    /// <param name="line">UTF-8.</param>
    /// <inheritdoc cref="ParseEvent(string)"/>
    public static TrainingEvent? ParseEvent(ReadOnlySpan<byte> line)
    {
        try { return JsonSerializer.Deserialize<TrainingEvent>(line, TrainingEvent.Json) is { } read && IsWhole(read) ? read : null; }
        catch (JsonException) { return null; }
        catch (NotSupportedException) { return null; }
    }

    // The serializer lets a text or a table be missing.
    private static bool IsWhole(TrainingEvent read) => read switch
    {
        StartedEvent started => started.Device is not null,
        ProgressEvent progress => progress.Stage is not null,
        MetricsEvent metrics => metrics.Values is not null,
        SampleEvent sample => sample is { Prompt: not null, Text: not null },
        CheckpointEvent checkpoint => checkpoint.Path is not null,
        WarningEvent warning => warning.Message is not null,
        _ => true,
    };

    /// <summary>The exclusive right to work on this run, or null while another process has it. It ends with the process that holds it.</summary>
    public FileStream? TryLock()
    {
        try { return new FileStream(LockPath, FileMode.OpenOrCreate, FileAccess.ReadWrite, FileShare.None); }
        // A disk that is full or read-only is another thing than a lock that somebody holds.
        catch (IOException e) when (!DiskErrors.IsUnwritable(e)) { return null; }
    }

    public void WriteIdentity(TrainerIdentity identity) => WriteAside(IdentityPath, JsonSerializer.Serialize(identity, RecordJson));

    /// <summary>The process that last worked on this run; it may be gone.</summary>
    public TrainerIdentity? ReadIdentity()
    {
        try { return JsonSerializer.Deserialize<TrainerIdentity>(File.ReadAllText(IdentityPath), RecordJson); }
        catch (Exception e) when (e is IOException or JsonException or UnauthorizedAccessException) { return null; }
    }

    public void RequestStop(StopRequest request)
    {
        if (request == StopRequest.None) File.Delete(StopPath);
        else WriteAside(StopPath, request == StopRequest.Kill ? "kill\n" : "save\n");
    }

    public StopRequest ReadStop()
    {
        if (!File.Exists(StopPath)) return StopRequest.None;
        try { return File.ReadAllText(StopPath).StartsWith("kill", StringComparison.Ordinal) ? StopRequest.Kill : StopRequest.Save; }
        catch (FileNotFoundException) { return StopRequest.None; }
    }

    /// <summary>True where somebody without a dashboard asks for the run to be queued; the dashboard does so and takes the request away.</summary>
    public bool AsksForQueue => File.Exists(QueuePath);

    /// <summary>Asks the dashboard of the store, this one or the next, to put the run at the end of its queue.</summary>
    public void RequestQueue() => WriteAside(QueuePath, "");

    public void TakeQueueRequest() => File.Delete(QueuePath);

    /// <summary>When a process last began to work on the run; null before the first.</summary>
    public DateTimeOffset? LastProcess => File.Exists(IdentityPath) ? File.GetLastWriteTimeUtc(IdentityPath) : null;

    private static JsonSerializerOptions RecordJson { get; } = new(TrainingEvent.Json)
    {
        WriteIndented = true,
        RespectNullableAnnotations = true,
        RespectRequiredConstructorParameters = true,
        UnmappedMemberHandling = JsonUnmappedMemberHandling.Disallow,
    };

    private static string Serialize(RunRecord record) => JsonSerializer.Serialize(record, RecordJson) + "\n";

    private string In(string name) => System.IO.Path.Combine(Path, name);

    private static void WriteAside(string path, string text)
    {
        string aside = path + "." + Environment.ProcessId + ".new";
        try
        {
            File.WriteAllText(aside, text);
            File.Move(aside, path, overwrite: true);
        }
        catch
        {
            File.Delete(aside);
            throw;
        }
    }
}
