using Microsoft.AspNetCore.Components;
using MudBlazor;
using NopeGpt.Jobs;
using NopeGpt.Jobs.Queue;
using NopeGpt.Web.Components.Parts;

namespace NopeGpt.Web.Components.Pages;

/// <summary>The first page: what runs, what waits and what has ended; for an empty store, the way to a first model.</summary>
public sealed partial class Overview
{
    private IReadOnlyList<RunRow>? _runs;
    private IReadOnlyList<RunRow> _quickstart = [];
    private bool _starting;
    private bool _wasUnfinished;

    /// <summary>The ids of the quickstart that this page shows, separated by commas.</summary>
    [SupplyParameterFromQuery(Name = "quickstart")]
    public string? Quickstart { get; set; }

    /// <summary>tiny or default: how much the quickstart trains.</summary>
    [SupplyParameterFromQuery(Name = "size")]
    public string? QuickstartSize { get; set; }

    private IEnumerable<RunRow> Now => _runs!.Where(r => RunStates.Working.Contains(r.State));
    private IEnumerable<RunRow> Waiting => _runs!.Where(r => r.State == RunState.Queued).OrderBy(r => r.QueuePosition);
    private IEnumerable<RunRow> Finished => _runs!.Where(r => r.Ended is not null && RunStates.Ended.Contains(r.State)).OrderByDescending(r => r.Ended);
    private RunRow? Trained => Finished.FirstOrDefault(r => r.Kind == RunKind.Pretrain && r.State == RunState.Completed);

    protected override async Task LoadAsync()
    {
        _runs = await Queue.ListAsync(cancel: Gone);
        string[] ids = Quickstart?.Split(',', StringSplitOptions.RemoveEmptyEntries).Distinct(StringComparer.Ordinal).ToArray() ?? [];
        _quickstart = [.. ids.Select(id => _runs.FirstOrDefault(r => r.Id == id)).OfType<RunRow>()];
        Watch((_quickstart.Count > 0 ? _quickstart : Now).Select(r => r.Id));
        LeadToChat();
    }

    protected override async Task OnParametersSetAsync()
    {
        _starting = false;
        if (_runs is not null) await LoadAsync();
    }

    // Somebody who waits for the first model gets to talk to it; somebody who comes back to the page later is not sent away from it.
    private void LeadToChat()
    {
        if (_quickstart.Count == 0) return;
        bool done = _quickstart.All(r => r.State == RunState.Completed);
        if (done && _wasUnfinished) Navigation.NavigateTo($"chat?model={QuickstartProgress.Model(_quickstart)?.Id}");
        _wasUnfinished = !done;
    }

    private async Task StartAsync()
    {
        // Stays set after success: a second click may come before the browser has moved on.
        if (_starting) return;
        _starting = true;
        try
        {
            IReadOnlyList<string> ids = await Queue.AddQuickstartAsync(QuickstartSize ?? "default", Gone);
            Navigation.NavigateTo($"?quickstart={string.Join(',', ids)}");
        }
        catch (Exception e) when (e is UserException or ProblemsException)
        {
            _starting = false;
            Snackbar.Add(e.Message, Severity.Error);
        }
    }

    private string Result(RunRow run)
    {
        IReadOnlyDictionary<string, double> metrics = Feed.Snapshot(run.Id).Metrics;
        return metrics.TryGetValue("eval/loss", out double loss) || metrics.TryGetValue("train/loss", out loss) ? "loss " + Figures.Loss(loss) : "";
    }
}
