using Microsoft.EntityFrameworkCore;
using Microsoft.EntityFrameworkCore.Storage;

namespace NopeGpt.Jobs.Queue;

// Runs that are added, cancelled and put back together, because one waits for the other.
internal sealed partial class RunLedger
{
    /// <summary>Adds rows at the end of the queue, in their order: all or none.</summary>
    /// <exception cref="DbUpdateException">There is a row of one of the ids.</exception>
    public async Task AddAllAsync(IReadOnlyList<RunRow> rows, CancellationToken cancel = default)
    {
        await positions.WaitAsync(cancel).ConfigureAwait(false);
        try
        {
            await using Writer writer = await WriterAsync(cancel).ConfigureAwait(false);
            RunTable table = writer.Table;
            await using IDbContextTransaction transaction = await OrderAsync(table, cancel).ConfigureAwait(false);
            long place = await NextPositionAsync(table, cancel).ConfigureAwait(false);
            foreach (RunRow row in rows) row.QueuePosition = place++;
            table.Runs.AddRange(rows);
            await table.SaveChangesAsync(cancel).ConfigureAwait(false);
            await transaction.CommitAsync(cancel).ConfigureAwait(false);
        }
        finally { positions.Release(); }
        foreach (RunRow row in rows) Changed?.Invoke(row.Id);
    }

    /// <summary>Takes a run out of the queue because of another one, with which it goes back into it.</summary>
    public async Task CancelFollowerAsync(string id, string reason, string fault, DateTimeOffset now, CancellationToken cancel = default)
    {
        bool cancelled = await MoveAsync(id, [RunState.Queued], row => row
            .SetProperty(r => r.State, RunState.Cancelled)
            .SetProperty(r => r.Reason, reason)
            .SetProperty(r => r.Fault, fault)
            .SetProperty(r => r.Ended, now), cancel).ConfigureAwait(false);
        // Somebody may have resumed the other one meanwhile, and not have found this one among the cancelled.
        if (cancelled && await FindAsync(fault, cancel).ConfigureAwait(false) is { State: not (RunState.Failed or RunState.Cancelled) })
            await RequeueOneAsync(id, [RunState.Cancelled], cancel).ConfigureAwait(false);
    }

    /// <summary>Puts the runs back at the end of the queue that were cancelled because of this one, in their order. Those that a person took out stay out.</summary>
    public async Task RequeueFollowersAsync(string id, CancellationToken cancel = default)
    {
        foreach (RunRow row in await ListAsync(rows => rows.Where(r => r.Fault == id && r.State == RunState.Cancelled), cancel).ConfigureAwait(false))
            await RequeueOneAsync(row.Id, [RunState.Cancelled], cancel).ConfigureAwait(false);
    }
}
