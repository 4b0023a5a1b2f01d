using System.Collections.Concurrent;
using System.Data.Common;
using Microsoft.EntityFrameworkCore;
using Microsoft.Extensions.Hosting;
using Microsoft.Extensions.Logging;
using NopeGpt.Jobs.Queue.Hosts;

namespace NopeGpt.Jobs.Queue;

/// <summary>Copies what the table knows of a run's place and people's words to its folder, soon after each change.</summary>
internal sealed class CardKeeper : BackgroundService
{
    private static readonly TimeSpan AgainAfter = TimeSpan.FromSeconds(1);
    private readonly RunLedger ledger;
    private readonly Store store;
    private readonly TimeProvider time;
    private readonly SharedTable shared;
    private readonly ILogger<CardKeeper> log;
    private readonly ConcurrentDictionary<string, bool> changed = [];
    private readonly ConcurrentDictionary<string, RunCard> kept = [];
    private readonly ConcurrentDictionary<string, bool> unwritten = [];
    private readonly SemaphoreSlim wake = new(0);

    public CardKeeper(RunLedger ledger, Store store, SharedTable shared, TimeProvider time, ILogger<CardKeeper> log)
    {
        (this.ledger, this.store, this.shared, this.time, this.log) = (ledger, store, shared, time, log);
        ledger.Changed += Note;
        ledger.Noticed += NoteOfOthers;
    }

    public override void Dispose()
    {
        ledger.Changed -= Note;
        ledger.Noticed -= NoteOfOthers;
        wake.Dispose();
        base.Dispose();
    }

    public override async Task StopAsync(CancellationToken cancellationToken)
    {
        await base.StopAsync(cancellationToken).ConfigureAwait(false);
        // The last changes come while the trainers end.
        await KeepAsync(cancellationToken).ConfigureAwait(false);
    }

    /// <summary>Writes the cards that differ from their rows, of all runs.</summary>
    public async Task KeepAllAsync(CancellationToken cancel)
    {
        foreach (RunRow row in await ledger.ListAsync(cancel: cancel).ConfigureAwait(false)) Keep(row);
    }

    protected override async Task ExecuteAsync(CancellationToken stoppingToken)
    {
        while (true)
        {
            await wake.WaitAsync(stoppingToken).ConfigureAwait(false);
            if (!await KeepAsync(stoppingToken).ConfigureAwait(false)) await Task.Delay(AgainAfter, time, stoppingToken).ConfigureAwait(false);
        }
    }

    private void Note(string id)
    {
        changed[id] = true;
        if (wake.CurrentCount == 0) wake.Release();
    }

    // Who changes a row writes its card; a command that ends at once leaves that to the dashboard.
    private void NoteOfOthers(string id)
    {
        if (shared.Leads) Note(id);
    }

    /// <returns>False where the table did not answer, or a card could not be written: it is tried again.</returns>
    private async Task<bool> KeepAsync(CancellationToken cancel)
    {
        foreach (string id in changed.Keys)
        {
            changed.TryRemove(id, out _);
            try
            {
                if (await ledger.FindAsync(id, cancel).ConfigureAwait(false) is not { } row || Keep(row)) continue;
                Note(id);
                return false;
            }
            catch (Exception e) when (e is DbException or DbUpdateException)
            {
                Note(id);
                return false;
            }
        }
        return true;
    }

    /// <summary>Writes the card of a run where it differs from its row.</summary>
    /// <returns>False where it could not be written.</returns>
    public bool Keep(RunRow row)
    {
        RunCard wanted = RunImport.Card(row, new());
        if (kept.TryGetValue(row.Id, out RunCard? before) && before == wanted) return true;
        try
        {
            if (!RunFolder.TryOpen(store, row.Id, out RunFolder? folder)) return true;
            folder.ChangeCard(card =>
            {
                RunCard now = RunImport.Card(row, card);
                return now.Waiting && !card.Waiting ? now with { Sequence = folder.LastSequence() } : now;
            });
            kept[row.Id] = wanted;
            unwritten.TryRemove(row.Id, out _);
            return true;
        }
        catch (Exception e) when (e is IOException or UnauthorizedAccessException)
        {
            if (unwritten.TryAdd(row.Id, true)) log.LogWarning("The card of run {Run} could not be written: {Message}", row.Id, e.Message);
            return false;
        }
    }
}
