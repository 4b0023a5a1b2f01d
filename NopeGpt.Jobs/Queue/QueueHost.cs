using System.Data.Common;
using Microsoft.EntityFrameworkCore;
using Microsoft.Extensions.Hosting;
using NopeGpt.Jobs.Queue.Hosts;

namespace NopeGpt.Jobs.Queue;

/// <summary>The queue's life within the host: everything is put in order before any other service starts, and the trainers are cared for
/// before any other service stops, so that saving has the time that it needs.</summary>
internal sealed class QueueHost(Store store, QueueOptions options, SharedTable shared, RunSchema schema, Reconciler reconciler, Supervisor supervisor, RunLedger ledger, ThisHost host)
    : IHostedLifecycleService, IDisposable
{
    private DashboardLock? only;

    /// <exception cref="UserException">Another dashboard works on the store, another process has this host's name, or the table cannot be used.</exception>
    public async Task StartingAsync(CancellationToken cancellationToken)
    {
        // One dashboard for a store: trainers find it by the store's dashboard.json. Workers may be many.
        if (!options.IsWorker) only = await DashboardLock.TakeAsync(store, cancellationToken).ConfigureAwait(false);
        try { await shared.TakeNameAsync(cancellationToken).ConfigureAwait(false); }
        catch (Exception e) when (options.IsShared && SharedDatabase.IsUnusable(e)) { throw SharedDatabase.Unusable(e); }
        try
        {
            await schema.EnsureAsync(cancellationToken).ConfigureAwait(false);
            await reconciler.RunAsync(cancellationToken).ConfigureAwait(false);
        }
        catch (Exception e) when (e is DbException or DbUpdateException)
        {
            string reason = e.GetBaseException().Message.TrimEnd('.');
            throw options.Storage == JobStorageKind.PostgreSql
                ? new UserException($"the run table in the PostgreSQL of Jobs:ConnectionString cannot be used ({reason}): start it, or correct the connection string")
                : new UserException($"the run table {store.DatabasePath} cannot be used ({reason}): end the program that holds it, or make room on its disk", ExitCode.DiskFull);
        }
    }

    public async Task StoppingAsync(CancellationToken cancellationToken)
    {
        await supervisor.CloseAsync(cancellationToken).ConfigureAwait(false);
        if (!options.IsShared) return;
        // What was claimed here and not begun is free for the others.
        foreach (RunRow row in await ledger.ListAsync(rows => rows.Where(r => r.Host == host.Name && r.State == RunState.Starting && r.LeaseOwner == null), cancellationToken).ConfigureAwait(false))
            await ledger.UnclaimAsync(row, cancellationToken).ConfigureAwait(false);
    }

    public Task StartAsync(CancellationToken cancellationToken) => Task.CompletedTask;

    public Task StartedAsync(CancellationToken cancellationToken) => Task.CompletedTask;

    public Task StopAsync(CancellationToken cancellationToken) => Task.CompletedTask;

    public Task StoppedAsync(CancellationToken cancellationToken) => Task.CompletedTask;

    public void Dispose() => only?.Dispose();
}
