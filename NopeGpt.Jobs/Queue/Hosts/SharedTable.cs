using System.Data.Common;
using Microsoft.Extensions.Hosting;
using Microsoft.Extensions.Logging;

namespace NopeGpt.Jobs.Queue.Hosts;

/// <summary>What the processes that share a run table agree on: one process for each host's name, and one that does what is done once for all of them.
/// Without PostgreSQL there is one process, which has every right.</summary>
internal sealed class SharedTable(QueueOptions options, TimeProvider time, ILogger<SharedTable> log) : BackgroundService
{
    private static readonly TimeSpan LookEvery = TimeSpan.FromSeconds(1), Patience = TimeSpan.FromSeconds(5);
    private AdvisoryLock? name;
    private AdvisoryLock? lead;
    private bool nameless;
    private volatile bool leads = !options.IsShared;

    public bool IsShared => options.IsShared;

    /// <summary>True in one process of all: it imports folders and requests, and says why runs wait.</summary>
    public bool Leads => leads;

    /// <summary>Waits until no other process does the same thing; disposing the result lets the next one.</summary>
    /// <exception cref="DbException">The server does not answer.</exception>
    public async Task<IAsyncDisposable> LockAsync(string what, CancellationToken cancel) =>
        IsShared ? await AdvisoryLock.TakeAsync(options.ConnectionString, what, cancel).ConfigureAwait(false) : new Nothing();

    /// <summary>Makes this host's name this process's.</summary>
    /// <exception cref="UserException">Another process has it.</exception>
    public async Task TakeNameAsync(CancellationToken cancel)
    {
        if (!IsShared) return;
        long began = time.GetTimestamp();
        // The connection of a process that was killed a moment ago may not be closed yet.
        while ((name = await AdvisoryLock.TryTakeAsync(options.ConnectionString, NameLock, cancel).ConfigureAwait(false)) is null)
        {
            if (time.GetElapsedTime(began) > Patience)
                throw new UserException($"another process works on this queue as host {options.Host}: end it, or give this one a name of its own with Jobs:Host (nopegpt worker --name)");
            await Task.Delay(LookEvery / 4, time, cancel).ConfigureAwait(false);
        }
    }

    public override async Task StopAsync(CancellationToken cancellationToken)
    {
        await base.StopAsync(cancellationToken).ConfigureAwait(false);
        foreach (AdvisoryLock held in new[] { name, lead }.OfType<AdvisoryLock>()) await held.DisposeAsync().ConfigureAwait(false);
        (name, lead, leads) = (null, null, !IsShared);
    }

    protected override async Task ExecuteAsync(CancellationToken stoppingToken)
    {
        if (!IsShared) return;
        using PeriodicTimer timer = new(LookEvery, time);
        do
        {
            lead = await KeepAsync(lead, "lead", stoppingToken).ConfigureAwait(false);
            leads = lead is not null;
            name = await KeepAsync(name, NameLock, stoppingToken).ConfigureAwait(false);
            if (name is null && !nameless) log.LogWarning("The right to work as host {Host} is lost, and is asked for again: PostgreSQL was away, or another process has the name now", options.Host);
            nameless = name is null;
        }
        while (await timer.WaitForNextTickAsync(stoppingToken).ConfigureAwait(false));
    }

    private string NameLock => "host " + options.Host;

    private async Task<AdvisoryLock?> KeepAsync(AdvisoryLock? held, string what, CancellationToken cancel)
    {
        if (held is not null)
        {
            if (await held.StandsAsync(cancel).ConfigureAwait(false)) return held;
            await held.DisposeAsync().ConfigureAwait(false);
        }
        try { return await AdvisoryLock.TryTakeAsync(options.ConnectionString, what, cancel).ConfigureAwait(false); }
        catch (Exception e) when (e is DbException or IOException or TimeoutException) { return null; }
    }

    private sealed class Nothing : IAsyncDisposable
    {
        public ValueTask DisposeAsync() => ValueTask.CompletedTask;
    }
}
