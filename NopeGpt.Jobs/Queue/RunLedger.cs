using Microsoft.EntityFrameworkCore;
using Microsoft.EntityFrameworkCore.Query;
using Microsoft.EntityFrameworkCore.Storage;

namespace NopeGpt.Jobs.Queue;

/// <summary>Sole writer of the run table. Every change is one conditional UPDATE, so that of two who want the same run only one gets it.</summary>
internal sealed partial class RunLedger(IDbContextFactory<RunTable> tables) : IDisposable
{
    private readonly SemaphoreSlim positions = new(1);

    /// <summary>A row changed (its id). Raised after the change is on disk.</summary>
    public event Action<string>? Changed;

    public async Task<RunRow?> FindAsync(string id, CancellationToken cancel = default)
    {
        await using RunTable table = await tables.CreateDbContextAsync(cancel).ConfigureAwait(false);
        return await table.Runs.AsNoTracking().SingleOrDefaultAsync(r => r.Id == id, cancel).ConfigureAwait(false);
    }

    /// <summary>The rows in the queue's order.</summary>
    public async Task<IReadOnlyList<RunRow>> ListAsync(Func<IQueryable<RunRow>, IQueryable<RunRow>>? filter = null, CancellationToken cancel = default)
    {
        await using RunTable table = await tables.CreateDbContextAsync(cancel).ConfigureAwait(false);
        IQueryable<RunRow> rows = table.Runs.AsNoTracking();
        return await (filter?.Invoke(rows) ?? rows).OrderByDescending(r => r.Priority).ThenBy(r => r.QueuePosition).ThenBy(r => r.Id).ToListAsync(cancel).ConfigureAwait(false);
    }

    /// <summary>Adds a row: at the end of the queue, or at the place that it has.</summary>
    /// <exception cref="DbUpdateException">There is a row of that id.</exception>
    public async Task AddAsync(RunRow row, CancellationToken cancel = default)
    {
        await positions.WaitAsync(cancel).ConfigureAwait(false);
        try
        {
            await using Writer writer = await WriterAsync(cancel).ConfigureAwait(false);
            RunTable table = writer.Table;
            await using IDbContextTransaction transaction = await OrderAsync(table, cancel).ConfigureAwait(false);
            if (row.QueuePosition == 0) row.QueuePosition = await NextPositionAsync(table, cancel).ConfigureAwait(false);
            table.Runs.Add(row);
            await table.SaveChangesAsync(cancel).ConfigureAwait(false);
            await transaction.CommitAsync(cancel).ConfigureAwait(false);
        }
        finally { positions.Release(); }
        Changed?.Invoke(row.Id);
    }

    public async Task RemoveAsync(string id, CancellationToken cancel = default)
    {
        await using Writer writer = await WriterAsync(cancel).ConfigureAwait(false);
        RunTable table = writer.Table;
        await table.Runs.Where(r => r.Id == id).ExecuteDeleteAsync(cancel).ConfigureAwait(false);
        Changed?.Invoke(id);
    }

    /// <summary>Takes a row out where it is in one of the states; false where it is not (any more).</summary>
    public async Task<bool> RemoveAsync(string id, RunState[] from, CancellationToken cancel = default)
    {
        await using Writer writer = await WriterAsync(cancel).ConfigureAwait(false);
        RunTable table = writer.Table;
        bool removed = await table.Runs.Where(r => r.Id == id && from.Contains(r.State)).ExecuteDeleteAsync(cancel).ConfigureAwait(false) == 1;
        if (removed) Changed?.Invoke(id);
        return removed;
    }

    /// <summary>Takes all rows out.</summary>
    public async Task ClearAsync(CancellationToken cancel = default)
    {
        await using Writer writer = await WriterAsync(cancel).ConfigureAwait(false);
        RunTable table = writer.Table;
        await table.Runs.ExecuteDeleteAsync(cancel).ConfigureAwait(false);
    }

