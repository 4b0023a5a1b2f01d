using Microsoft.AspNetCore.Components;
using MudBlazor;
using NopeGpt.Jobs;
using NopeGpt.Jobs.Configuration;
using NopeGpt.Jobs.Queue;
using NopeGpt.Model;
using NopeGpt.Web.Tokens;

namespace NopeGpt.Web.Components.Pages;

/// <summary>The form of a new tokenizer.</summary>
public sealed partial class TrainTokenizer : IDisposable
{
    private static readonly TimeSpan Typing = TimeSpan.FromMilliseconds(300);

    private readonly CancellationTokenSource _gone = new();
    private TokenizerForm _form = default!;
    private CancellationTokenSource? _looking;
    private string? _about;
    private bool _named;
    private bool _starting;

    [Inject] private Store Store { get; set; } = default!;

    [Inject] private RunQueue Queue { get; set; } = default!;

    [Inject] private NavigationManager Navigation { get; set; } = default!;

    [Inject] private ISnackbar Snackbar { get; set; } = default!;

    protected override void OnInitialized() => _form = new TokenizerForm(Store);

    protected override async Task OnAfterRenderAsync(bool firstRender)
    {
        if (firstRender) await LookAsync(TimeSpan.Zero);
    }

    public void Dispose()
    {
        _looking?.Cancel();
        _gone.Cancel();
        _gone.Dispose();
    }

    private async Task Type(Setting setting, string text)
    {
        _form.Type(setting, text);
        if (setting.Name == "name") _named = true;
        if (setting.Name == "source") await LookAsync(Typing);
    }

    // An empty name is no mistake before anything was typed; the list beside tells of it all the same.
    private IEnumerable<Problem> Shown(Setting setting) => _form.ProblemsOf(setting).Where(p => _named || p.Value.Length > 0);

    private IReadOnlyList<string> Choices(Setting setting) => setting.Name == "source" ? _form.Sources : [];

    /// <summary>Says what the source holds, as soon as nobody types any more.</summary>
    private async Task LookAsync(TimeSpan wait)
    {
        _looking?.Cancel();
        using CancellationTokenSource mine = CancellationTokenSource.CreateLinkedTokenSource(_gone.Token);
        _looking = mine;
        try
        {
            await Task.Delay(wait, mine.Token);
            string address = _form.Config.Tokenizer.Source;
            _about = await Task.Run(() => TokenizerForm.Describe(address, mine.Token), mine.Token);
            StateHasChanged();
        }
        catch (Exception e) when (e is OperationCanceledException or ObjectDisposedException) { /* another text was typed, or the page has been left */ }
        finally
        {
            if (_looking == mine) _looking = null;
        }
    }

    private async Task StartAsync()
    {
        // Stays set after success: a second click may come before the browser has left the page.
        if (_starting || _form.Problems.Count > 0) return;
        _starting = true;
        try
        {
            RunRow run = await Queue.AddAsync(_form.Config);
            Navigation.NavigateTo($"runs/{run.Id}");
        }
        catch (Exception e) when (e is UserException or ProblemsException)
        {
            _starting = false;
            Snackbar.Add(e.Message, Severity.Error);
        }
    }
}
