using Microsoft.Extensions.Configuration;
using Microsoft.Extensions.DependencyInjection;
using Microsoft.Extensions.Hosting;
using Microsoft.Extensions.Logging;
using NopeGpt.Jobs.Queue;

namespace NopeGpt.Jobs.Tests.Queue;

/// <summary>Hosts share the process's one Hangfire log, so their tests run one after the other.</summary>
[CollectionDefinition(Name)]
public sealed class QueueTestsGroup : ICollectionFixture<PostgreSqlForTests>
{
    public const string Name = "queue";
}

/// <summary>A host with the queue, whose trainers are the dummy; what still lives at the end is killed.</summary>
internal sealed class QueueHarness : IAsyncDisposable
{
    public static readonly string DummyPath = Path.Combine(AppContext.BaseDirectory, "NopeGpt.DummyTrainer");
    private static readonly TimeSpan Patience = TimeSpan.FromSeconds(20);
    private readonly IHost host;
    private bool stopped;

    private QueueHarness(IHost host) => this.host = host;

    public RunQueue Queue => Service<RunQueue>();
    public Store Store => Service<Store>();

    /// <summary>Leaves the trainers alone at the end, for the next host.</summary>
    public bool LeaveTrainers { get; init; }

    public T Service<T>()
        where T : notnull => host.Services.GetRequiredService<T>();

    public static Task<QueueHarness> StartAsync(string root, params (string Key, string Value)[] settings) => StartAsync(root, false, settings);

    /// <summary>With the program itself for a trainer.</summary>
    public static Task<QueueHarness> StartTrainingAsync(string root) =>
        StartAsync(root, false, services => services.AddSingleton(new TrainerProgram(Path.Combine(AppContext.BaseDirectory, "nopegpt"), [])));

    public static Task<QueueHarness> StartAsync(string root, bool leaveTrainers, params (string Key, string Value)[] settings) => StartAsync(root, leaveTrainers, _ => { }, settings);

    /// <param name="replace">Registers other services than the usual ones: a clock, the real trainer.</param>
    public static async Task<QueueHarness> StartAsync(string root, bool leaveTrainers, Action<IServiceCollection> replace, params (string Key, string Value)[] settings)
    {
        HostApplicationBuilder builder = Host.CreateEmptyApplicationBuilder(null);
        builder.Configuration.AddInMemoryCollection(settings.ToDictionary(s => s.Key, s => (string?)s.Value));
        builder.Services.AddLogging(l => l.SetMinimumLevel(LogLevel.Warning));
        builder.Services.AddSingleton(new Store(root));
        builder.Services.AddSingleton(new TrainerProgram(DummyPath, []));
        replace(builder.Services);
        builder.Services.AddRunQueue(builder.Configuration);
        QueueHarness harness = new(builder.Build()) { LeaveTrainers = leaveTrainers };
        try { await harness.host.StartAsync(); }
        catch
        {
            harness.host.Dispose();
            throw;
        }
        return harness;
    }

    /// <summary>Adds a run of the dummy; evaluate runs take the device slot.</summary>
    public async Task<string> AddAsync(string words, RunKind kind = RunKind.Evaluate, params string[] after)
    {
        // Checked for being there only; the dummy measures nothing.
        string model = Directory.CreateDirectory(Path.Combine(Store.Root, "model")).FullName;
        await File.WriteAllTextAsync(Path.Combine(model, "model.safetensors"), "");
        return (await Queue.AddAsync(Config(words, kind) with { Evaluate = new EvaluateConfig { Checkpoint = model } }, after)).Id;
    }

    public static RunConfig Config(string words, RunKind kind) => new()
    {
        Kind = kind,
        Name = words,
        Data = new DataConfig { Dataset = kind == RunKind.Pretrain ? "nothing" : "" },
        Prepare = new PrepareConfig { Dataset = "nothing" },
    };

    public RunFolder Folder(string id) => RunFolder.Open(Store.RunFolder(id));

    public Task<RunRow> UntilAsync(string id, RunState state) => UntilAsync(id, r => r.State == state, state.ToString());

    public async Task<RunRow> UntilAsync(string id, Func<RunRow, bool> condition, string what, TimeSpan? patience = null)
    {
        using SemaphoreSlim changed = new(0);
        void Note(string changedId) => changed.Release();
        Queue.Changed += Note;
        try
        {
            long start = TimeProvider.System.GetTimestamp();
            while (true)
            {
                RunRow row = await Queue.FindAsync(id) ?? throw new InvalidOperationException($"run {id} is gone");
                if (condition(row)) return row;
                if (TimeProvider.System.GetElapsedTime(start) > (patience ?? Patience))
                    throw new TimeoutException($"waited for {what}; run {row.Title} is {row.State} ({row.Reason}), step {row.Step}, lease {row.LeaseOwner}");
                await changed.WaitAsync(TimeSpan.FromMilliseconds(50));
            }
        }
        finally { Queue.Changed -= Note; }
    }

    /// <summary>Waits until the run's trainer has written so many checkpoints or more.</summary>
    public async Task<RunRow> UntilCheckpointAsync(string id, int count = 1)
    {
        RunFolder folder = Folder(id);
        await UntilAsync(id, r => r.State == RunState.Running, "running");
        await WaitFor.TrueAsync(() => folder.Events().OfType<CheckpointEvent>().Count() >= count, $"{count} checkpoints");
        return (await Queue.FindAsync(id))!;
    }

    public async Task StopAsync()
    {
        stopped = true;
        await host.StopAsync();
    }

    public async ValueTask DisposeAsync()
    {
        Store store = Store;
        if (!stopped) await host.StopAsync();
        host.Dispose();
        if (!LeaveTrainers) KillAll(store);
    }

    /// <summary>Ends the trainers of a store that still live.</summary>
    private static void KillAll(Store store)
    {
        foreach (string path in Directory.EnumerateDirectories(store.RunsFolder))
        {
            if (RunFolder.TryOpen(store, Path.GetFileName(path), out RunFolder? run) && run.ReadIdentity() is { } identity && identity.ProcessId != Environment.ProcessId && TrainerProcess.IsAlive(identity)) TrainerProcess.Adopt(identity).Kill();
        }
    }
}

internal static class WaitFor
{
    /// <summary>Waits for something outside this process, which cannot tell us.</summary>
    public static async Task TrueAsync(Func<bool> condition, string what)
    {
        long start = TimeProvider.System.GetTimestamp();
        while (!condition())
        {
            if (TimeProvider.System.GetElapsedTime(start) > TimeSpan.FromSeconds(20)) throw new TimeoutException($"waited for {what}");
            await Task.Delay(20);
        }
    }
}
