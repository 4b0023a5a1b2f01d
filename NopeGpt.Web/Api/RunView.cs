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
/// <param name="Config">What it was told to do, in the names of run.json; null where the folder is gone or run.json damaged, and in lists.</param>
internal sealed record RunView(
    string Id, string Name, string Kind, string State, string? Reason, long Step, long MaxSteps, IReadOnlyDictionary<string, double> Metrics, string Folder,
    IReadOnlyList<CheckpointView> Checkpoints, DateTimeOffset Created, DateTimeOffset? Started, DateTimeOffset? Ended, double? EtaSeconds, double Fraction, long Tokens,
    int Attempts, IReadOnlyList<string> After, JsonNode? Config)
{
    public static JsonSerializerOptions Json { get; } = new(JsonSerializerDefaults.Web) { NumberHandling = JsonNumberHandling.AllowNamedFloatingPointLiterals };

    public static RunView Of(RunRow row, Store store, RunFeed feed, bool withConfig)
    {
        RunSnapshot told = feed.Snapshot(row.Id);
        bool counted = told.MaxSteps > 0;
        JsonNode? config = null;
        if (withConfig && RunFolder.TryOpen(store, row.Id, out RunFolder? folder))
        {
            try { config = JsonSerializer.SerializeToNode(folder.Read().Config, Settings.Json); }
            catch (UserException) { /* a damaged run.json: what the table and the events know is shown all the same */ }
        }
        return new RunView(
            row.Id, row.Name, Settings.SnakeCase(row.Kind.ToString()), row.State.ToString(), row.Reason,
            counted ? told.Step : row.State is RunState.Completed ? row.MaxSteps : row.Step, counted ? told.MaxSteps : row.MaxSteps, told.Metrics, store.RunFolder(row.Id),
            [.. told.Checkpoints.Select(c => new CheckpointView(c.Step, c.Path, c.Loss))],
            row.Created, row.Started, row.Ended, row.State is RunState.Running ? told.EtaSeconds : null,
            row.State is RunState.Completed ? 1 : told.Fraction, told.Tokens, told.Attempts, row.Predecessors, config);
    }
}

/// <param name="Path">Relative to the run's folder: checkpoints/step-000000100.</param>
/// <param name="Loss">Newest evaluation loss, else the training loss.</param>
internal sealed record CheckpointView(long Step, string Path, double Loss);
