using Microsoft.AspNetCore.Components;
using MudBlazor;
using NopeGpt.Jobs;
using NopeGpt.Jobs.Queue;
using NopeGpt.Web.Components.Parts;
using NopeGpt.Web.Tokens;

namespace NopeGpt.Web.Components.Pages;

/// <summary>The tokenizers of the store and the published ones: tried on a text, compared, imported, deleted. What is shown stands in the address:
/// /tokenizers?tokenizer=NAME&amp;with=OTHER,OTHER&amp;specials=1&amp;sample=DATASET&amp;text=...</summary>
public sealed partial class TokenizersPage
{
    internal const string FirstText = "Once upon a time there were 3 little pigs who had 12345678 bricks.\n\tNaïve café, Ωμέγα, Привет, नमस्ते, שלום, 日本語 👩‍🚀🎉\n<|endoftext|>";

    // A longer one makes an address that is of no use (js/typed.js).
    private const int MostTextInAddress = 800;
    private const int MostOthers = 8;

    private readonly HashSet<string> _getting = new(StringComparer.Ordinal);
    private readonly Dictionary<string, string> _failures = new(StringComparer.Ordinal);
    private TokenizerDesk _desk = default!;
    private IReadOnlyList<TokenizerCard>? _cards;
    private IReadOnlyList<RunRow> _training = [];
    private IReadOnlyList<string> _datasets = [];
    private string _text = FirstText;
    private string _seen = "", _asked = "";
    private bool _live;

    [Inject] internal TokenizerShelf Shelf { get; set; } = default!;

    [Inject] private Store Store { get; set; } = default!;

    [Inject] private NavigationManager Navigation { get; set; } = default!;

    [Inject] private ISnackbar Snackbar { get; set; } = default!;

    [Inject] private IDialogService Dialogs { get; set; } = default!;

    /// <summary>The tokenizer whose tokens are shown.</summary>
    [SupplyParameterFromQuery(Name = "tokenizer")] public string? TokenizerName { get; set; }

    /// <summary>Those that it is compared with, separated by commas; all where it is missing.</summary>
    [SupplyParameterFromQuery(Name = "with")] public string? With { get; set; }

    [SupplyParameterFromQuery(Name = "specials")] public string? SpecialsText { get; set; }

    /// <summary>The data set on whose text is compared.</summary>
    [SupplyParameterFromQuery(Name = "sample")] public string? SampleName { get; set; }

    /// <summary>The text that the page begins with.</summary>
    [SupplyParameterFromQuery(Name = "text")] public string? FirstTextOfAddress { get; set; }

    private string Chosen => TokenizerName is { Length: > 0 } name ? name : _cards?.Where(c => c is { IsUsable: true, IsPublished: false }).MaxBy(c => c.Made)?.Name ?? "cl100k_base";

    private bool Specials => SpecialsText == "1";

    private string? Sample => SampleName is { Length: > 0 } name && Store.IsName(name) ? name : null;

    // The browser has put it there, which the navigation manager does not know of.
    private string? TextInAddress => _text.Length is > 0 and <= MostTextInAddress && _text != FirstText ? _text : null;

    private IReadOnlyList<string> Others => With is { } with
        ? [.. with.Split(',', StringSplitOptions.RemoveEmptyEntries).Where(name => name != Chosen).Distinct()]
        : [.. (_cards ?? []).Where(c => c.IsUsable && c.Name != Chosen).Select(c => c.Name).Take(MostOthers)];

    protected override async Task OnInitializedAsync()
    {
        _desk = new TokenizerDesk(Shelf, Store);
        _desk.Changed += Render;
        if (FirstTextOfAddress is { Length: > 0 and <= TypedText.MostCharacters } text) _text = text;
        await base.OnInitializedAsync();
    }

    // The server's first rendering does not wait for files to be read.
    protected override async Task OnAfterRenderAsync(bool firstRender)
    {
        if (!firstRender) return;
        _live = true;
        await RefreshAsync();
    }

    protected override async Task LoadAsync()
    {
        IReadOnlyList<RunRow> runs = await Queue.ListAsync(cancel: Gone);
        _training = [.. runs.Where(r => r.Kind == RunKind.Tokenizer && RunStates.Active.Contains(r.State))];
        Watch(_training.Select(r => r.Id));
        // A run that has ended may have made a tokenizer, or a data set with one.
        string ended = string.Join(' ', runs.Where(r => r.Kind is RunKind.Tokenizer or RunKind.Prepare).Select(r => $"{r.Id} {r.State}"));
        if (_seen == ended) return;
        _seen = ended;
        if (_live) await RefreshAsync();
    }

    protected override void OnParametersSet() => Ask();

    protected override void Dispose(bool disposing)
    {
        if (disposing)
        {
            _desk.Changed -= Render;
            _desk.Dispose();
        }
        base.Dispose(disposing);
    }

