using Microsoft.Extensions.Logging;

namespace NopeGpt.Jobs.Queue;

/// <summary>Copies what the table knows of a run's place and people's words to its folder, after each change.</summary>
internal sealed class CardKeeper(RunLedger ledger, Store store, ILogger<CardKeeper> log)
{
    private static readonly RunState[] WaitingStates = [RunState.Queued, RunState.Starting];

    /// <summary>Writes the card where it differs from the row.</summary>
    public async Task KeepAsync(string id, CancellationToken cancel = default)
    {
        if (await ledger.FindAsync(id, cancel).ConfigureAwait(false) is { } row) Keep(row);
    }

    public void Keep(RunRow row)
    {
        if (!RunFolder.TryOpen(store, row.Id, out RunFolder? folder)) return;
        try
        {
            folder.ChangeCard(card => card with
            {
                Waiting = row.ResumesItself || WaitingStates.Contains(row.State),
                Priority = row.Priority,
                Position = row.QueuePosition,
                Held = row.Held,
                NotBefore = row.NotBefore,
                Tags = row.TagList,
                Notes = row.Notes,
                Group = row.Group,
                Parent = row.Parent,
                ParentStep = row.ParentStep,
            });
        }
        catch (Exception e) when (e is IOException or UnauthorizedAccessException) { log.LogWarning("The card of run {Run} could not be written: {Message}", row.Id, e.Message); }
    }
}
