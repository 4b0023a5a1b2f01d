using Microsoft.EntityFrameworkCore;
using Microsoft.EntityFrameworkCore.Storage;

namespace NopeGpt.Jobs.Queue;

/// <summary>Where a waiting run goes in the queue.</summary>
public enum QueueMove
{
    Up,
    Down,
    Top,
    Bottom,
}

// Order and what people say of runs.
internal sealed partial class RunLedger
{
    /// <summary>Moves a waiting run among those of its priority. A run that is at the end of its way already stays.</summary>
    /// <returns>False where the run does not wait in the queue.</returns>
    public async Task<bool> ReorderAsync(string id, QueueMove move, CancellationToken cancel = default)
    {
        List<string> changed = [];
        await positions.WaitAsync(cancel).ConfigureAwait(false);
        try
        {
            await using Writer writer = await WriterAsync(cancel).ConfigureAwait(false);
            RunTable table = writer.Table;
            await using IDbContextTransaction transaction = await OrderAsync(table, cancel).ConfigureAwait(false);
            if (await table.Runs.AsNoTracking().SingleOrDefaultAsync(r => r.Id == id && r.State == RunState.Queued, cancel).ConfigureAwait(false) is not { } row) return false;
            IQueryable<RunRow> peers = table.Runs.AsNoTracking().Where(r => r.State == RunState.Queued && r.Priority == row.Priority && r.Id != id);
            RunRow? other = move switch
            {
                QueueMove.Up => await peers.Where(r => r.QueuePosition < row.QueuePosition).OrderByDescending(r => r.QueuePosition).FirstOrDefaultAsync(cancel).ConfigureAwait(false),
                QueueMove.Down => await peers.Where(r => r.QueuePosition > row.QueuePosition).OrderBy(r => r.QueuePosition).FirstOrDefaultAsync(cancel).ConfigureAwait(false),
                QueueMove.Top => await peers.OrderBy(r => r.QueuePosition).FirstOrDefaultAsync(cancel).ConfigureAwait(false),
                _ => await peers.OrderByDescending(r => r.QueuePosition).FirstOrDefaultAsync(cancel).ConfigureAwait(false),
            };
            if (other is null) return true;
            switch (move)
            {
                case QueueMove.Up or QueueMove.Down:
                    await PlaceAsync(table, id, other.QueuePosition, cancel).ConfigureAwait(false);
                    await PlaceAsync(table, other.Id, row.QueuePosition, cancel).ConfigureAwait(false);
                    changed.AddRange([id, other.Id]);
                    break;
                case QueueMove.Top when row.QueuePosition > other.QueuePosition:
                    await PlaceAsync(table, id, await FirstPositionAsync(table, cancel).ConfigureAwait(false), cancel).ConfigureAwait(false);
                    changed.Add(id);
                    break;
                case QueueMove.Bottom when row.QueuePosition < other.QueuePosition:
                    await PlaceAsync(table, id, await NextPositionAsync(table, cancel).ConfigureAwait(false), cancel).ConfigureAwait(false);
                    changed.Add(id);
                    break;
            }
            await transaction.CommitAsync(cancel).ConfigureAwait(false);
        }
        finally { positions.Release(); }
        foreach (string one in changed) Changed?.Invoke(one);
        return true;
    }

    /// <summary>Changes what people say of a run, whatever its state; false where there is no such run.</summary>
    public Task<bool> ChangeAsync(string id, Action<Microsoft.EntityFrameworkCore.Query.UpdateSettersBuilder<RunRow>> change, CancellationToken cancel = default) =>
        UpdateAsync(rows => rows.Where(r => r.Id == id), id, change, cancel);

    /// <summary>Before all rows, whatever their priority and state: each may come to wait beside the others again. 0 stands for no place.</summary>
    private static async Task<long> FirstPositionAsync(RunTable table, CancellationToken cancel)
    {
        long first = await table.Runs.MinAsync(r => r.QueuePosition, cancel).ConfigureAwait(false) - 1;
        return first == 0 ? -1 : first;
    }

    private static Task<int> PlaceAsync(RunTable table, string id, long position, CancellationToken cancel) =>
        table.Runs.Where(r => r.Id == id).ExecuteUpdateAsync(row => row.SetProperty(r => r.QueuePosition, position), cancel);
}
