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
    private Conversation _conversation = default!;
    private Sampling _sampling = new();
    private ElementReference _root;
    private IJSObjectReference? _composer;
    private DotNetObjectReference<ChatPage>? _self;
    private bool _attaching;

    [Inject] private InferenceClient Client { get; set; } = default!;

    [Inject] private NavigationManager Navigation { get; set; } = default!;

    [Inject] private TimeProvider Time { get; set; } = default!;

    [Inject] private IJSRuntime Js { get; set; } = default!;

    [SupplyParameterFromQuery(Name = "model")]
    public string? Model { get; set; }

    private string RunId => Model?.Split('/')[0] is { } id && _models!.Any(r => r.Id == id) ? id : _models![0].Id;

    private string? StepText => Model?.Split('/') is [var id, var step] && id == RunId && step.Length > 0 ? step : null;

    protected override Task OnInitializedAsync()
    {
        _conversation = new Conversation(Client, Time);
        return base.OnInitializedAsync();
    }

    protected override async Task LoadAsync()
    {
        IReadOnlyList<RunRow> runs = await Queue.ListAsync(kind: RunKind.Pretrain, cancel: Gone);
        _models = [.. runs.Where(r => Feed.Snapshot(r.Id).Checkpoints.Count > 0).OrderByDescending(r => r.Created)];
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
            _composer = await module.InvokeAsync<IJSObjectReference>("attach", _root, _self);
        }
        catch (JSDisconnectedException) { /* the tab is gone */ }
    }

    /// <summary>Called by the page when a text is sent.</summary>
    [JSInvokable]
    public Task SendAsync(string text) => _conversation.SayAsync(text.Trim(), Request, StateHasChanged);

    public async ValueTask DisposeAsync()
    {
        Dispose();
        try
        {
            if (_composer is not null)
            {
                await _composer.InvokeVoidAsync("dispose");
                await _composer.DisposeAsync();
            }
        }
        catch (JSDisconnectedException) { /* the tab is gone */ }
        _self?.Dispose();
    }

    protected override void Dispose(bool disposing)
    {
        if (disposing) _conversation?.Dispose();
        base.Dispose(disposing);
    }

    private Task AgainAsync() => _conversation.AgainAsync(Request, StateHasChanged);

    private void Clear() => _conversation.Clear();

    private ChatRequest Request(IReadOnlyList<ChatMessage> messages) => new(StepText is { } step ? $"{RunId}/{step}" : RunId, messages,
        _sampling.Temperature, _sampling.TopK, _sampling.TopP, _sampling.Seed, _sampling.MaxTokens);

    private void Choose(string? run, string? step) => Navigation.NavigateTo($"chat?model={run}{(string.IsNullOrEmpty(step) ? "" : "/" + step)}", replace: true);

    private static string Number(double value) => value.ToString("0.##", CultureInfo.InvariantCulture);
}
