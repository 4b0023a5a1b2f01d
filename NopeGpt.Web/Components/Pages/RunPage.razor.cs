using Microsoft.AspNetCore.Components;
using MudBlazor;
using NopeGpt.Jobs;
using NopeGpt.Jobs.Queue;
using NopeGpt.Web.Components.Parts;
using NopeGpt.Web.Live;

namespace NopeGpt.Web.Components.Pages;

/// <summary>Everything about one run.</summary>
public sealed partial class RunPage
{
    // Evaluations and checkpoints take their time; this is longer than any of them should.
    private static readonly TimeSpan LongSilence = TimeSpan.FromSeconds(45);

    private RunRow? _run;
    private IReadOnlyList<RunRow> _all = [];
    private RunSnapshot _snapshot = RunSnapshot.Empty;
    private bool _read;
    private string? _shown;

    [Inject] private Store Store { get; set; } = default!;

    [Inject] private TimeProvider Time { get; set; } = default!;

    [Inject] private IDialogService Dialogs { get; set; } = default!;

    [Inject] private ISnackbar Snackbar { get; set; } = default!;

    [Inject] private NavigationManager Navigation { get; set; } = default!;

    [Parameter] public string Id { get; set; } = "";

    /// <summary>The run's frozen configuration; null where run.json cannot be read.</summary>
    private RunConfig? Config { get; set; }

    private double Fraction => _run?.State == RunState.Completed ? 1 : _snapshot.Fraction;

    private TimeSpan? Silence => _run?.State == RunState.Running && _snapshot.LastEvent is { } last && Time.GetUtcNow() - last > LongSilence ? Time.GetUtcNow() - last : null;

    protected override async Task LoadAsync()
    {
        _run = Store.IsName(Id) ? await Queue.FindAsync(Id, Gone) : null;
        _all = _run is null ? [] : await Queue.ListAsync(cancel: Gone);
        if (_shown != Id) Config = ReadConfig();
        _shown = Id;
        _snapshot = _run is null ? RunSnapshot.Empty : Feed.Snapshot(Id);
        _read = true;
        Watch(_run is null ? [] : [Id]);
    }

    protected override async Task OnParametersSetAsync()
    {
        if (_read && _shown != Id) await LoadAsync();
    }

    protected override void Reported() => _snapshot = Feed.Snapshot(Id);

    private string FirstCheckpoint => Config?.Training switch
    {
        { CheckpointInterval: > 0 } training => $"The first is written after {training.CheckpointInterval} steps.",
        { CheckpointMinutes: > 0 } training => $"The first is written after {training.CheckpointMinutes} minutes.",
        _ => "One is written at the end, and when the run is stopped.",
    };

    private async Task DuplicateAsync()
    {
        try { Navigation.NavigateTo($"runs/{(await Queue.DuplicateAsync(Id, cancel: Gone)).Id}"); }
        catch (Exception e) when (e is UserException or ProblemsException) { Snackbar.Add(e.Message, Severity.Error); }
    }

    private async Task DeleteAsync()
    {
        if (await RunDeletion.AskAsync([_run!], Queue, Store, Dialogs, Snackbar) && await Queue.FindAsync(Id, Gone) is null) Navigation.NavigateTo("runs");
    }

    private RunConfig? ReadConfig()
    {
        try { return _run is not null && RunFolder.TryOpen(Store, Id, out RunFolder? folder) ? folder.Read().Config : null; }
        catch (UserException) { return null; }
    }
}