    /// <summary>Says that something of a run changed that is not in the table.</summary>
    public void Tell(string id) => Changed?.Invoke(id);

    /// <summary>Changes the row where it is in one of the states; false where it is not (any more).</summary>
    public Task<bool> MoveAsync(string id, RunState[] from, Action<UpdateSettersBuilder<RunRow>> change, CancellationToken cancel = default) =>
        UpdateAsync(rows => rows.Where(r => r.Id == id && from.Contains(r.State)), id, change, cancel);

    /// <summary>Takes a run out of the queue; false where a trainer may be working on it already, or it is not in the queue.</summary>
    public Task<bool> CancelAsync(string id, string reason, DateTimeOffset now, CancellationToken cancel = default) =>
        UpdateAsync(rows => rows.Where(r => r.Id == id && (r.State == RunState.Queued || (r.State == RunState.Starting && r.LeaseOwner == null))), id, row => row
            .SetProperty(r => r.State, RunState.Cancelled)
            .SetProperty(r => r.Reason, reason)
            .SetProperty(r => r.Ended, now), cancel);

    /// <summary>Puts a run back at the end of the queue where it is in one of the states, and behind it the runs that were cancelled because of it.</summary>
    public async Task<bool> RequeueAsync(string id, RunState[] from, CancellationToken cancel = default)
    {
        if (!await RequeueOneAsync(id, from, cancel).ConfigureAwait(false)) return false;
        await RequeueFollowersAsync(id, cancel).ConfigureAwait(false);
        return true;
    }

    private async Task<bool> RequeueOneAsync(string id, RunState[] from, CancellationToken cancel)
    {
        await positions.WaitAsync(cancel).ConfigureAwait(false);
        try
        {
            await using Writer writer = await WriterAsync(cancel).ConfigureAwait(false);
            RunTable table = writer.Table;
            await using IDbContextTransaction transaction = await OrderAsync(table, cancel).ConfigureAwait(false);
            long position = await NextPositionAsync(table, cancel).ConfigureAwait(false);
            // A person's word: what died before does not count any more.
            Action<UpdateSettersBuilder<RunRow>> change = row => { Queue(row); row.SetProperty(r => r.QueuePosition, position).SetProperty(r => r.Fruitless, 0); };
            if (await table.Runs.Where(r => r.Id == id && from.Contains(r.State)).ExecuteUpdateAsync(change, cancel).ConfigureAwait(false) == 0) return false;
            await transaction.CommitAsync(cancel).ConfigureAwait(false);
        }
        finally { positions.Release(); }
        Changed?.Invoke(id);
        return true;
    }

    /// <summary>The right to supervise a run, for the first who asks: it must be waiting for its start, nobody's, and claimed by this host.</summary>
    /// <param name="owner">Begins with the host's name and a slash.</param>
    /// <param name="sequence">Number of the run's last event so far.</param>
    public Task<bool> TakeLeaseAsync(string id, string owner, DateTimeOffset now, long sequence = 0, CancellationToken cancel = default)
    {
        string host = owner.Split('/')[0];
        return UpdateAsync(rows => rows.Where(r => r.Id == id && r.State == RunState.Starting && r.LeaseOwner == null && (r.Host == "" || r.Host == host)), id, row => row
            .SetProperty(r => r.Host, host)
            .SetProperty(r => r.LeaseOwner, owner)
            .SetProperty(r => r.Heartbeat, now)
            .SetProperty(r => r.Started, now)
            .SetProperty(r => r.Ended, (DateTimeOffset?)null)
            .SetProperty(r => r.ProcessId, (int?)null)
            .SetProperty(r => r.ProcessStartTicks, (long?)null)
            .SetProperty(r => r.SequenceBefore, sequence)
            .SetProperty(r => r.Attempt, r => r.Attempt + 1), cancel);
    }

