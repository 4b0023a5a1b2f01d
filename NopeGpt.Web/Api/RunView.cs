using System.Text.Json;
using System.Text.Json.Nodes;
using System.Text.Json.Serialization;
using NopeGpt.Jobs;
using NopeGpt.Jobs.Configuration;
using NopeGpt.Jobs.Queue;
using NopeGpt.Web.Live;

namespace NopeGpt.Web.Api;

/// <summary>A run as the HTTP interface tells it. The names are a contract.</summary>
/// <param name="Kind">In lower case: pretrain.</param>
/// <param name="State">As <see cref="RunState"/> writes it: Completed.</param>
/// <param name="Reason">One sentence: what it waits for, or why it ended as it did.</param>
/// <param name="Step">Optimizer steps done; percent where the work is not counted in steps (maxSteps is 100 then).</param>
/// <param name="Metrics">Last value of each; NaN and infinities as texts.</param>
/// <param name="QueuePlace">1 for the run that starts next; null where it does not wait in the queue.</param>
/// <param name="Parent">The run that it was duplicated or forked from; empty for none.</param>
/// <param name="ParentStep">The step of the parent's checkpoint that it went on from; null where it began anew.</param>
/// <param name="Attempt">Trainers that were started for it by the queue.</param>
/// <param name="RetryAt">After a crash it does not go on before.</param>
/// <param name="Device">What it asks to work on; <paramref name="Devices"/> is what it was given.</param>
/// <param name="Host">The machine that has it, or had it last; empty where it has not begun.</param>
/// <param name="SizeBytes">Of its folder; null in lists.</param>
/// <param name="Config">What it was told to do, in the names of run.json; null where the folder is gone or run.json damaged, and in lists.</param>
internal sealed record RunView(
    string Id, string Name, string Kind, string State, string? Reason, long Step, long MaxSteps, IReadOnlyDictionary<string, double> Metrics, string Folder,
    IReadOnlyList<CheckpointView> Checkpoints, DateTimeOffset Created, DateTimeOffset? Started, DateTimeOffset? Ended, double? EtaSeconds, double Fraction, long Tokens,
    int Attempts, IReadOnlyList<string> After, int Priority, int? QueuePlace, bool Held, DateTimeOffset? NotBefore, IReadOnlyList<string> Tags, string Notes, string Group, string Parent, long? ParentStep,
    int Attempt, DateTimeOffset? RetryAt, string Device, IReadOnlyList<string> Devices, string Host, long? SizeBytes, JsonNode? Config)
{
    public static JsonSerializerOptions Json { get; } = new(JsonSerializerDefaults.Web) { NumberHandling = JsonNumberHandling.AllowNamedFloatingPointLiterals };

    /// <param name="places">Of the waiting runs in the queue.</param>
    /// <param name="sizes">Null in a list, where what takes time is left out.</param>
    public static RunView Of(RunRow row, Store store, RunFeed feed, IReadOnlyDictionary<string, int> places, FolderSizes? sizes = null)
    {
        RunSnapshot told = feed.Snapshot(row.Id);
        bool counted = told.MaxSteps > 0;
        JsonNode? config = null;
        bool there = RunFolder.TryOpen(store, row.Id, out RunFolder? folder);
        if (sizes is not null && there)
        {
            try { config = JsonSerializer.SerializeToNode(folder!.Read().Config, Settings.Json); }
            catch (UserException) { /* a damaged run.json: what the table and the events know is shown all the same */ }
        }
        return new RunView(
            row.Id, row.Name, Settings.SnakeCase(row.Kind.ToString()), row.State.ToString(), row.Reason,
            counted ? told.Step : row.State is RunState.Completed ? row.MaxSteps : row.Step, counted ? told.MaxSteps : row.MaxSteps, told.Metrics, store.RunFolder(row.Id),
            CheckpointView.All(folder, told, onDisk: sizes is not null),
            row.Created, row.Started, row.Ended, row.State is RunState.Running ? told.EtaSeconds : null,
            row.State is RunState.Completed ? 1 : told.Fraction, told.Tokens, told.Attempts, row.Predecessors,
            row.Priority, places.TryGetValue(row.Id, out int place) ? place : null, row.Held, row.NotBefore, row.TagList, row.Notes, row.Group, row.Parent, row.ParentStep,
            row.Attempt, row.RetryAt, row.Device, row.DeviceList, row.Host, sizes?.Of(row.Id), config);
    }
}

/// <param name="Path">Relative to the run's folder: checkpoints/step-000000100.</param>
/// <param name="Loss">Newest evaluation loss, else the training loss; null where the run's events do not tell, because it was forked from there.</param>
/// <param name="Pinned">It is never deleted by itself.</param>
internal sealed record CheckpointView(long Step, string Path, double? Loss, long Bytes, bool Pinned)
{
    /// <summary>A run's checkpoints, oldest first.</summary>
    /// <param name="folder">Null where it is gone.</param>
    /// <param name="onDisk">Looks into the folder, which also knows of those that no event tells of.</param>
    public static IReadOnlyList<CheckpointView> All(RunFolder? folder, RunSnapshot told, bool onDisk)
    {
        if (folder is null) return [];
        if (onDisk)
        {
            Dictionary<long, double> losses = told.Checkpoints.ToDictionary(c => c.Step, c => c.Loss);
            return [.. RunDisk.Checkpoints(folder).Reverse().Select(c => new CheckpointView(c.Step, c.Path, losses.TryGetValue(c.Step, out double loss) ? loss : null, c.Bytes, c.Pinned))];
        }
        IReadOnlyList<long> pinned = told.Checkpoints.Count > 0 ? folder.ReadCard().Pinned : [];
        return [.. told.Checkpoints.Select(c => new CheckpointView(c.Step, c.Path, c.Loss, c.Bytes, pinned.Contains(c.Step)))];
    }
}
