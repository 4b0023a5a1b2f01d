using System.Globalization;
using Microsoft.AspNetCore.Components;
using Microsoft.AspNetCore.Components.Routing;
using Microsoft.AspNetCore.WebUtilities;
using Microsoft.Extensions.Primitives;
using NopeGpt.Data.Chat;
using NopeGpt.Data.Documents;
using NopeGpt.Jobs;
using NopeGpt.Jobs.Configuration;

namespace NopeGpt.Web.Components.Parts.Datasets;

/// <summary>Shows one row of a data set. What is shown stands in the page's address: view, row and part counted from 1, and the options of a batch.</summary>
public sealed partial class RowPreview : IDisposable
{
    private const int MostTokens = 4096, MostDocuments = 12;

    private static readonly (string Key, string Word)[] Views = [("raw", "Raw"), ("tokens", "Tokens"), ("loss", "What the loss sees")];

    // One row is read at a time, on a thread that is not the page's.
    private readonly SemaphoreSlim _turn = new(1, 1);
    private DatasetReader? _reader;
    private bool _left;
    private string _view = "raw";
    private long _row;
    private LossOptions _options = new();
    private string? _problem;
    private string? _shown;
    private DocumentPart? _part;
    private LossRow? _loss;
    private IReadOnlyList<(string? Title, IReadOnlyList<ChatTurn> Turns)> _turns = [];
    private bool _isCut;

    [Inject] internal Store Store { get; set; } = default!;

    [Inject] internal NavigationManager Navigation { get; set; } = default!;

    [Parameter, EditorRequired] public string Name { get; set; } = "";

    /// <summary>Conversations 2k and 2k + 1 of a preference set belong together.</summary>
    [Parameter] public DatasetKind Kind { get; set; }

    private bool IsChat => Kind != DatasetKind.Text;

    private bool IsPacked => _options.Packed ?? !IsChat;

    private string LabelsKey => Settings.SnakeCase(_options.Labels.ToString());

    private string RowWord => _view == "loss" ? "Row" : IsChat ? "Conversation" : "Document";

    private long Rows => _view == "loss" ? _loss?.Rows ?? 1 : _reader?.Count ?? 1;

    protected override Task OnInitializedAsync()
    {
        Navigation.LocationChanged += Moved;
        return ReadAsync();
    }

    public void Dispose()
    {
        Navigation.LocationChanged -= Moved;
        _left = true;
        // Whoever reads now closes it afterwards.
        if (_turn.Wait(0)) Close();
    }

    private void Close()
    {
        _reader?.Dispose();
        _reader = null;
        _turn.Dispose();
    }

    private void Moved(object? sender, LocationChangedEventArgs change) => _ = InvokeAsync(async () =>
    {
        string page = Navigation.ToBaseRelativePath(change.Location).Split('?', '#')[0];
        if (page != $"datasets/{Name}" || change.Location == _shown || _left) return;
        await ReadAsync();
        if (!_left) StateHasChanged();
    });

    /// <summary>Reads what the address asks for.</summary>
    private async Task ReadAsync()
    {
        string address = _shown = Navigation.Uri;
        Dictionary<string, StringValues> query = QueryHelpers.ParseQuery(Navigation.ToAbsoluteUri(address).Query);
        string? Value(string name) => query.TryGetValue(name, out StringValues value) ? value.ToString() : null;
        string view = Views.Select(v => v.Key).FirstOrDefault(v => v == Value("view"), "raw");
        long row = long.TryParse(Value("row"), CultureInfo.InvariantCulture, out long asked) ? Math.Max(0, asked - 1) : 0;
        int part = int.TryParse(Value("part"), CultureInfo.InvariantCulture, out int piece) ? Math.Max(0, piece - 1) : 0;
        (_view, _row, _options) = (view, row, LossOptions.Read(Value));
        LossOptions options = _options;
        await _turn.WaitAsync();
        try
        {
            // A newer address came while this one waited.
            if (address != _shown || _left) return;
            await Task.Run(() => Read(view, row, part, options));
            _problem = null;
        }
        catch (Exception e) when (e is IOException or InvalidDataException or ArgumentException or UnauthorizedAccessException)
        {
            (_problem, _part, _loss) = (e.Message.Split(" (Parameter")[0], null, null);
        }
        finally
        {
            if (_left) Close();
            else _turn.Release();
        }
    }

    private void Read(string view, long row, int part, LossOptions options)
    {
        _reader ??= DatasetReader.Open(Store, Name);
        if (_reader.Count == 0) throw new InvalidDataException("It holds nothing to look at.");
        if (view == "loss")
        {
            (_loss, _part, _row) = (_reader.Loss(options, row), null, row);
            return;
        }
        row = Math.Min(row, _reader.Count - 1);
        _turns = !_reader.IsChat || view != "raw" ? []
            : Kind != DatasetKind.Preference ? [(null, _reader.Turns(row))]
            : [("Chosen", _reader.Turns(row & ~1L)), ("Rejected", _reader.Turns(Math.Min(row | 1, _reader.Count - 1)))];
        _isCut = _reader.IsChat && _reader.IsCut(row);
        (_part, _loss, _row) = (_reader.Part(row, part), null, row);
    }

    private void GoToRow(long row) => Go(("row", (row + 1).ToString(CultureInfo.InvariantCulture)), ("part", null));

    private void Go(params (string Name, string? Value)[] changes) =>
        Navigation.NavigateTo(Navigation.GetUriWithQueryParameters(changes.ToDictionary(c => c.Name, c => (object?)c.Value)), replace: true);

    private string RawAddress(long document) => $"datasets/{Name}?row={(document + 1).ToString(CultureInfo.InvariantCulture)}";

    private static string Place(int part) => part.ToString(CultureInfo.InvariantCulture);

    private static string Value(ChangeEventArgs e) => e.Value?.ToString() ?? "";

    private static string Flag(ChangeEventArgs e) => e.Value is true ? "true" : "false";

    private RenderFragment Number(string name, string label, int value, int least, int most) => builder =>
    {
        builder.OpenElement(0, "div");
        builder.AddAttribute(1, "class", "field");
        builder.OpenElement(2, "label");
        builder.AddAttribute(3, "for", $"loss-{name}");
        builder.AddContent(4, label);
        builder.CloseElement();
        builder.OpenElement(5, "input");
        builder.AddAttribute(6, "id", $"loss-{name}");
        builder.AddAttribute(7, "class", "input");
        builder.AddAttribute(8, "type", "number");
        builder.AddAttribute(9, "min", least);
        builder.AddAttribute(10, "max", most);
        builder.AddAttribute(11, "value", value);
        builder.AddAttribute(12, "onchange", EventCallback.Factory.Create<ChangeEventArgs>(this, e => Go((name, Value(e)), ("row", null))));
        builder.CloseElement();
        builder.CloseElement();
    };
}
