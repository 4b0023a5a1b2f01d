using System.Collections.Concurrent;
using NopeGpt.Jobs;
using NopeGpt.Jobs.Queue;
using NopeGpt.Web.Live;

namespace NopeGpt.Web.Api;

/// <summary>Runs as the HTTP interface tells them, from the table, the events and the folders.</summary>
internal sealed class RunViews(RunQueue queue, Store store, RunFeed feed, FolderSizes sizes)
{
    /// <summary>Null where there is no such run; an id from outside becomes a path only where it can be a name.</summary>
    public async Task<RunRow?> FindAsync(string id, CancellationToken cancel) => Store.IsName(id) ? await queue.FindAsync(id, cancel) : null;

    public async Task<IReadOnlyList<RunView>> ListAsync(RunState? state, RunKind? kind, CancellationToken cancel)
    {
        IReadOnlyList<RunRow> rows = await queue.ListAsync(state, kind, cancel);
        IReadOnlyDictionary<string, int> places = rows.Any(r => r.State == RunState.Queued) ? await PlacesAsync(cancel) : new Dictionary<string, int>();
        return [.. rows.Select(r => RunView.Of(r, store, feed, places))];
    }

    /// <summary>One run with its configuration and what its folder takes, or that there is none.</summary>
    public async Task<IResult> AnswerAsync(string id, int status, CancellationToken cancel)
    {
        if (await FindAsync(id, cancel) is not { } row) return ApiProblems.NoSuchRun(id);
        IReadOnlyDictionary<string, int> places = row.State == RunState.Queued ? await PlacesAsync(cancel) : new Dictionary<string, int>();
        return Results.Json(RunView.Of(row, store, feed, places, sizes), RunView.Json, statusCode: status);
    }

    private async Task<IReadOnlyDictionary<string, int>> PlacesAsync(CancellationToken cancel) =>
        (await queue.ListAsync(RunState.Queued, cancel: cancel)).Select((r, i) => (r.Id, Place: i + 1)).ToDictionary(r => r.Id, r => r.Place);
}

/// <summary>What runs take on the disk, counted anew at most every few seconds.</summary>
internal sealed class FolderSizes(Store store, TimeProvider time)
{
    private static readonly TimeSpan Fresh = TimeSpan.FromSeconds(5);
    private readonly ConcurrentDictionary<string, (long Bytes, long At)> known = [];

    public long Of(string id)
    {
        long now = time.GetTimestamp();
        if (known.TryGetValue(id, out (long Bytes, long At) before) && time.GetElapsedTime(before.At, now) < Fresh) return before.Bytes;
        long bytes = RunFolder.TryOpen(store, id, out RunFolder? folder) ? RunDisk.Bytes(folder.Path) : 0;
        known[id] = (bytes, now);
        return bytes;
    }
}
