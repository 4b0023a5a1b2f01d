using Microsoft.AspNetCore.Components;
using Microsoft.AspNetCore.Components.Rendering;
using Microsoft.AspNetCore.Components.Routing;
using Microsoft.AspNetCore.WebUtilities;
using MudBlazor;
using NopeGpt.Jobs;
using NopeGpt.Jobs.Configuration;
using NopeGpt.Jobs.Queue;
using NopeGpt.Model;

namespace NopeGpt.Web.Components.Parts.Datasets;

/// <summary>The form of a new data set. The page's address carries what was typed, so that it survives a reload and can be a link.</summary>
public sealed partial class AddDataset : IDisposable
{
    private static readonly (SourceMode Mode, string Word)[] Modes = [(SourceMode.Hub, "Hugging Face Hub"), (SourceMode.Files, "Files on this machine"), (SourceMode.Upload, "Upload"), (SourceMode.Stories, "Stories")];

    private PrepareForm _form = default!;
    private SourceSample? _sample;
    private long? _free;
    private bool _starting;
    private string _address = "";

    [Inject] internal Store Store { get; set; } = default!;

    [Inject] internal RunQueue Queue { get; set; } = default!;

    [Inject] internal NavigationManager Navigation { get; set; } = default!;

    [Inject] internal ISnackbar Snackbar { get; set; } = default!;

    /// <summary>Names that waiting and working runs are about to give.</summary>
    [Parameter] public IReadOnlySet<string> NamesInWork { get; set; } = new HashSet<string>();

    private bool IsText => _form.Recipe.Kind is PrepareKind.Auto or PrepareKind.Text;

    private IReadOnlyList<string>? Columns => _sample is { Columns: { } columns } && _sample.Source == _form.Source ? columns : null;

    private string? Licence => _sample?.Hub?.Licence ?? _form.Known?.Licence;

    private IEnumerable<string> More => ["tokenizer_bytes", .. _form.Mode == SourceMode.Stories ? (string[])[] : ["alpaca_prompt", "tool_call_markup"], "workers", "seed"];

    protected override void OnInitialized()
    {
        Navigation.LocationChanged += Moved;
        Begin();
    }

    protected override void OnParametersSet()
    {
        if (_form.NamesInWork.SetEquals(NamesInWork)) return;
        _form.NamesInWork = NamesInWork;
        _form.Check();
    }

    public void Dispose() => Navigation.LocationChanged -= Moved;

    private void Begin()
    {
        _address = Navigation.Uri;
        _form = new PrepareForm(Store, QueryHelpers.ParseQuery(Navigation.ToAbsoluteUri(Navigation.Uri).Query).Select(p => KeyValuePair.Create(p.Key, p.Value.ToString()))) { NamesInWork = NamesInWork };
        _form.CheckTokenizer();
        if (_sample?.Source != _form.Source) _sample = null;
        try { _free = new DriveInfo(Store.Root).AvailableFreeSpace; }
        catch (Exception e) when (e is IOException or UnauthorizedAccessException or ArgumentException) { _free = null; /* not every file system tells */ }
        _ = FindFilesAsync();
    }

    // A link of the catalogue, or the way back: what the form itself wrote into the address is not news to it.
    private void Moved(object? sender, LocationChangedEventArgs change) => _ = InvokeAsync(() =>
    {
        string page = Navigation.ToBaseRelativePath(change.Location).Split('?', '#')[0];
        if (page != "datasets" || Query(change.Location) == Query(_address)) return;
        Begin();
        StateHasChanged();
    });

    private static string Query(string address) => address.Split('#')[0];

    /// <summary>Writes the form into the address, as soon as a field is left.</summary>
    private Task LeftAsync()
    {
        if (_starting) return Task.CompletedTask;
        string address = QueryHelpers.AddQueryString(Navigation.ToAbsoluteUri("datasets").ToString(), _form.State.Select(p => KeyValuePair.Create(p.Key, (string?)p.Value)));
        bool untouched = _form.State.Count == 1 && !Navigation.Uri.Contains('?', StringComparison.Ordinal) && _form.Mode == SourceMode.Hub;
        if (untouched || address == _address) return Task.CompletedTask;
        _address = address;
        Navigation.NavigateTo(address, replace: true);
        return Task.CompletedTask;
    }

