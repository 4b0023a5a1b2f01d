using Microsoft.Extensions.Configuration;
using Microsoft.Extensions.DependencyInjection;
using Microsoft.Extensions.Logging;

namespace NopeGpt.Jobs.Queue;

/// <summary>The queue of a store for a command that ends soon. Where no dashboard works on the store, the table is put in order first, so that what happened without
/// one is told as it is; where one does, only the table is written, and the dashboard acts.</summary>
internal sealed class QueueClient : IAsyncDisposable
{
    private static readonly TimeSpan LookEvery = TimeSpan.FromMilliseconds(100);
    private readonly ServiceProvider services;
    private readonly RunLedger ledger;
    private readonly HashSet<string> changed = [];
    private DashboardLock? only;
    private readonly bool shared;

    private QueueClient(ServiceProvider services)
    {
        this.services = services;
        (Queue, Store, ledger) = (services.GetRequiredService<RunQueue>(), services.GetRequiredService<Store>(), services.GetRequiredService<RunLedger>());
        shared = services.GetRequiredService<QueueOptions>().IsShared;
        ledger.Changed += Note;
    }

    public RunQueue Queue { get; }

    public Store Store { get; }

    /// <summary>True where no dashboard works on the store, and none can begin before <see cref="LetGo"/>.</summary>
    public bool IsAlone => only is not null;

    /// <summary>True where at the last look nobody worked on the queue: neither a dashboard nor, on a table that hosts share, perhaps a worker.</summary>
    public bool IsUnattended { get; private set; }

    /// <summary>The process of the dashboard that works on the store, in brackets; empty where none does or it is not known.</summary>
    public string Dashboard { get; private set; } = "";

    /// <param name="warn">Shows a sentence about what was found wrong and mended.</param>
    /// <exception cref="UserException">The store or its table cannot be used.</exception>
    public static async Task<QueueClient> OpenAsync(IConfiguration configuration, Store store, Action<string> warn, bool inOrder, CancellationToken cancel)
    {
        ServiceCollection services = new();
        services.AddLogging(logging => logging.AddFilter((category, level) => level >= LogLevel.Warning && category?.StartsWith("NopeGpt", StringComparison.Ordinal) == true).AddProvider(new Warnings(warn)));
        services.AddSingleton(store);
        services.AddRunQueue(configuration);
        QueueClient client = new(services.BuildServiceProvider());
        try
        {
            await client.TakeAsync(inOrder, cancel).ConfigureAwait(false);
            return client;
        }
        catch
        {
            await client.DisposeAsync().ConfigureAwait(false);
            throw;
        }
    }

    /// <summary>Lets a dashboard begin, which would otherwise wait for this command.</summary>
    public void LetGo()
    {
        only?.Dispose();
        only = null;
    }

    /// <summary>Takes the store again after <see cref="LetGo"/>, and puts the table in order.</summary>
    public Task TakeAsync(CancellationToken cancel) => IsAlone ? Task.CompletedTask : TakeAsync(inOrder: true, cancel);

    /// <summary>Makes the table anew from the folders.</summary>
    /// <returns>Number of runs.</returns>
    /// <exception cref="UserException">A dashboard works on the store.</exception>
    public async Task<int> RebuildAsync(CancellationToken cancel)
    {
        if (!IsAlone) throw new UserException($"a dashboard{Dashboard} works on {Store.Root}: close it first, for it must not work while the table is made anew");
        if (shared && (await Queue.ListAsync(cancel: cancel).ConfigureAwait(false)).FirstOrDefault(r => RunStates.Working.Contains(r.State)) is { } busy)
            throw new UserException($"run {busy.Title} {Words.Of(busy.State)} at a worker of this queue: end the workers first, for they must not work while the table is made anew");
        int runs = await services.GetRequiredService<Reconciler>().RebuildAsync(cancel).ConfigureAwait(false);
        changed.Clear();
        return runs;
    }

