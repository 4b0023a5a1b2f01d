using System.Diagnostics;
using Microsoft.EntityFrameworkCore;
using Microsoft.Extensions.Configuration;
using Microsoft.Extensions.DependencyInjection;
using Microsoft.Extensions.Hosting;
using Microsoft.Extensions.Logging;
using NopeGpt.Jobs.Queue;

namespace NopeGpt.Jobs.Tests.Queue;

/// <summary>A queue in PostgreSQL as somebody sees it who adds and looks, and works on nothing; and processes that work on it.</summary>
internal sealed class SharedQueue : IAsyncDisposable
{
    private static readonly TimeSpan Patience = TimeSpan.FromSeconds(60);
    private readonly ServiceProvider services;
    private readonly List<Process> workers = [];
    private readonly string[] settings;

    private SharedQueue(ServiceProvider services, string[] settings) => (this.services, this.settings) = (services, settings);

    public RunQueue Queue => services.GetRequiredService<RunQueue>();
    public RunLedger Ledger => services.GetRequiredService<RunLedger>();
    public Store Store => services.GetRequiredService<Store>();
    public QueueOptions Options => services.GetRequiredService<QueueOptions>();

    public static async Task<SharedQueue> OpenAsync(string root, string connection, double leaseSeconds = 2)
    {
        string[] settings = ["Jobs:Storage=PostgreSql", "Jobs:RetrySeconds=0.2", "Jobs:ConnectionString=" + connection, FormattableString.Invariant($"Jobs:LeaseSeconds={leaseSeconds}")];
        ConfigurationManager configuration = new();
        configuration.AddInMemoryCollection(settings.Select(s => s.Split('=', 2)).ToDictionary(s => s[0], s => (string?)s[1]));
        ServiceCollection collection = new();
        collection.AddLogging(l => l.SetMinimumLevel(LogLevel.Warning));
        collection.AddSingleton(new Store(root));
        collection.AddSingleton<IHostApplicationLifetime, NoLifetime>();
        collection.AddRunQueue(configuration);
        SharedQueue queue = new(collection.BuildServiceProvider(), settings);
        await queue.services.GetRequiredService<RunSchema>().EnsureAsync(CancellationToken.None);
        return queue;
    }

    public Task<RunTable> TableAsync() => services.GetRequiredService<IDbContextFactory<RunTable>>().CreateDbContextAsync();

    /// <summary>A worker process whose trainers are the dummy.</summary>
    public Process Work(string name, params string[] more)
    {
        Process worker = Process.Start(QueueHarness.DummyPath, ["worker", Store.Root, .. settings, "Jobs:Host=" + name, .. more]);
        workers.Add(worker);
        return worker;
    }

    /// <summary>Adds a run of the dummy.</summary>
    public async Task<string> AddAsync(string words, RunKind kind = RunKind.Evaluate)
    {
        string model = Directory.CreateDirectory(Path.Combine(Store.Root, "model")).FullName;
        if (!File.Exists(Path.Combine(model, "model.safetensors"))) await File.WriteAllTextAsync(Path.Combine(model, "model.safetensors"), "");
        return (await Queue.AddAsync(QueueHarness.Config(words, kind) with { Evaluate = new EvaluateConfig { Checkpoint = model } })).Id;
    }

    public RunFolder Folder(string id) => RunFolder.Open(Store.RunFolder(id));

    public int Starts(string id) => Folder(id).Events().OfType<StartedEvent>().Count();

    public async Task<RunRow> UntilAsync(string id, Func<RunRow, bool> condition, string what)
    {
        long start = TimeProvider.System.GetTimestamp();
        while (true)
        {
            RunRow row = (await Queue.FindAsync(id))!;
            if (condition(row)) return row;
            if (TimeProvider.System.GetElapsedTime(start) > Patience)
                throw new TimeoutException($"waited for {what}; run {row.Title} is {row.State} ({row.Reason}), step {row.Step}, host {row.Host}, lease {row.LeaseOwner}");
            await Task.Delay(50);
        }
    }

    public async Task<IReadOnlyList<RunRow>> UntilAllCompletedAsync()
    {
        long start = TimeProvider.System.GetTimestamp();
        while (true)
        {
            IReadOnlyList<RunRow> rows = await Queue.ListAsync();
            if (rows.All(r => r.State == RunState.Completed)) return rows;
            if (TimeProvider.System.GetElapsedTime(start) > Patience)
                throw new TimeoutException(string.Join("\n", rows.Where(r => r.State != RunState.Completed).Select(r => $"run {r.Title} is {r.State} ({r.Reason}), step {r.Step}, host {r.Host}, lease {r.LeaseOwner}")));
            await Task.Delay(100);
        }
    }

    public static void Signal(int process, string signal)
    {
        using Process kill = Process.Start("kill", ["-" + signal, process.ToString()]);
        kill.WaitForExit();
    }

    public async ValueTask DisposeAsync()
    {
        foreach (Process worker in workers)
        {
            if (!worker.HasExited) worker.Kill();
            worker.Dispose();
        }
        foreach (string path in Directory.EnumerateDirectories(Store.RunsFolder))
        {
            if (RunFolder.TryOpen(Store, Path.GetFileName(path), out RunFolder? run) && run.ReadIdentity() is { } identity && TrainerProcess.IsAlive(identity)) TrainerProcess.Adopt(identity).Kill();
        }
        await services.DisposeAsync();
    }

    private sealed class NoLifetime : IHostApplicationLifetime
    {
        public CancellationToken ApplicationStarted => default;
        public CancellationToken ApplicationStopped => default;
        public CancellationToken ApplicationStopping => default;

        public void StopApplication()
        {
        }
    }
}
