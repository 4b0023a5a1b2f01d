using System.Text.Json;
using System.Threading.Channels;
using Microsoft.AspNetCore.SignalR.Client;
using Microsoft.Extensions.DependencyInjection;

namespace NopeGpt.Jobs.Training;

/// <summary>Where a running dashboard is reached: dashboard.json in the storage root.</summary>
public sealed record DashboardAddress(string Url, string Key, int ProcessId);

/// <summary>Sends events to the dashboard's hub while one runs. It never throws and never holds up its caller: what cannot be sent is
/// dropped, because the dashboard catches up from the file.</summary>
internal sealed class HubSender : IAsyncDisposable
{
    private static readonly TimeSpan Interval = TimeSpan.FromMilliseconds(250);
    private static readonly TimeSpan Patience = TimeSpan.FromSeconds(3);
    private const double LongestPauseSeconds = 10;
    private readonly string runId;
    private readonly Store store;
    private readonly Channel<TrainingEvent> queue = Channel.CreateBounded<TrainingEvent>(
        new BoundedChannelOptions(4096) { FullMode = BoundedChannelFullMode.DropOldest, SingleReader = true });
    private readonly CancellationTokenSource end = new();
    private readonly TaskCompletionSource closing = new(TaskCreationOptions.RunContinuationsAsynchronously);
    private readonly Task sending;

    public HubSender(string runId, Store store)
    {
        this.runId = runId;
        this.store = store;
        sending = Task.Run(SendAsync);
    }

    public void Offer(IEnumerable<TrainingEvent> events)
    {
        foreach (TrainingEvent happened in events) queue.Writer.TryWrite(happened);
    }

    /// <summary>Sends what is queued within a few seconds, or gives up.</summary>
    public async ValueTask DisposeAsync()
    {
        queue.Writer.Complete();
        closing.SetResult();
        end.CancelAfter(Patience);
        await sending;
        end.Dispose();
    }

    private async Task SendAsync()
    {
        HubConnection? connection = null;
        TimeSpan pause = Interval;
        try
        {
            while (await queue.Reader.WaitToReadAsync(end.Token))
            {
                connection = await ConnectedAsync(connection);
                if (connection is null)
                {
                    // No dashboard: what waits is in the file. Look again later, ever more rarely.
                    while (queue.Reader.TryRead(out _)) { }
                    if (closing.Task.IsCompleted) return;
                    pause = Longer(pause);
                }
                else if (await PublishAsync(connection)) pause = Interval;
                else
                {
                    // It refuses, or went away in the midst: dashboard.json may name another one by now. What was not sent is in the file.
                    await connection.DisposeAsync();
                    connection = null;
                    pause = Longer(pause);
                }
                // Events of one interval go out together; the end of the run cuts the wait short, and where nobody listens there is nothing to wait for.
                await Task.WhenAny(connection is null ? closing.Task : queue.Reader.Completion, Task.Delay(pause, end.Token));
            }
        }
        catch (OperationCanceledException) { }
        finally
        {
            if (connection is not null) await connection.DisposeAsync();
        }
    }

    private async Task<HubConnection?> ConnectedAsync(HubConnection? connection)
    {
        if (connection?.State == HubConnectionState.Connected) return connection;
        if (connection is not null) await connection.DisposeAsync();
        if (ReadAddress() is not { } dashboard) return null;
        HubConnection? fresh = null;
        try
        {
            fresh = new HubConnectionBuilder()
                .WithUrl(dashboard.Url.TrimEnd('/') + "/hubs/metrics", o => o.AccessTokenProvider = () => Task.FromResult<string?>(dashboard.Key))
                .AddJsonProtocol(o => o.PayloadSerializerOptions = TrainingEvent.Json)
                .Build();
            await fresh.StartAsync(end.Token);
            return fresh;
        }
        catch (Exception e) when (e is not OperationCanceledException)
        {
            // Away, refusing, or an address that is none: training does not care.
            if (fresh is not null) await fresh.DisposeAsync();
            return null;
        }
    }

    private async Task<bool> PublishAsync(HubConnection connection)
    {
        List<TrainingEvent> batch = [];
        while (batch.Count < 500 && queue.Reader.TryRead(out TrainingEvent? next)) batch.Add(next);
        if (batch.Count == 0) return true;
        try
        {
            await connection.InvokeAsync("Publish", runId, batch.ToArray(), end.Token);
            return true;
        }
        catch (Exception e) when (e is not OperationCanceledException)
        {
            return false;
        }
    }

    private static TimeSpan Longer(TimeSpan pause) => TimeSpan.FromSeconds(Math.Min(LongestPauseSeconds, pause.TotalSeconds * 2));

    private DashboardAddress? ReadAddress()
    {
        try { return JsonSerializer.Deserialize<DashboardAddress>(File.ReadAllText(store.DashboardPath), TrainingEvent.Json); }
        catch (Exception e) when (e is IOException or JsonException or UnauthorizedAccessException) { return null; }
    }
}
