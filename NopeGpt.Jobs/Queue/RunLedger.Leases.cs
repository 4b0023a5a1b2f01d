using Microsoft.EntityFrameworkCore.Query;

namespace NopeGpt.Jobs.Queue;

// Who works on a run.
internal sealed partial class RunLedger
{
    /// <summary>Changes the row of a run that is worked on, for the owner of its lease only; false where the lease is not its any more.</summary>
    public Task<bool> UpdateHeldAsync(string id, string owner, Action<UpdateSettersBuilder<RunRow>> change, CancellationToken cancel = default) =>
        UpdateAsync(rows => rows.Where(r => r.Id == id && r.LeaseOwner == owner && RunStates.Working.Contains(r.State)), id, change, cancel);

    /// <summary>Takes over a run whose owner is gone, for the first who asks; false where the row is not as it was seen: somebody else was faster,
    /// or the owner lives after all.</summary>
    /// <param name="trainer">The trainer that works on; null where none does.</param>
    public Task<bool> TakeOverAsync(RunRow seen, string host, string owner, TrainerIdentity? trainer, DateTimeOffset now, CancellationToken cancel = default)
    {
        (int? process, long? ticks) = (trainer?.ProcessId, trainer?.StartTicks);
        return UpdateAsync(rows => AsSeen(rows, seen), seen.Id, row => row
            .SetProperty(r => r.Host, host)
            .SetProperty(r => r.LeaseOwner, owner)
            .SetProperty(r => r.Heartbeat, now)
            .SetProperty(r => r.ProcessId, process)
            .SetProperty(r => r.ProcessStartTicks, ticks), cancel);
    }

    /// <summary>Puts a claimed run that no supervisor has taken up back to its place; false where the row is not as it was seen.</summary>
    public Task<bool> UnclaimAsync(RunRow seen, CancellationToken cancel = default) =>
        UpdateAsync(rows => AsSeen(rows, seen).Where(r => r.State == RunState.Starting && r.LeaseOwner == null), seen.Id, Queue, cancel);

    /// <summary>A row is found to have changed, most likely by another process (its id). What was changed here is noticed, too.</summary>
    public event Action<string>? Noticed;

    /// <summary>Tells the listeners of <see cref="Noticed"/>.</summary>
    public void Notice(string id) => Noticed?.Invoke(id);

    private static IQueryable<RunRow> AsSeen(IQueryable<RunRow> rows, RunRow seen)
    {
        (string id, string host, string? owner, DateTimeOffset? heartbeat) = (seen.Id, seen.Host, seen.LeaseOwner, seen.Heartbeat);
        return rows.Where(r => r.Id == id && RunStates.Working.Contains(r.State) && r.Host == host && r.LeaseOwner == owner && r.Heartbeat == heartbeat);
    }
}
