using Microsoft.AspNetCore.Components;
using NopeGpt.Jobs.Queue;
using NopeGpt.Web.Live;

namespace NopeGpt.Web.Components.Parts;

/// <summary>A component that shows runs as they are now. It reads the run table again soon after any run changed, and renders again,
/// a few times a second (see <see cref="RunFeed.PagePause"/>), when the runs that it watches report something.</summary>
public abstract class LiveComponent : ComponentBase, IDisposable
{
    private static readonly TimeSpan Pause = TimeSpan.FromMilliseconds(250);

    // So that "2 min ago" stays true, and the silence of a trainer is noticed, where nothing is reported.
    private static readonly TimeSpan Tick = TimeSpan.FromSeconds(5);

    private readonly CancellationTokenSource _gone = new();
    private Dictionary<string, IDisposable> _watched = [];
    private int _pending;
    private int _hearing;
    private long _heard;

    [Inject] internal RunQueue Queue { get; set; } = default!;

    [Inject] internal RunFeed Feed { get; set; } = default!;

    protected CancellationToken Gone => _gone.Token;

    /// <summary>Reads what the component shows from the store; called at the start and after changes.</summary>
    protected abstract Task LoadAsync();

    protected override async Task OnInitializedAsync()
    {
        Queue.Changed += Changed;
        await LoadAsync();
        _ = TickAsync();
    }

    /// <summary>Follows exactly these runs; none any more once the page has been left.</summary>
    protected void Watch(IEnumerable<string> ids)
    {
        // A page may be left while it reads the store: nobody would end what it began to follow after that.
        if (_gone.IsCancellationRequested) ids = [];
        Dictionary<string, IDisposable> next = [];
        foreach (string id in ids.Distinct(StringComparer.Ordinal))
            next[id] = _watched.Remove(id, out IDisposable? already) ? already : Feed.Subscribe(id, Hear);
        foreach (IDisposable left in _watched.Values) left.Dispose();
        _watched = next;
    }

    /// <summary>Called on the component's own thread when a watched run has reported something, before it is rendered.</summary>
    protected virtual void Reported() { }

    private void Changed(string id)
    {
        if (Interlocked.Exchange(ref _pending, 1) == 0) _ = ReloadAsync();
    }

    private async Task ReloadAsync()
    {
        try
        {
            await Task.Delay(Pause, _gone.Token);
            Interlocked.Exchange(ref _pending, 0);
            await InvokeAsync(async () =>
            {
                await LoadAsync();
                StateHasChanged();
            });
        }
        catch (Exception e) when (e is OperationCanceledException or ObjectDisposedException) { /* the page has been left */ }
        catch (Exception e) { await DispatchExceptionAsync(e); }
    }

    private void Hear()
    {
        if (Interlocked.Exchange(ref _hearing, 1) == 0) _ = RenderSoonAsync();
    }

    private async Task RenderSoonAsync()
    {
        try
        {
            TimeSpan left = Feed.PagePause - TimeProvider.System.GetElapsedTime(_heard);
            if (left > TimeSpan.Zero) await Task.Delay(left, _gone.Token);
            _heard = TimeProvider.System.GetTimestamp();
            Interlocked.Exchange(ref _hearing, 0);
            await RenderAsync();
        }
        catch (Exception e) when (e is OperationCanceledException or ObjectDisposedException) { /* the page has been left */ }
    }

    private async Task TickAsync()
    {
        try
        {
            using PeriodicTimer timer = new(Tick);
            while (await timer.WaitForNextTickAsync(_gone.Token)) await RenderAsync();
        }
        catch (Exception e) when (e is OperationCanceledException or ObjectDisposedException) { /* the page has been left */ }
    }

    private async Task RenderAsync()
    {
        try
        {
            await InvokeAsync(() =>
            {
                if (_gone.IsCancellationRequested) return;
                Reported();
                StateHasChanged();
            });
        }
        catch (ObjectDisposedException) { /* the page has been left */ }
    }

    public void Dispose()
    {
        Dispose(disposing: true);
        GC.SuppressFinalize(this);
    }

    protected virtual void Dispose(bool disposing)
    {
        if (!disposing) return;
        Queue.Changed -= Changed;
        _gone.Cancel();
        Watch([]);
        _gone.Dispose();
    }
}