    private async Task ChooseAsync(SourceMode mode)
    {
        _form.Choose(mode);
        _sample = null;
        await SourceChangedAsync();
    }

    private Task ChooseUploadedAsync(string path)
    {
        _form.ChooseUploaded(path);
        return SourceChangedAsync();
    }

    private async Task SourceChangedAsync()
    {
        if (_sample?.Source != _form.Source) _sample = null;
        await LeftAsync();
        await FindFilesAsync();
    }

    private async Task FindFilesAsync()
    {
        if (!_form.NeedsFacts) return;
        string source = _form.Source;
        SourceFacts facts = await Task.Run(() => PrepareForm.FactsOf(source));
        _form.TakeFacts(facts);
        await InvokeAsync(StateHasChanged);
    }

    private async Task TokenizerChangedAsync()
    {
        await Task.Run(_form.CheckTokenizer);
        await LeftAsync();
    }

    private void Look(SourceSample sample) => _sample = sample;

    private void Set(string name, string text) => _form.Type(name, text);

    private static void Type(ChangeEventArgs e, Action<string> take) => take(e.Value?.ToString() ?? "");

    private string Bytes()
    {
        if (_sample is { } sample && sample.Source == _form.Source) return $"{Figures.Bytes(sample.Bytes)} in {sample.Files.Count} {(sample.Files.Count == 1 ? "file" : "files")}";
        if (_form.Facts is { Problem: null } facts) return $"{Figures.Bytes(facts.Bytes)} in {facts.Files} {(facts.Files == 1 ? "file" : "files")}";
        return _form.Mode == SourceMode.Stories ? $"nothing; {Figures.Bytes(_form.Recipe.CorpusBytes)} are written" : _form.Known?.Size ?? (_form.Mode == SourceMode.Hub ? "known after a look" : "–");
    }

    private IEnumerable<string> Warnings()
    {
        long? bytes = _sample is { } sample && sample.Source == _form.Source ? sample.Bytes : _form.Facts?.Bytes;
        // Token files take about half of plain text, and several times what compressed text does.
        if (bytes is { } wanted && _free is { } free && wanted > free / 2 && _form.Recipe.MaxTokens == 0) yield return "The disk may become too small: free some space, choose a smaller subset, or end at a number of tokens.";
        if (_form.Known?.Peculiar is { } peculiar) yield return peculiar;
        if (_form.Recipe.Dataset is { Length: > 0 } name && Store.IsName(name) && _form.Recipe.Tokenizer != name && Directory.Exists(Store.TokenizerFolder(name)))
            yield return $"The store has a tokenizer {name}: this data set's own takes its place.";
        if (_sample?.MappingProblem is { } problem && _form.Recipe.Columns.Length == 0) yield return problem;
    }

    private RenderFragment Field(string name) => (RenderTreeBuilder builder) =>
    {
        Setting setting = PrepareForm.Field(name);
        builder.OpenComponent<SettingField>(0);
        builder.SetKey(name);
        builder.AddComponentParameter(1, nameof(SettingField.Setting), setting);
        builder.AddComponentParameter(2, nameof(SettingField.Text), _form.Text(setting));
        builder.AddComponentParameter(3, nameof(SettingField.Wrong), (IReadOnlyList<Problem>)[.. _form.ProblemsOf(setting.Path)]);
        builder.AddComponentParameter(4, nameof(SettingField.TextChanged), EventCallback.Factory.Create<string>(this, text => _form.Type(setting, text)));
        builder.CloseComponent();
    };

    private async Task StartAsync()
    {
        if (_starting || _form.Problems.Count > 0) return;
        _starting = true;
        try
        {
            RunConfig config = _form.Config;
            // Finding the files of a large folder takes a moment.
            RunRow run = await Task.Run(() => Queue.AddAsync(config));
            Snackbar.Add($"{run.Title} is in the queue.", Severity.Success);
            Navigation.NavigateTo("datasets#in-work");
        }
        catch (Exception e) when (e is UserException or ProblemsException)
        {
            Snackbar.Add(e.Message, Severity.Error);
        }
        finally
        {
            _starting = false;
        }
    }
}
