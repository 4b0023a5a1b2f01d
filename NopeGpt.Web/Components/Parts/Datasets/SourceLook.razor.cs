using Microsoft.AspNetCore.Components;
using NopeGpt.Data.Documents.Hub;
using NopeGpt.Jobs;

namespace NopeGpt.Web.Components.Parts.Datasets;

/// <summary>Looks at a source when asked, and can be stopped.</summary>
public sealed partial class SourceLook : IDisposable
{
    private const int MostFiles = 20;

    // Of the Hub only the list is asked for at first; a file of it may take long, and shows how far it is.
    private static readonly TimeSpan Longest = TimeSpan.FromSeconds(60), LongestDownload = TimeSpan.FromMinutes(30);

    private SourceSample? _sample;
    private CancellationTokenSource? _cancel;
    private string? _problem;
    private string _doing = "";
    private string _source = "";
    private long _shown;

    [Inject] internal Store Store { get; set; } = default!;

    [Parameter, EditorRequired] public PrepareConfig Recipe { get; set; } = default!;

    /// <summary>Whether there is anything to look at.</summary>
    [Parameter] public bool Ready { get; set; }

    [Parameter] public EventCallback<SourceSample> Looked { get; set; }

    /// <summary>Of the Hub the list of files is asked for first.</summary>
    [Parameter] public bool IsHub { get; set; }

    protected override void OnParametersSet()
    {
        if (_source == Recipe.Source) return;
        // Another source: what was seen or went wrong is not of it.
        _source = Recipe.Source;
        _problem = null;
        Cancel();
    }

    public void Dispose() => Cancel();

    private async Task LookAsync(bool records)
    {
        Cancel();
        using CancellationTokenSource cancel = new(IsHub && records ? LongestDownload : Longest);
        (_cancel, _problem) = (cancel, null);
        _doing = IsHub ? "Asking the Hub…" : "Reading…";
        string source = Recipe.Source;
        try
        {
            SourceSample sample = await SourceSample.LookAsync(Store, Recipe, records, Downloaded, cancel.Token);
            if (source != Recipe.Source) return;
            _sample = sample;
            await Looked.InvokeAsync(sample);
        }
        catch (UserException e)
        {
            if (source == Recipe.Source) _problem = e.Message;
        }
        catch (OperationCanceledException)
        {
            // Cancelled by a person, or by the time: only that is worth a word.
            if (_cancel == cancel) _problem = IsHub ? $"The Hub at {Store.Hub.Endpoint} took too long. Is there a way to it from this machine?" : "It took too long. Is it a very large file without line ends, or on a slow disk?";
        }
        finally
        {
            if (_cancel == cancel) _cancel = null;
        }
    }

    private void Cancel()
    {
        (CancellationTokenSource? running, _cancel) = (_cancel, null);
        running?.Cancel();
    }

    // Comes from the threads that download, many times a second.
    private void Downloaded(DownloadProgress progress)
    {
        long now = Environment.TickCount64;
        if (now - Interlocked.Read(ref _shown) < 250) return;
        Interlocked.Exchange(ref _shown, now);
        _ = InvokeAsync(() =>
        {
            if (_cancel is null) return;
            _doing = $"Getting {progress.File}: {Figures.Bytes(progress.Bytes)} of {Figures.Bytes(progress.Total)}";
            StateHasChanged();
        });
    }
}