    /// <summary>Writes the end of a run that was being worked on.</summary>
    /// <param name="owner">Who must still hold the lease; null where that is not asked.</param>
    /// <param name="sequence">Number of the run's last event: what is told later belongs to an attempt that the table knows nothing of.</param>
    public Task<bool> EndAsync(string id, RunState state, string? reason, DateTimeOffset now, bool resumesItself = false, string? owner = null, long sequence = 0) =>
        UpdateAsync(rows => rows.Where(r => r.Id == id && RunStates.Working.Contains(r.State) && (owner == null || r.LeaseOwner == owner)), id, row => row
            .SetProperty(r => r.SequenceBefore, r => Math.Max(r.SequenceBefore, sequence))
            .SetProperty(r => r.State, state)
            .SetProperty(r => r.Reason, reason)
            .SetProperty(r => r.Ended, now)
            .SetProperty(r => r.StopRequest, StopRequest.None)
            .SetProperty(r => r.ResumesItself, resumesItself)
            .SetProperty(r => r.Devices, "")
            .SetProperty(r => r.LeaseOwner, (string?)null)
            .SetProperty(r => r.ProcessId, (int?)null)
            .SetProperty(r => r.ProcessStartTicks, (long?)null)
            .SetProperty(r => r.Heartbeat, (DateTimeOffset?)null), CancellationToken.None);

    /// <summary>Puts a run whose trainer died back into the queue, at the place that it has.</summary>
    /// <param name="at">It does not start before.</param>
    /// <param name="owner">As for <see cref="EndAsync"/>.</param>
    public Task<bool> RetryAsync(string id, string reason, Retry retry, DateTimeOffset at, string? owner = null) =>
        UpdateAsync(rows => rows.Where(r => r.Id == id && RunStates.Working.Contains(r.State) && (owner == null || r.LeaseOwner == owner)), id, row =>
        {
            Queue(row, reason, at);
            row.SetProperty(r => r.Fruitless, retry.Fruitless).SetProperty(r => r.BestStep, retry.Best);
        }, CancellationToken.None);

    /// <summary>The changes that make a row wait in the queue, at the place that it has.</summary>
    public static void Queue(UpdateSettersBuilder<RunRow> row) => Queue(row, null, null);

    // PostgreSQL lets no column be set twice.
    private static void Queue(UpdateSettersBuilder<RunRow> row, string? reason, DateTimeOffset? retryAt) => row
        .SetProperty(r => r.State, RunState.Queued)
        .SetProperty(r => r.Reason, reason)
        .SetProperty(r => r.Fault, "")
        .SetProperty(r => r.Ended, (DateTimeOffset?)null)
        .SetProperty(r => r.StopRequest, StopRequest.None)
        .SetProperty(r => r.ResumesItself, false)
        .SetProperty(r => r.RetryAt, retryAt)
        .SetProperty(r => r.Devices, "")
        .SetProperty(r => r.LeaseOwner, (string?)null)
        .SetProperty(r => r.ProcessId, (int?)null)
        .SetProperty(r => r.ProcessStartTicks, (long?)null)
        .SetProperty(r => r.Heartbeat, (DateTimeOffset?)null);

    public void Dispose()
    {
        positions.Dispose();
        writing.Dispose();
    }

    private async Task<bool> UpdateAsync(Func<IQueryable<RunRow>, IQueryable<RunRow>> rows, string id, Action<UpdateSettersBuilder<RunRow>> change, CancellationToken cancel)
    {
        await using Writer writer = await WriterAsync(cancel).ConfigureAwait(false);
        RunTable table = writer.Table;
        bool changed = await rows(table.Runs).ExecuteUpdateAsync(change, cancel).ConfigureAwait(false) == 1;
        if (changed) Changed?.Invoke(id);
        return changed;
    }

    private static async Task<long> NextPositionAsync(RunTable table, CancellationToken cancel) =>
        (await table.Runs.MaxAsync(r => (long?)r.QueuePosition, cancel).ConfigureAwait(false) ?? 0) + 1;
}
