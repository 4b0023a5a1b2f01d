using Microsoft.AspNetCore.Components;
using NopeGpt.Jobs;
using NopeGpt.Jobs.Datasets;
using NopeGpt.Jobs.Queue;
using NopeGpt.Web.Api;

namespace NopeGpt.Web.Components.Pages;

/// <summary>The data sets of the store, those that are being made, and the form that makes new ones.</summary>
public sealed partial class DatasetsPage
{
    // A failure is news for a day; after that only the list of runs has it.
    private static readonly TimeSpan News = TimeSpan.FromDays(1);

    private readonly Dictionary<string, PrepareConfig?> _recipes = new(StringComparer.Ordinal);
    private IReadOnlyList<DatasetEntry>? _entries;
    private IReadOnlyList<(RunRow Run, PrepareConfig Recipe)> _preparing = [];
    private IReadOnlySet<string> _namesInWork = new HashSet<string>();

    [Inject] internal Store Store { get; set; } = default!;

    [Inject] internal TimeProvider Time { get; set; } = default!;

    protected override async Task LoadAsync()
    {
        IReadOnlyList<RunRow> runs = await Queue.ListAsync(kind: RunKind.Prepare, cancel: Gone);
        IReadOnlyList<DatasetEntry> entries = await Task.Run(() => new DatasetCatalog(Store).Datasets(), Gone);
        List<(RunRow Run, PrepareConfig Recipe)> preparing = [];
        foreach (RunRow run in runs.Where(r => IsActive(r) || IsNews(r)))
            if (Recipe(run.Id) is { } recipe) preparing.Add((run, recipe));
        _namesInWork = preparing.Where(p => IsActive(p.Run)).Select(p => p.Recipe.Dataset).ToHashSet(StringComparer.Ordinal);
        // What came to nothing is shown until its data set is there, or is being made again.
        HashSet<string> known = [.. entries.Select(e => e.Name), .. _namesInWork];
        _preparing =
        [
            .. preparing.Where(p => IsActive(p.Run)).OrderBy(p => p.Run.QueuePosition),
            .. preparing.Where(p => !IsActive(p.Run)).OrderByDescending(p => p.Run.Ended).Where(p => known.Add(p.Recipe.Dataset)),
        ];
        _entries = entries;
        Watch(_preparing.Where(p => IsActive(p.Run)).Select(p => p.Run.Id));
    }

    private static bool IsActive(RunRow run) => RunStates.Active.Contains(run.State);

    private bool IsNews(RunRow run) => run.State is RunState.Failed or RunState.Interrupted && run.Ended is { } ended && Time.GetUtcNow() - ended < News;

    private PrepareConfig? Recipe(string id)
    {
        if (!_recipes.TryGetValue(id, out PrepareConfig? recipe)) _recipes[id] = recipe = DatasetUse.ConfigOf(Store, id)?.Prepare;
        return recipe;
    }
}
