using Microsoft.AspNetCore.Components;
using NopeGpt.Jobs;
using NopeGpt.Jobs.Configuration;
using NopeGpt.Jobs.Datasets;
using NopeGpt.Jobs.Queue;
using NopeGpt.Web.Api;

namespace NopeGpt.Web.Components.Pages;

/// <summary>Everything about one data set.</summary>
public sealed partial class DatasetPage
{
    // They have lines of their own.
    private static readonly string[] Told = ["source", "columns", "text_column", "tokenizer", "dataset", "workers"];

    private DatasetEntry? _entry;
    private IReadOnlyList<(RunRow Run, PrepareConfig Recipe)> _preparing = [];
    private bool _read;
    private bool _hasRun;
    private string? _shown;

    [Inject] internal Store Store { get; set; } = default!;

    [Inject] internal NavigationManager Navigation { get; set; } = default!;

    [Parameter] public string Name { get; set; } = "";

    protected override async Task LoadAsync()
    {
        string name = Name;
        DatasetEntry? entry = await Task.Run(() => new DatasetCatalog(Store).Dataset(name), Gone);
        List<(RunRow, PrepareConfig)> preparing = [];
        if (entry is null)
        {
            foreach (RunRow run in await Queue.ListAsync(kind: RunKind.Prepare, cancel: Gone))
                if (run.State is not (RunState.Completed or RunState.Cancelled) && DatasetUse.ConfigOf(Store, run.Id)?.Prepare is { } recipe && recipe.Dataset == name) preparing.Add((run, recipe));
        }
        (_entry, _preparing, _shown, _read) = (entry, preparing, name, true);
        _hasRun = entry?.Info is { RunId.Length: > 0 } info && RunFolder.TryOpen(Store, info.RunId, out _);
        Watch(preparing.Select(p => p.Item1.Id));
    }

    protected override async Task OnParametersSetAsync()
    {
        if (_read && _shown != Name) await LoadAsync();
    }

    /// <summary>What of the recipe is not as usual.</summary>
    private static IEnumerable<Setting> Changed(DatasetInfo info) =>
        Settings.All.Where(s => s.Section == "prepare" && !Told.Contains(s.Name) && !Equals(Settings.Get(new RunConfig { Prepare = info.Recipe }, s), s.Default));

    private void Leave() => Navigation.NavigateTo("datasets");
}
