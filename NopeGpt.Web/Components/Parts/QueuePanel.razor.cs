using Microsoft.AspNetCore.Components;
using MudBlazor;
using NopeGpt.Jobs;
using NopeGpt.Jobs.Queue;

namespace NopeGpt.Web.Components.Parts;

/// <summary>The waiting runs in their order.</summary>
public sealed partial class QueuePanel
{
    private IReadOnlyList<RunRow> _waiting = [];
    private QueueSettings _settings = new();
    private string? _open;

    [Inject] private ISnackbar Snackbar { get; set; } = default!;

    protected override async Task OnInitializedAsync()
    {
        Queue.SettingsChanged += SettingsChanged;
        await base.OnInitializedAsync();
    }

    protected override async Task LoadAsync()
    {
        _waiting = await Queue.ListAsync(RunState.Queued, cancel: Gone);
        _settings = Queue.Settings;
    }

    // The command line may have changed them, which nobody tells.
    protected override void Reported() => _settings = Queue.Settings;

    protected override void Dispose(bool disposing)
    {
        if (disposing) Queue.SettingsChanged -= SettingsChanged;
        base.Dispose(disposing);
    }

    private void SettingsChanged() => _ = InvokeAsync(() =>
    {
        _settings = Queue.Settings;
        StateHasChanged();
    });

    // Moving stays among the runs of one priority.
    private bool IsFirst(int index) => index == 0 || _waiting[index - 1].Priority != _waiting[index].Priority;

    private bool IsLast(int index) => index == _waiting.Count - 1 || _waiting[index + 1].Priority != _waiting[index].Priority;

    private Task MoveAsync(RunRow run, QueueMove move) => GuardAsync(() => Queue.MoveAsync(run.Id, move));

    private Task HoldAsync(RunRow run) => GuardAsync(() => Queue.ChangeAsync(run.Id, new RunChange(Held: !run.Held)));

    private void Change(bool? paused = null, bool? stopAtFailure = null)
    {
        try { Queue.Change(paused, stopAtFailure); }
        catch (UserException e) { Snackbar.Add(e.Message, Severity.Error); }
    }

    private async Task GuardAsync(Func<Task> act)
    {
        try
        {
            await act();
            await LoadAsync();
        }
        catch (UserException e) { Snackbar.Add(e.Message, Severity.Error); }
    }
}
