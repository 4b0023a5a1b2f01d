using Hangfire;
using Microsoft.Extensions.Hosting;
using Microsoft.Extensions.Logging;

namespace NopeGpt.Jobs.Queue;

/// <summary>Hangfire's servers: one for each slot of the pool, started when the slot comes up, so that a GPU that is found late has one too.</summary>
internal sealed class DeviceServers : IHostedService
{
    private readonly DevicePool pool;
    private readonly JobStorage storage;
    private readonly JobActivator activator;
    private readonly ILogger<DeviceServers> log;
    private readonly Lock gate = new();
    private readonly Dictionary<string, BackgroundJobServerHostedService> servers = [];
    private bool closed = true;

    public DeviceServers(DevicePool pool, JobStorage storage, JobActivator activator, ILogger<DeviceServers> log) =>
        (this.pool, this.storage, this.activator, this.log) = (pool, storage, activator, log);

    public Task StartAsync(CancellationToken cancellationToken)
    {
        lock (gate) closed = false;
        pool.SlotAdded += Serve;
        foreach (DeviceSlot slot in pool.Slots) Serve(slot);
        return Task.CompletedTask;
    }

    public async Task StopAsync(CancellationToken cancellationToken)
    {
        pool.SlotAdded -= Serve;
        BackgroundJobServerHostedService[] open;
        lock (gate)
        {
            closed = true;
            open = [.. servers.Values];
        }
        await Task.WhenAll(open.Select(s => s.StopAsync(cancellationToken))).ConfigureAwait(false);
        foreach (BackgroundJobServerHostedService server in open) server.Dispose();
    }

    private void Serve(DeviceSlot slot)
    {
        lock (gate)
        {
            if (closed || servers.ContainsKey(slot.Queue)) return;
            BackgroundJobServerOptions options = new()
            {
                ServerName = slot.Queue,
                Queues = [slot.Queue],
                WorkerCount = slot.Workers,
                Activator = activator,
                // Each shorter than the next: the worker hears of the stop, the server gives up on it, the host gives up on the server.
                StopTimeout = TimeSpan.FromSeconds(1),
                ShutdownTimeout = TimeSpan.FromSeconds(20),
                CancellationCheckInterval = TimeSpan.FromSeconds(2),
            };
            BackgroundJobServerHostedService server = new(storage, options, []);
            servers[slot.Queue] = server;
            // It starts threads and returns.
            server.StartAsync(CancellationToken.None).GetAwaiter().GetResult();
            log.LogDebug("Queue {Queue} has {Workers} workers", slot.Queue, slot.Workers);
        }
    }
}
