using Microsoft.Extensions.Hosting;

namespace NopeGpt.Jobs.Queue;

/// <summary>The queue's life within the host: everything is put in order before any other service starts, and the trainers are cared for
/// before any other service stops, so that saving has the time that it needs.</summary>
internal sealed class QueueHost(Store store, RunSchema schema, Reconciler reconciler, Supervisor supervisor) : IHostedLifecycleService, IDisposable
{
    private DashboardLock? only;

    /// <exception cref="UserException">Another dashboard works on the store.</exception>
    public async Task StartingAsync(CancellationToken cancellationToken)
    {
        only = await DashboardLock.TakeAsync(store, cancellationToken).ConfigureAwait(false);
        await schema.EnsureAsync(cancellationToken).ConfigureAwait(false);
        await reconciler.RunAsync(cancellationToken).ConfigureAwait(false);
    }

    public Task StoppingAsync(CancellationToken cancellationToken) => supervisor.CloseAsync(cancellationToken);

    public Task StartAsync(CancellationToken cancellationToken) => Task.CompletedTask;

    public Task StartedAsync(CancellationToken cancellationToken) => Task.CompletedTask;

    public Task StopAsync(CancellationToken cancellationToken) => Task.CompletedTask;

    public Task StoppedAsync(CancellationToken cancellationToken) => Task.CompletedTask;

    public void Dispose() => only?.Dispose();
}
