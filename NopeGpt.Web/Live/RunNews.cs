using System.Data.Common;
using System.Threading.Channels;
using Microsoft.EntityFrameworkCore;
using NopeGpt.Jobs;
using NopeGpt.Jobs.Queue;

namespace NopeGpt.Web.Live;

/// <summary>Something that a person at an open page wants to hear of.</summary>
/// <param name="Key">One for each end or stall: a browser with several pages open shows it once.</param>
/// <param name="Title">For example "Stories has finished".</param>
/// <param name="Text">The reason, or nothing.</param>
public sealed record RunNewsItem(string Run, string Key, string Title, string Text);

/// <summary>Tells the open pages when a run has finished, failed, diverged or is stalled. It compares the run table's rows with what they were, once for all pages.</summary>
public sealed class RunNews(RunQueue queue, Store store, TimeProvider time, ILogger<RunNews> log) : BackgroundService
{
    private static readonly TimeSpan Recent = TimeSpan.FromMinutes(1);
    private readonly Channel<string> _changed = Channel.CreateBounded<string>(new BoundedChannelOptions(10_000) { FullMode = BoundedChannelFullMode.DropOldest, SingleReader = true });
    private readonly Dictionary<string, (bool Ended, int Attempt, bool Stalled)> _known = new(StringComparer.Ordinal);

    /// <summary>Raised on a thread of the pool.</summary>
    public event Action<RunNewsItem>? Told;

    public override void Dispose()
    {
        queue.Changed -= Note;
        base.Dispose();
    }

    public override async Task StartAsync(CancellationToken cancellationToken)
    {
        queue.Changed += Note;
        await GuardedAsync(async () =>
        {
            foreach (RunRow row in await queue.ListAsync(cancel: cancellationToken)) _known[row.Id] = Now(row);
        });
        await base.StartAsync(cancellationToken);
    }

    protected override async Task ExecuteAsync(CancellationToken stoppingToken)
    {
        await foreach (string id in _changed.Reader.ReadAllAsync(stoppingToken)) await GuardedAsync(() => LookAsync(id, stoppingToken));
    }

    private void Note(string id) => _changed.Writer.TryWrite(id);

    private async Task LookAsync(string id, CancellationToken cancel)
    {
        if (await queue.FindAsync(id, cancel) is not { } row)
        {
            _known.Remove(id);
            return;
        }
        (bool Ended, int Attempt, bool Stalled) now = Now(row);
        bool known = _known.TryGetValue(id, out var before);
        _known[id] = now;
        if (now.Ended && (known ? !before.Ended || before.Attempt != now.Attempt : time.GetUtcNow() - row.Ended < Recent)) Tell(row, $"{id}.{row.Attempt}", Ended(row));
        else if (now.Stalled && !before.Stalled) Tell(row, $"{id}.{row.Attempt}.stalled", "is stalled");
    }

    private void Tell(RunRow row, string key, string what) => Told?.Invoke(new RunNewsItem(row.Id, key, $"{row.Title} {what}", row.Reason ?? ""));

    private string Ended(RunRow row)
    {
        if (row.State == RunState.Completed) return "has finished";
        bool diverged = RunFolder.TryOpen(store, row.Id, out RunFolder? folder) && folder.LastEvents().OfType<EndedEvent>().LastOrDefault() is { Code: ExitCode.Diverged };
        return diverged ? "has diverged" : "has failed";
    }

    // What a person has stopped or taken out is no news to them.
    private static (bool Ended, int Attempt, bool Stalled) Now(RunRow row) => (row.State is RunState.Completed or RunState.Failed, row.Attempt, row.IsStalled);

    private async Task GuardedAsync(Func<Task> work)
    {
        try { await work(); }
        catch (Exception e) when (e is DbException or DbUpdateException or IOException or UnauthorizedAccessException) { log.LogWarning("News of a run could not be read: {Message}", e.Message); }
    }
}
