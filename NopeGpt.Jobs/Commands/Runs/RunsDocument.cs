using NopeGpt.Jobs.Configuration;
using NopeGpt.Jobs.Queue;

namespace NopeGpt.Jobs.Commands.Runs;

/// <summary>A run as `runs` prints it with --json, in the names of the HTTP interface.</summary>
internal record RunsDocument(
    string Id, string Name, string Kind, string State, string? Reason, long Step, long MaxSteps, int Priority, int? QueuePlace, bool Held, DateTimeOffset? NotBefore, IReadOnlyList<string> Tags, string Notes,
    string Group, string Parent, long? ParentStep, IReadOnlyList<string> After, int Attempt, DateTimeOffset? RetryAt, string Device, IReadOnlyList<string> Devices, string Host,
    DateTimeOffset Created, DateTimeOffset? Started, DateTimeOffset? Ended, string Folder)
{
    /// <param name="places">Of the waiting runs.</param>
    public static RunsDocument Of(RunRow row, Store store, IReadOnlyDictionary<string, int> places) => new(
        row.Id, row.Name, Word(row.Kind), row.State.ToString(), row.Reason, row.Step, row.MaxSteps, row.Priority, places.TryGetValue(row.Id, out int place) ? place : null, row.Held, row.NotBefore,
        row.TagList, row.Notes, row.Group, row.Parent, row.ParentStep, row.Predecessors, row.Attempt, row.RetryAt, row.Device, row.DeviceList, row.Host,
        row.Created, row.Started, row.Ended, store.RunFolder(row.Id));

    public static string Word(RunKind kind) => Settings.SnakeCase(kind.ToString());
}