    /// <summary>As <see cref="RunQueue.StopAsync"/>, and where nobody watches the run's trainer, the trainer is told here.</summary>
    public async Task StopAsync(string id, StopRequest request, CancellationToken cancel)
    {
        await Queue.StopAsync(id, request, cancel).ConfigureAwait(false);
        if (!RunFolder.TryOpen(Store, id, out RunFolder? folder)) return;
        RunRow? row = await Queue.FindAsync(id, cancel).ConfigureAwait(false);
        // One that a person has just started on a terminal is not in the dashboard's table yet.
        bool unwatched = IsUnattended || row is null || !RunStates.Working.Contains(row.State);
        if (!unwatched || Reconciler.LiveTrainer(folder, row?.Trainer) is not { } trainer) return;
        folder.RequestStop(request);
        if (request == StopRequest.Kill) TrainerProcess.Adopt(trainer).Kill();
    }

    /// <summary>Waits until a run is not at work any more. The store is let go of meanwhile.</summary>
    /// <returns>The run then; null where it is gone.</returns>
    public async Task<RunRow?> UntilEndedAsync(string id, CancellationToken cancel)
    {
        while (await Queue.FindAsync(id, cancel).ConfigureAwait(false) is { } row)
        {
            bool lives = RunFolder.TryOpen(Store, id, out RunFolder? folder) && Reconciler.LiveTrainer(folder, row.Trainer) is not null;
            if (!RunStates.Working.Contains(row.State) && !lives) return row;
            // Where a dashboard works on the store, it says how the run ended.
            if (!lives && !shared) await TakeAsync(cancel).ConfigureAwait(false);
            LetGo();
            await Task.Delay(LookEvery, cancel).ConfigureAwait(false);
        }
        return null;
    }

    /// <summary>Brings a row up to what is true now, where no dashboard does.</summary>
    public void Update(RunRow row)
    {
        // Why it pauses after a crash stands in the row.
        if (IsUnattended && row is { State: RunState.Queued, RetryAt: null }) row.Reason = row.Held ? "it is held; release it to let it start" : "no dashboard runs that could start it";
        if (!IsUnattended || !RunStates.Working.Contains(row.State) || !RunFolder.TryOpen(Store, row.Id, out RunFolder? folder)) return;
        RunPosition position = new(folder);
        position.Read();
        (row.Step, row.MaxSteps) = position.Done(row.Kind) ?? (row.Step, row.MaxSteps);
    }

    public async ValueTask DisposeAsync()
    {
        ledger.Changed -= Note;
        // The cards are what the table can be made anew from; a dashboard that sees the change writes the same.
        foreach (string id in changed)
        {
            if (await ledger.FindAsync(id).ConfigureAwait(false) is { } row) services.GetRequiredService<CardKeeper>().Keep(row);
        }
        LetGo();
        await services.DisposeAsync().ConfigureAwait(false);
    }

    private void Note(string id)
    {
        lock (changed) changed.Add(id);
    }

    private async Task TakeAsync(bool inOrder, CancellationToken cancel)
    {
        (only, Dashboard) = await DashboardLock.TryTakeAsync(Store, cancel).ConfigureAwait(false);
        IsUnattended = only is not null && !shared;
        if (only is null) return;
        await services.GetRequiredService<RunSchema>().EnsureAsync(cancel).ConfigureAwait(false);
        // Workers on this and other machines put a shared table in order, at any time.
        if (inOrder && !shared) await services.GetRequiredService<Reconciler>().RunAsync(cancel, watch: false).ConfigureAwait(false);
    }

    private sealed class Warnings(Action<string> warn) : ILoggerProvider, ILogger
    {
        public ILogger CreateLogger(string categoryName) => this;

        public IDisposable? BeginScope<TState>(TState state)
            where TState : notnull => null;

        public bool IsEnabled(LogLevel logLevel) => logLevel >= LogLevel.Warning;

        public void Log<TState>(LogLevel logLevel, EventId eventId, TState state, Exception? exception, Func<TState, Exception?, string> formatter) => warn(formatter(state, exception));

        public void Dispose()
        {
        }
    }
}