    private async Task RefreshAsync()
    {
        try
        {
            CancellationToken gone = Gone;
            (IReadOnlyList<TokenizerCard> cards, IReadOnlyList<string> datasets) = await Task.Run(() => (Shelf.List(gone), (IReadOnlyList<string>)[.. RunConfigChecks.DatasetNames(Store)]), gone);
            // The same objects while nothing has changed, so that the lists of choices stay as they are.
            if (_cards is null || !Shown(_cards).SequenceEqual(Shown(cards))) _cards = cards;
            if (!_datasets.SequenceEqual(datasets)) _datasets = datasets;
            Ask();
            StateHasChanged();
        }
        catch (Exception e) when (e is OperationCanceledException or ObjectDisposedException) { /* the page has been left */ }
    }

    private static IEnumerable<string> Shown(IReadOnlyList<TokenizerCard> cards) => cards.Select(c => $"{c.Name} {c.IsHere} {c.Hash} {c.Problem} {c.Made} {c.Info} {string.Join(' ', c.Datasets)}");

    /// <summary>Asks where the question is another one than before.</summary>
    private void Ask()
    {
        if (!_live || _cards is null) return;
        string question = string.Join('\n', [Chosen, .. Others, Specials.ToString(), Sample ?? "", _text]);
        if (question == _asked) return;
        _asked = question;
        _ = AskAsync(new TokenizerQuestion(_text, Chosen, Others, Specials, Sample));
    }

    private async Task AskAsync(TokenizerQuestion question)
    {
        try { await _desk.AskAsync(question); }
        catch (Exception e) { await DispatchExceptionAsync(e); }
    }

    private void Render()
    {
        _ = InvokeAsync(() =>
        {
            StateHasChanged();
        });
    }

    private void Type(string text)
    {
        _text = text;
        Ask();
    }

    private void Toggle(string name) => Show(with: Others.Contains(name) ? [.. Others.Where(o => o != name)] : [.. Others, name]);

    private void Show(string? tokenizer = null, IReadOnlyList<string>? with = null, bool? specials = null, string? sample = null) => Navigation.NavigateTo(Navigation.GetUriWithQueryParameters(new Dictionary<string, object?>
    {
        ["tokenizer"] = tokenizer ?? TokenizerName,
        ["with"] = with is null ? With : string.Join(',', with),
        ["specials"] = specials ?? Specials ? "1" : null,
        ["sample"] = (sample ?? SampleName) is { Length: > 0 } name ? name : null,
        ["text"] = TextInAddress,
    }), replace: true);

    /// <summary>The address of the page with another tokenizer.</summary>
    private string Address(string name) => Navigation.GetUriWithQueryParameters(new Dictionary<string, object?> { ["tokenizer"] = name, ["text"] = TextInAddress });

    private async Task GetAsync(TokenizerCard card)
    {
        if (!_getting.Add(card.Name)) return;
        _failures.Remove(card.Name);
        try
        {
            CancellationToken gone = Gone;
            await Task.Run(() => Store.TokenizerDownload.GetAsync(card.Name, gone), gone);
            Snackbar.Add($"{card.Name} is here now.", Severity.Success);
        }
        catch (IOException e) { _failures[card.Name] = $"{e.Message.TrimEnd('.')}. Without a connection, get the file elsewhere and import it below."; }
        catch (Exception e) when (e is OperationCanceledException or ObjectDisposedException) { return; /* the page has been left */ }
        finally { _getting.Remove(card.Name); }
        _asked = "";
        await RefreshAsync();
    }

    private async Task DeleteAsync(TokenizerCard card)
    {
        if (await UserAsync(card.Name) is { } user)
        {
            Snackbar.Add($"{card.Name} is used by {user}: stop that run first, or wait for its end.", Severity.Error);
            return;
        }
        string keep = card.Datasets.Count > 0 ? $"The data sets made with it ({string.Join(", ", card.Datasets)})" : "Data sets, checkpoints and models";
        bool? sure = await Dialogs.ShowMessageBoxAsync("Delete this tokenizer?", $"{card.Name} leaves the store for good. {keep} have copies of their own and stay as they are.", yesText: "Delete it", cancelText: "Keep it");
        if (sure != true) return;
        try
        {
            await Task.Run(() => Shelf.Library.Delete(card.Name));
            if (TokenizerName == card.Name) Navigation.NavigateTo(Navigation.GetUriWithQueryParameters(new Dictionary<string, object?> { ["tokenizer"] = null, ["text"] = TextInAddress }), replace: true);
        }
        catch (UserException e) { Snackbar.Add(e.Message, Severity.Error); }
        await RefreshAsync();
    }

    /// <summary>The unfinished run that needs a tokenizer by its name; null where none does.</summary>
    private async Task<string?> UserAsync(string name)
    {
        foreach (RunRow run in (await Queue.ListAsync(kind: RunKind.Prepare, cancel: Gone)).Where(r => RunStates.Active.Contains(r.State)))
        {
            try
            {
                if (RunFolder.TryOpen(Store, run.Id, out RunFolder? folder) && folder.Read().Config.Prepare.Tokenizer == name) return run.Title;
            }
            catch (UserException) { /* a damaged run names nothing */ }
        }
        return null;
    }

    private Task ImportedAsync(string name)
    {
        Show(tokenizer: name);
        return RefreshAsync();
    }
}
