using System.Diagnostics;
using System.Net;
using System.Net.Sockets;
using System.Text.Json;
using NopeGpt.Jobs;
using NopeGpt.Jobs.Training;
using NopeGpt.Model;
using NopeGpt.Model.Native;
using NopeGpt.Model.Optimizers;
using NopeGpt.Model.Replicas;
using TorchSharp;
using static TorchSharp.torch;

namespace NopeGpt.Benchmarks;

/// <summary>What live events cost the trainer: the same steps with a dashboard that is there, away, slow (takes the connection and reads nothing) or refuses, in
/// alternation; and the share of a step that it spends telling of it. Then <see cref="ViewerBenchmark"/>.</summary>
internal static class LiveBenchmark
{
    private const int Rows = 8, Length = 256, StepsOfRound = 8;

    private static readonly ModelConfig Config = Models.Quickstart;

    public static void Run(bool quick)
    {
        string root = Directory.CreateTempSubdirectory("nopegpt-live-").FullName;
        try
        {
            Store store = new(Path.Combine(root, "there"));
            using LiveDashboard? dashboard = LiveDashboard.Start(store);
            if (dashboard is null)
            {
                Console.WriteLine($"live: it needs the dashboard in the same form: dotnet build -c Release {Prose.Above("NopeGpt.Web") ?? "NopeGpt.Web"}");
                return;
            }
            Trainer(quick, root, store);
            ViewerBenchmark.Run(quick, store, dashboard);
        }
        finally { Directory.Delete(root, recursive: true); }
    }

    /// <summary>A new run, whose trainer this process plays.</summary>
    public static RunFolder NewRun(Store store) =>
        RunFolder.Create(store, new RunRecord(RunRecord.CurrentFormat, RunFolder.NewId(DateTimeOffset.UtcNow), DateTimeOffset.UtcNow, [], new RunConfig { Name = "benchmark" }));

    /// <summary>What a step tells: as many numbers as the trainer's.</summary>
    public static MetricsEvent Numbers(long step, double loss) => new(step, 1_000_000, step * Rows * Length, 1234.5, new Dictionary<string, double>
    {
        ["train/loss"] = loss, ["train/learning_rate"] = 0.00123456, ["train/gradient_norm"] = 0.7654321, ["train/tokens_per_second"] = 12345.67, ["train/mfu"] = 0.654321,
        ["train/tokens"] = step * Rows * Length, ["train/flops"] = 1.2345e15, ["time/data_ms"] = 0.1234, ["time/forward_ms"] = 12.345, ["time/backward_ms"] = 23.456,
        ["time/optimizer_ms"] = 1.2345, ["time/other_ms"] = 0.0123, ["time/step_ms"] = 37.89, ["system/memory_bytes"] = 650_000_000,
    });

    private static void Trainer(bool quick, string root, Store there)
    {
        int rounds = quick ? 4 : 12;
        TorchRuntime.SetThreads(Environment.ProcessorCount);
        random.manual_seed(1);
        using Tensor tokens_BT = randint(0, Config.VocabularySize, [Rows, Length]), targets_BT = randint(0, Config.VocabularySize, [Rows, Length]);
        using ReplicaGroup group = new(new Decoder(Config, 1), new AdamWOptions());
        MicroBatch batch = new(Rows, Length, tokens_BT.data<long>().ToArray(), targets_BT.data<long>().ToArray());
        using SilentServer slow = new(answer: null), refusing = new(answer: "HTTP/1.1 401 Unauthorized\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"),
            failing = new(answer: "HTTP/1.1 500 Internal Server Error\r\nContent-Length: 0\r\nConnection: close\r\n\r\n");
        (string Name, Store Store)[] hubs =
        [
            ("there", there), ("away", Pointing(root, "away", null)), ("slow", Pointing(root, "slow", slow.Url)), ("401", Pointing(root, "401", refusing.Url)), ("500", Pointing(root, "500", failing.Url)),
        ];
        Console.WriteLine($"training steps, {Models.Size(Config)}, batch {Rows} x {Length}, each told with 14 numbers; {rounds} rounds of {StepsOfRound} steps in alternation");
        List<double>[] steps = [.. hubs.Select(_ => new List<double>())];
        double[] telling = new double[hubs.Length];
        RunFolder[] runs = [.. hubs.Select(h => NewRun(h.Store))];
        for (int i = 0; i < StepsOfRound; i++) group.Step((_, _) => batch, 1, 1e-4, 1);
        for (int round = 0; round < rounds; round++)
        {
            for (int h = 0; h < hubs.Length; h++)
            {
                EventWriter events = new(runs[h], hubs[h].Store);
                for (int i = 0; i < StepsOfRound; i++)
                {
                    long clock = Stopwatch.GetTimestamp();
                    StepResult result = group.Step((_, _) => batch, 1, 1e-4, 1);
                    double step = Alternation.Lap(ref clock);
                    events.Write(Numbers((round * StepsOfRound) + i, result.Loss));
                    double told = Alternation.Lap(ref clock);
                    telling[h] += told;
                    steps[h].Add(step + told);
                }
                events.DisposeAsync().AsTask().GetAwaiter().GetResult();
            }
        }
        for (int h = 0; h < hubs.Length; h++)
        {
            double median = steps[h].Order().ElementAt(steps[h].Count / 2);
            Console.WriteLine($"  hub {hubs[h].Name,-6} step {median,7:0.00} ms (median), telling {telling[h] / steps[h].Count * 1000,6:0.0} us a step = {telling[h] / steps[h].Sum():0.0000%} of the time");
        }
    }

    /// <summary>A store whose dashboard.json names the address; without one there is no dashboard.</summary>
    private static Store Pointing(string root, string name, string? url)
    {
        Store store = new(Path.Combine(root, name));
        if (url is not null) File.WriteAllText(store.DashboardPath, JsonSerializer.Serialize(new DashboardAddress(url, "key", 1), TrainingEvent.Json));
        return store;
    }

    /// <summary>Takes connections and answers each with the same words, or never.</summary>
    private sealed class SilentServer : IDisposable
    {
        private readonly TcpListener _listener = new(IPAddress.Loopback, 0);
        private readonly List<TcpClient> _taken = [];

        public SilentServer(string? answer)
        {
            _listener.Start();
            _ = TakeAsync(answer);
        }

        public string Url => $"http://127.0.0.1:{((IPEndPoint)_listener.LocalEndpoint).Port}";

        public void Dispose()
        {
            _listener.Dispose();
            lock (_taken)
            {
                foreach (TcpClient client in _taken) client.Dispose();
            }
        }

        private async Task TakeAsync(string? answer)
        {
            try
            {
                while (true)
                {
                    TcpClient client = await _listener.AcceptTcpClientAsync();
                    lock (_taken) _taken.Add(client);
                    if (answer is null) continue;
                    _ = await client.GetStream().ReadAsync(new byte[4096]);
                    await client.GetStream().WriteAsync(System.Text.Encoding.ASCII.GetBytes(answer));
                    client.Dispose();
                }
            }
            catch (Exception e) when (e is SocketException or ObjectDisposedException or IOException) { /* the benchmark ends */ }
        }
    }
}
