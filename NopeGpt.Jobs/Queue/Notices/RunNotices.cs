using System.Text.Json;
using Microsoft.Extensions.Logging;
using NopeGpt.Jobs.Training;

namespace NopeGpt.Jobs.Queue;

/// <summary>Makes notices of what happens to runs. Nothing of it waits for a receiver, and nothing that goes wrong here reaches the queue.</summary>
internal sealed class RunNotices(NoticeOutbox outbox, NoticeOptions options, Store store, TimeProvider time, ILogger<RunNotices> log)
{
    /// <summary>A run is about to end: keeps the notice of it, which is not sent before <see cref="Release"/>.</summary>
    /// <returns>The notices; none where none is wanted.</returns>
    /// <param name="end">How its trainer ended; null where it had none.</param>
    /// <param name="paused">The queue stopped at its failure.</param>
    public IReadOnlyList<string> Ending(RunRow row, RunState state, string? reason, TrainerEnd? end, bool paused)
    {
        NoticeEvent? what = state switch
        {
            RunState.Completed => NoticeEvent.Finished,
            RunState.Failed => end is { Diverged: true } ? NoticeEvent.Diverged : NoticeEvent.Failed,
            RunState.Interrupted when end is { Died: true } => NoticeEvent.Interrupted,
            _ => null,
        };
        List<string> ids = [];
        if (what is { } known) Draft(ids, $"{row.Id}.{row.Attempt}", known, row, state, reason);
        if (paused) Draft(ids, $"{row.Id}.{row.Attempt}.paused", NoticeEvent.QueuePaused, row, state, reason);
        return ids;
    }

    /// <summary>What they tell of stands in the table.</summary>
    public void Release(IReadOnlyList<string> ids)
    {
        foreach (string id in ids) outbox.Release(id, options.Webhooks);
    }

    /// <summary>Somebody else has changed the run meanwhile.</summary>
    public void Withdraw(IReadOnlyList<string> ids)
    {
        foreach (string id in ids) outbox.Withdraw(id, options.Webhooks);
    }

    /// <summary>A trainer is silent, and its row says so.</summary>
    /// <param name="since">Number of the last event that told of work: a stall is told once.</param>
    public void Stalled(RunRow row, string reason, long since)
    {
        List<string> ids = [];
        Draft(ids, $"{row.Id}.{row.Attempt}.stalled{since}", NoticeEvent.Stalled, row, row.State, reason);
        Release(ids);
    }

    private void Draft(List<string> ids, string id, NoticeEvent what, RunRow row, RunState state, string? reason)
    {
        if (options.Webhooks.Count == 0) return;
        try
        {
            outbox.Draft(Notice(id, what, row, state, reason), options.Webhooks);
            ids.Add(id);
        }
        catch (Exception e) when (e is IOException or UnauthorizedAccessException) { log.LogWarning("No notice can be made of run {Run}: {Message}", row.Id, e.Message); }
    }

    private RunNotice Notice(string id, NoticeEvent what, RunRow row, RunState state, string? reason)
    {
        Dictionary<string, double> metrics = new(StringComparer.Ordinal);
        (long step, long steps) = row.Kind.Trains() || state != RunState.Completed ? (row.Step, row.MaxSteps) : (100, 100);
        foreach (MetricsEvent one in (RunFolder.TryOpen(store, row.Id, out RunFolder? folder) ? folder.LastEvents() : []).OfType<MetricsEvent>())
        {
            foreach ((string name, double value) in one.Values) metrics[name] = value;
            if (row.Kind.Trains()) (step, steps) = (one.Step, Math.Max(one.MaxSteps, steps));
        }
        string text = what switch
        {
            NoticeEvent.Finished => $"Run {row.Title} has finished",
            NoticeEvent.Diverged => $"Run {row.Title} has diverged",
            NoticeEvent.Stalled => $"Run {row.Title} is stalled",
            NoticeEvent.Interrupted => $"Run {row.Title} is interrupted",
            NoticeEvent.QueuePaused => $"The queue is paused, because run {row.Title} has failed",
            _ => $"Run {row.Title} has failed",
        };
        string? url = Dashboard() is { } address ? $"{address}/runs/{row.Id}" : null;
        return new(id, what, reason is null ? text : $"{text}: {reason}", new(row.Id, row.Name, row.Kind, state, reason, step, steps, metrics), url, Environment.MachineName, time.GetUtcNow());
    }

    private string? Dashboard()
    {
        try { return JsonSerializer.Deserialize<DashboardAddress>(File.ReadAllText(store.DashboardPath), TrainingEvent.Json)?.Url.TrimEnd('/'); }
        catch (Exception e) when (e is IOException or JsonException or UnauthorizedAccessException) { return options.Dashboard; }
    }
}
