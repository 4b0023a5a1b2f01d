namespace NopeGpt.Jobs.Queue;

/// <summary>What the runs before a run mean for it.</summary>
internal sealed class Predecessors(RunLedger ledger, Store store)
{
    /// <summary>What a run waits for among the runs before it.</summary>
    /// <returns>The reason, null where it waits for none; and the id of the run at fault where it waits in vain. That is the first one that did not complete, not one that was
    /// only cancelled because of it.</returns>
    public async Task<(string? Reason, string? Fault)> LookAsync(RunRow row, CancellationToken cancel)
    {
        string? reason = null;
        foreach (string id in row.Predecessors)
        {
            RunRow? before = await ledger.FindAsync(id, cancel).ConfigureAwait(false);
            switch (before?.State)
            {
                // Queued without a dashboard, it is on its way into the table.
                case null when RunFolder.TryOpen(store, id, out _): reason ??= $"waiting for run {id}, which is not in the list yet"; break;
                case null: return ($"run {id}, which it waits for, is gone", id);
                case RunState.Cancelled when before.Fault.Length > 0:
                    return ($"run {before.Title}, which it waits for, was cancelled, because run {await FaultAsync(before.Fault, cancel).ConfigureAwait(false)}", before.Fault);
                case RunState.Failed or RunState.Cancelled: return ($"run {before.Title}, which it waits for, {Words.Of(before.State)}", id);
                case RunState.Completed: break;
                case RunState.Interrupted: reason ??= $"waiting for run {before.Title} ({Words.Of(before.Kind)}), which is interrupted"; break;
                default: reason ??= $"waiting for run {Words.Progress(before)}"; break;
            }
        }
        return (reason, null);
    }

    private async Task<string> FaultAsync(string id, CancellationToken cancel) =>
        await ledger.FindAsync(id, cancel).ConfigureAwait(false) is { } row ? $"{row.Title} {Words.Of(row.State)}" : $"{id} is gone";
}
