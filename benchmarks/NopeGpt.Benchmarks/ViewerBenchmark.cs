using System.Collections.Concurrent;
using System.Diagnostics;
using System.Globalization;
using System.Text.Json;
using Microsoft.AspNetCore.SignalR.Client;
using Microsoft.Extensions.DependencyInjection;
using NopeGpt.Jobs;
using NopeGpt.Jobs.Training;

namespace NopeGpt.Benchmarks;

/// <summary>Two hundred viewers of one run that tells of ten steps a second: the dashboard's processor time for them, the time from an event's writing to its arrival,
/// and whether each viewer got each event once.</summary>
internal static class ViewerBenchmark
{
    /// <summary>As the first argument: the process that only views.</summary>
    public const string Child = "live-viewers";

    private const int Viewers = 200;
    private static readonly TimeSpan BetweenSteps = TimeSpan.FromMilliseconds(100), Settle = TimeSpan.FromSeconds(3);

    public static void Run(bool quick, Store store, LiveDashboard dashboard)
    {
        TimeSpan time = TimeSpan.FromSeconds(quick ? 10 : 30);
        RunFolder run = LiveBenchmark.NewRun(store);
        EventWriter events = new(run, store);
        using CancellationTokenSource end = new();
        Task writing = WriteAsync(events, end.Token);
        Thread.Sleep(Settle);
        double alone = Share(dashboard, time);
        using Process viewers = Process.Start(new ProcessStartInfo(Environment.ProcessPath!, [Child, dashboard.Url, run.Id, Viewers.ToString(CultureInfo.InvariantCulture)]) { RedirectStandardInput = true, RedirectStandardOutput = true })!;
        string Ask(string word)
        {
            viewers.StandardInput.WriteLine(word);
            return viewers.StandardOutput.ReadLine() ?? throw new InvalidOperationException("the viewers ended early");
        }
        Ask("connect");
        Thread.Sleep(Settle);
        Ask("begin");
        double with = Share(dashboard, time);
        Console.WriteLine($"{Viewers} viewers of one run, {1 / BetweenSteps.TotalSeconds:0} events a second, {time.TotalSeconds:0} s");
        Console.WriteLine($"  the dashboard takes {with - alone:0.0%} of a core for them ({with:0.0%} with, {alone:0.0%} without)");
        Console.WriteLine("  " + Ask("end"));
        end.Cancel();
        writing.GetAwaiter().GetResult();
        events.DisposeAsync().AsTask().GetAwaiter().GetResult();
        viewers.StandardInput.Close();
        viewers.WaitForExit();
    }

    /// <summary>Connects, counts and times, as it is told line by line.</summary>
    public static async Task RunChildAsync(string url, string run, int count)
    {
        List<Viewer> viewers = [];
        try
        {
            while (Console.ReadLine() is { } word)
            {
                switch (word)
                {
                    case "connect":
                        foreach (Viewer viewer in Enumerable.Range(0, count).Select(_ => new Viewer(url, run)))
                        {
                            viewers.Add(viewer);
                            await viewer.StartAsync();
                        }
                        break;
                    case "begin":
                        foreach (Viewer viewer in viewers) viewer.Begin();
                        break;
                    default:
                        Console.WriteLine(Told(viewers));
                        continue;
                }
                Console.WriteLine("done");
            }
        }
        finally
        {
            foreach (Viewer viewer in viewers) await viewer.DisposeAsync();
        }
    }

    private static string Told(List<Viewer> viewers)
    {
        double[] times = [.. viewers.SelectMany(v => v.Milliseconds).Order()];
        double At(double part) => times[(int)Math.Min(times.Length - 1, part * times.Length)];
        return string.Create(CultureInfo.InvariantCulture,
            $"arrival of {times.Length:N0} points: half within {At(0.5):0} ms, 95 % within {At(0.95):0} ms, 99 % within {At(0.99):0} ms, all within {times[^1]:0} ms; missing {viewers.Sum(v => v.Missing)}, doubled {viewers.Sum(v => v.Doubled)}");
    }

    private static double Share(LiveDashboard dashboard, TimeSpan time)
    {
        (double before, long start) = (dashboard.ProcessorSeconds, Stopwatch.GetTimestamp());
        Thread.Sleep(time);
        return (dashboard.ProcessorSeconds - before) / Stopwatch.GetElapsedTime(start).TotalSeconds;
    }

    private static async Task WriteAsync(EventWriter events, CancellationToken end)
    {
        events.Write(new StartedEvent(1, 0, Environment.ProcessId, "benchmark"));
        using PeriodicTimer timer = new(BetweenSteps);
        try
        {
            for (long step = 1; await timer.WaitForNextTickAsync(end); step++) events.Write(LiveBenchmark.Numbers(step, 10.0 / step));
        }
        catch (OperationCanceledException) { /* the benchmark ends */ }
    }

    /// <summary>One client of the hub, which follows the run and reads its charts now and then, as the pages' script does.</summary>
    private sealed class Viewer : IAsyncDisposable
    {
        private static readonly HttpClient Http = new();
        private static readonly TimeSpan BetweenCharts = TimeSpan.FromSeconds(15);

        private readonly HubConnection _hub;
        private readonly CancellationTokenSource _end = new();
        private readonly string _charts;
        private Task _reading = Task.CompletedTask;
        private readonly string _run;
        private long _last;
        private volatile bool _counts;

        public Viewer(string url, string run)
        {
            _run = run;
            _charts = $"{url}/api/runs/{run}/series?x=step&buckets=1000&smooth=0.6&{string.Join('&', LiveBenchmark.Numbers(1, 1).Values.Keys.Select(k => "metric=" + Uri.EscapeDataString(k)))}";
            _hub = new HubConnectionBuilder().WithUrl(url + "/hubs/metrics").AddJsonProtocol(o => o.PayloadSerializerOptions = TrainingEvent.Json).Build();
            _hub.On<string, TrainingEvent[]>("Events", (_, events) => Take(events));
        }

        public ConcurrentQueue<double> Milliseconds { get; } = [];
        public long Missing { get; private set; }
        public long Doubled { get; private set; }

        public async Task StartAsync()
        {
            await _hub.StartAsync();
            await _hub.InvokeAsync<JsonElement>("Follow", _run, long.MaxValue);
            _reading = ReadAsync();
        }

        public void Begin() => _counts = true;

        public async ValueTask DisposeAsync()
        {
            await _end.CancelAsync();
            await _reading;
            await _hub.DisposeAsync();
            _end.Dispose();
        }

        private async Task ReadAsync()
        {
            try
            {
                await Task.Delay(Random.Shared.NextDouble() * BetweenCharts, _end.Token);
                while (true)
                {
                    _ = await Http.GetByteArrayAsync(_charts, _end.Token);
                    await Task.Delay(BetweenCharts, _end.Token);
                }
            }
            catch (OperationCanceledException) { /* the benchmark ends */ }
        }

        private void Take(TrainingEvent[] events)
        {
            DateTimeOffset now = DateTimeOffset.UtcNow;
            foreach (TrainingEvent one in events)
            {
                if (_counts)
                {
                    Milliseconds.Enqueue((now - one.Time).TotalMilliseconds);
                    if (one.Sequence <= _last) Doubled++;
                    else Missing += one.Sequence - _last - 1;
                }
                _last = Math.Max(_last, one.Sequence);
            }
        }
    }
}
