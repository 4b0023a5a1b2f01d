using System.Globalization;
using Microsoft.AspNetCore.Components;
using Microsoft.JSInterop;
using NopeGpt.Jobs;
using NopeGpt.Jobs.Queue;
using NopeGpt.Web.Chat;
using NopeGpt.Web.Components.Parts;

namespace NopeGpt.Web.Components.Pages;

/// <summary>A conversation with any checkpoint of any training run. The model stands in the address: /chat?model=RUN or RUN/STEP.</summary>
public sealed partial class ChatPage
{
    private static readonly string[] Suggestions = ["Once upon a time", "One day, a little fox", "There was a girl who", "The old clock"];

    private IReadOnlyList<RunRow>? _models;
    private ChatSession _session = default!;
    private ElementReference _root;
    private IJSObjectReference? _composer;
    private DotNetObjectReference<ChatPage>? _self;
    private bool _attaching;
    private bool _left;

    [Inject] private InferenceClient Client { get; set; } = default!;

    [Inject] private NavigationManager Navigation { get; set; } = default!;

    [Inject] private TimeProvider Time { get; set; } = default!;

    [Inject] private IJSRuntime Js { get; set; } = default!;

    [SupplyParameterFromQuery(Name = "model")]
    public string? Model { get; set; }

    private string RunId => Model?.Split('/')[0] is { } id && _models!.Any(r => r.Id == id) ? id : _models![0].Id;

    private string? StepText => Model?.Split('/') is [var id, var step] && id == RunId && step.Length > 0 ? step : null;

    private string Chosen => StepText is { } step ? $"{RunId}/{step}" : RunId;

    protected override Task OnInitializedAsync()
    {
        _session = new ChatSession(Client);
        _session.Changed += StateHasChanged;
        return base.OnInitializedAsync();
    }

    protected override async Task LoadAsync()
    {
        IReadOnlyList<RunRow> runs = await Queue.ListAsync(cancel: Gone);
        _models = [.. runs.Where(r => r.Kind.Trains() && Feed.Snapshot(r.Id).Checkpoints.Count > 0).OrderByDescending(r => r.Created)];
    }

    protected override async Task OnAfterRenderAsync(bool firstRender)
    {
        // The form appears once there is a model; from then on js/chat.js listens to it.
        if (_attaching || _models is not { Count: > 0 }) return;
        _attaching = true;
        try
        {
            _self = DotNetObjectReference.Create(this);
            await using IJSObjectReference module = await Js.InvokeAsync<IJSObjectReference>("import", "./js/chat.js");
            if (_left) return;
            _composer = await module.InvokeAsync<IJSObjectReference>("attach", _root, _self);
            if (_left) await EndAsync();
        }
        catch (JSDisconnectedException) { /* the tab is gone */ }
        catch (Exception e) when (_left && e is (JSException or ObjectDisposedException)) { /* the page was left before its elements were looked up */ }
    }

    /// <summary>Called by the page when a text is sent.</summary>
    [JSInvokable]
    public Task SendAsync(string text)
    {
        if (_session.IsBusy || string.IsNullOrWhiteSpace(text)) return Task.CompletedTask;
        _session.Model = Chosen;
        return _session.SendAsync(text.Trim());
    }

    public async ValueTask DisposeAsync()
    {
        _left = true;
        Dispose();
        await EndAsync();
        _self?.Dispose();
    }

    private async ValueTask EndAsync()
    {
        (IJSObjectReference? composer, _composer) = (_composer, null);
        try
        {
            if (composer is null) return;
            await composer.InvokeVoidAsync("dispose");
            await composer.DisposeAsync();
        }
        catch (JSDisconnectedException) { /* the tab is gone */ }
    }

    protected override void Dispose(bool disposing)
    {
        if (disposing) _session?.Dispose();
        base.Dispose(disposing);
    }

    private Task AgainAsync()
    {
        _session.Model = Chosen;
        return _session.RegenerateAsync();
    }

    // The last text comes back into the field, and with it the conversation to where it was.
    private async Task EditAsync()
    {
        int last = _session.Messages.Select((m, i) => (m, i)).Last(p => p.m.Role == "user").i;
        string text = _session.TakeBack(last);
        if (_composer is not null) await _composer.InvokeVoidAsync("put", text);
    }

    private string Ending(string? reason) => reason switch
    {
        "length" => "as long as allowed",
        null when _session.Error is null => "stopped",
        _ => "",
    };

    // Another model goes on with the same conversation.
    private void Choose(string? run, string? step) => Navigation.NavigateTo($"chat?model={run}{(string.IsNullOrEmpty(step) ? "" : "/" + step)}", replace: true);

    private static string Number(double value) => value.ToString("0.##", CultureInfo.InvariantCulture);
}
