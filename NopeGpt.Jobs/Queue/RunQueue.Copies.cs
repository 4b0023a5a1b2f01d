using System.Globalization;
using System.Text.Json;
using NopeGpt.Jobs.Configuration;
using NopeGpt.Model;
using NopeGpt.Model.Storage;

namespace NopeGpt.Jobs.Queue;

// Runs from runs.
public sealed partial class RunQueue
{
    private static readonly string[] ForkSections = ["training", "optimizer", "sampling"], ForkSettings = ["name", "device", "threads"];

    /// <summary>Queues a new run with the config of another.</summary>
    /// <param name="changes">Settings that are to differ, as a JSON object of a <see cref="RunConfig"/>'s shape; null for none.</param>
    /// <returns>The new run.</returns>
    /// <exception cref="ProblemsException">Everything that is wrong with the new config.</exception>
    /// <exception cref="UserException">There is no such run, or its run.json is damaged.</exception>
    public async Task<RunRow> DuplicateAsync(string id, JsonElement? changes = null, CancellationToken cancel = default)
    {
        RunRow row = await FoundAsync(id, cancel).ConfigureAwait(false);
        RunConfig config = With(Opened(row).Read().Config, changes);
        IReadOnlyList<string> after = await UnfinishedAsync(row, cancel).ConfigureAwait(false);
        return await AddAsync(config, after, new RunCard { Parent = row.Id, Tags = row.TagList }, null, cancel).ConfigureAwait(false);
    }

    /// <summary>Queues a new run that goes on from a checkpoint of another, which stays as it is. The checkpoint's files are shared.</summary>
    /// <param name="step">Of the checkpoint; null for the newest.</param>
    /// <param name="changes">Settings of <c>training</c>, <c>optimizer</c> and <c>sampling</c> that are to differ, and name, device and threads.</param>
    /// <returns>The new run.</returns>
    /// <exception cref="ProblemsException">Everything that is wrong with the changes.</exception>
    /// <exception cref="UserException">There is no such run or checkpoint.</exception>
    public async Task<RunRow> ForkAsync(string id, long? step = null, JsonElement? changes = null, CancellationToken cancel = default)
    {
        RunRow row = await FoundAsync(id, cancel).ConfigureAwait(false);
        if (!row.Kind.Trains()) throw new UserException($"run {row.Title} trains no model, so there is no checkpoint to go on from: duplicate it instead");
        RunFolder folder = Opened(row);
        IReadOnlyList<(string Path, long Step)> all = Checkpoint.List(folder.CheckpointsPath);
        if (all.Count == 0) throw new UserException($"run {row.Title} has no checkpoint yet: wait for its first, or duplicate it");
        (string path, long from) = step is { } wanted ? all.FirstOrDefault(c => c.Step == wanted) : all[0];
        if (path is null) throw new UserException($"run {row.Title} has no checkpoint of step {step}: it has those of steps {string.Join(", ", all.Select(c => c.Step).Order().Select(s => s.ToString(CultureInfo.InvariantCulture)))}");
        RunConfig before = folder.Read().Config, config = With(before, changes);
        List<Problem> problems = [.. ForkProblems(before, config)];
        if (config.Training.MaxSteps > 0 && config.Training.MaxSteps <= from)
            problems.Add(new("training.max_steps", $"{config.Training.MaxSteps}", $"the checkpoint has {from} steps already: use more"));
        if (problems.Count > 0) throw new ProblemsException(problems);
        return await AddAsync(config, [], new RunCard { Parent = row.Id, ParentStep = from, Tags = row.TagList }, path, cancel).ConfigureAwait(false);
    }

    /// <summary>What a checkpoint's state would not fit any more.</summary>
    private static IEnumerable<Problem> ForkProblems(RunConfig before, RunConfig after)
    {
        foreach (Setting setting in Configuration.Settings.All)
        {
            if (ForkSections.Contains(setting.Section) && setting.Path != "optimizer.optimizer" || ForkSettings.Contains(setting.Path)) continue;
            (object? old, object? now) = (Configuration.Settings.Get(before, setting), Configuration.Settings.Get(after, setting));
            if (JsonSerializer.Serialize(old, Configuration.Settings.Json) != JsonSerializer.Serialize(now, Configuration.Settings.Json))
                yield return new(setting.Path, $"{now}", "a fork goes on with the model, the data and the optimizer that it has; duplicate the run to change them");
        }
    }

    private static RunConfig With(RunConfig config, JsonElement? changes)
    {
        if (changes is not { } json) return config;
        List<Problem> problems = [];
        RunConfig changed = Configuration.Settings.Bind(config, json, problems);
        return problems.Count == 0 ? changed : throw new ProblemsException(problems);
    }

    /// <summary>Of the runs before it, those that may yet complete.</summary>
    private async Task<IReadOnlyList<string>> UnfinishedAsync(RunRow row, CancellationToken cancel)
    {
        List<string> ids = [];
        foreach (string before in row.Predecessors)
        {
            if (await FindAsync(before, cancel).ConfigureAwait(false) is { State: not (RunState.Completed or RunState.Failed or RunState.Cancelled) }) ids.Add(before);
        }
        return ids;
    }

    private RunFolder Opened(RunRow row) => RunFolder.TryOpen(store, row.Id, out RunFolder? folder) ? folder : throw new UserException($"run {row.Title}: its folder is gone");
}
