using Microsoft.Extensions.Logging.Abstractions;
using NopeGpt.Jobs;
using NopeGpt.Web.Series;

namespace NopeGpt.Web.Live;

/// <summary>What the pages and the charts know of the runs: read from each run's folder, kept up to date by what trainers publish,
/// and by a look at the file each second, so that a trainer that cannot reach the hub is seen all the same.
/// Memory is bounded: runs that nobody watches are forgotten, the least recently used first, and read again when asked for.</summary>
public sealed class RunFeed : IDisposable
{
    /// <summary>Four times a second: often enough to look alive, seldom enough for a page.</summary>
    internal static readonly TimeSpan Beat = TimeSpan.FromMilliseconds(250);

    // What a trainer publishes is told at once, but for one that publishes more often than trainers do: the next beat tells that.
    private static readonly TimeSpan ShortestPause = TimeSpan.FromMilliseconds(100);
    private const int BeatsPerPoll = 4;
    private const int MostPending = 4096;
    private const int FewWatchers = 50;
    private static readonly TimeSpan PauseOfWatcher = TimeSpan.FromMilliseconds(2);

    private readonly Store _store;
    private readonly TimeProvider _time;
    private readonly ILogger<RunFeed> _logger;
    private readonly Dictionary<string, Entry> _entries = new(StringComparer.Ordinal);
    private readonly ITimer _timer;
    private int _beating;
    private long _beats;
    private int _watchers;

    public RunFeed(Store store, TimeProvider? time = null, ILogger<RunFeed>? logger = null)
    {
        _store = store;
        _time = time ?? TimeProvider.System;
        _logger = logger ?? NullLogger<RunFeed>.Instance;
        _timer = _time.CreateTimer(_ => OnBeat(), null, Beat, Beat);
    }

    /// <summary>Runs and values kept at most while nobody watches them.</summary>
    internal int MostRuns { get; init; } = 512;
    internal long MostValues { get; init; } = 4_000_000;

    /// <summary>How long a page waits between two renderings of what runs report: nothing for a few pages, more the more watch, so that hundreds of them
    /// do not take the machine from the trainers. Charts take the hub's events themselves, and do not wait.</summary>
    internal TimeSpan PagePause
    {
        get
        {
            int watchers = Volatile.Read(ref _watchers);
            return watchers <= FewWatchers ? TimeSpan.Zero : watchers * PauseOfWatcher;
        }
    }

    /// <summary>Runs in memory now.</summary>
    internal int Held { get { lock (_entries) return _entries.Count; } }

    /// <summary>New events of a watched run, a few times a second for each and one call after the other: the run's id and the events, oldest first.</summary>
    internal event Action<string, TrainingEvent[]>? Fresh;

    /// <summary>What the run has told so far; empty for an id that does not exist.</summary>
    public RunSnapshot Snapshot(string runId) => With(runId, e => e.History.Snapshot((long)_time.GetElapsedTime(0).TotalMilliseconds), RunSnapshot.Empty);

    /// <summary>Calls back after the run has told something new, a few times a second, on a thread of the pool, until disposed.</summary>
    public IDisposable Subscribe(string runId, Action changed)
    {
        ArgumentNullException.ThrowIfNull(changed);
        Entry? entry = With<Entry?>(runId, e => e, null);
        if (entry is null) return new Subscription(() => { });
        lock (_entries)
        {
            _entries[runId] = entry; // it may have been forgotten in between
            entry.Watchers.Add(changed);
        }
        Interlocked.Increment(ref _watchers);
        return new Subscription(() =>
        {
            lock (_entries) entry.Watchers.Remove(changed);
            Interlocked.Decrement(ref _watchers);
        });
    }

    /// <summary>The events after a sequence number, oldest first; reads the run's file where they are not at hand.</summary>
    public IReadOnlyList<TrainingEvent> Events(string runId, long after) =>
        With(runId, e => e.History.Recent(Math.Max(0, after)), []) ?? [.. RunFolder.Open(_store.RunFolder(runId)).Events(after)];

    /// <summary>The next events after a sequence number, oldest first: what a viewer that missed some asks for, again and again until it gets none.
    /// What is not at hand is read from the run's file, from a place near it.</summary>
    internal TrainingEvent[] Next(string runId, long after, int most)
    {
        after = Math.Max(0, after);
        (RunFolder? folder, IReadOnlyList<TrainingEvent>? recent, long offset) =
            With<(RunFolder?, IReadOnlyList<TrainingEvent>?, long)>(runId, e => (e.Folder, e.History.Recent(after), e.History.OffsetBefore(after)), (null, [], 0));
        return [.. (recent ?? new EventTail(folder!.EventsPath, offset).Read().Where(e => e.Sequence > after)).Take(most)];
    }

    /// <summary>The events after a sequence number that are at hand, a few hundred at most; where some are missing, the first one's number tells.</summary>
    internal TrainingEvent[] Latest(string runId, long after) => With(runId, e => [.. e.History.Recent(after) ?? e.History.Recent()], Array.Empty<TrainingEvent>());

    /// <summary>Takes a batch that a trainer sent, in order of sequence.</summary>
    /// <returns>The last sequence number that is known after it.</returns>
    internal long Publish(string runId, IReadOnlyList<TrainingEvent> batch)
    {
        Entry? entry;
        // A run that nobody has asked for is not read for the trainer's sake: it will be when somebody asks.
        lock (_entries) entry = _entries.GetValueOrDefault(runId);
        if (entry is null) return 0;
        long known;
        lock (entry)
        {
            entry.Note(entry.History.Take(batch));
            known = entry.History.Cursor;
            if (entry.Pending.Count == 0 || _time.GetElapsedTime(entry.Told) < ShortestPause) return known;
        }
        Tell(entry, poll: false);
        return known;
    }

    /// <summary>Asks a run's metrics something while they do not change; null for an id that does not exist.</summary>
    /// <param name="ask">Gets the metrics and the sequence number of the last event in them.</param>
    internal T? Ask<T>(string runId, Func<MetricColumns, long, T> ask) where T : struct => With<T?>(runId, e => ask(e.History.Columns, e.History.Cursor), null);

    public void Dispose() => _timer.Dispose();

    private T With<T>(string runId, Func<Entry, T> ask, T otherwise)
    {
        Entry? entry;
        lock (_entries) entry = Find(runId);
        if (entry is null) return otherwise;
        lock (entry)
        {
            CatchUp(entry);
            return ask(entry);
        }
    }

    private Entry? Find(string runId)
    {
        if (!_entries.TryGetValue(runId, out Entry? entry))
        {
            if (!RunFolder.TryOpen(_store, runId, out RunFolder? folder)) return null;
            _entries[runId] = entry = new Entry(folder, Warn);
        }
        entry.LastUsed = _time.GetTimestamp();
        return entry;
    }

    private void CatchUp(Entry entry)
    {
        try
        {
            if (entry.History.IsReplaced) (entry.History, entry.IsRead) = (new RunHistory(entry.Folder, Warn), false);
            // What lay there when it was read first is no news.
            List<TrainingEvent>? fresh = entry.IsRead && entry.Watchers.Count > 0 ? [] : null;
            entry.History.CatchUp(fresh);
            entry.Note(fresh ?? []);
            entry.IsRead = true;
        }
        catch (Exception e) when (e is IOException or UnauthorizedAccessException)
        {
            _logger.LogWarning("The events of run {Run} cannot be read: {Message}", entry.Folder.Id, e.Message);
        }
    }

    private void Warn(string message) => _logger.LogWarning("{Message}", message);

    private void OnBeat()
    {
        if (Interlocked.Exchange(ref _beating, 1) == 1) return;
        try
        {
            bool poll = _beats++ % BeatsPerPoll == 0;
            List<Entry> watched;
            lock (_entries) watched = [.. _entries.Values.Where(e => e.Watchers.Count > 0)];
            foreach (Entry entry in watched) Tell(entry, poll);
            if (poll) Forget();
        }
        finally
        {
            Volatile.Write(ref _beating, 0);
        }
    }

    private void Tell(Entry entry, bool poll)
    {
        Action[] watchers;
        // The beat and a trainer's batch come on threads of their own, and events must not overtake each other.
        lock (entry.Telling)
        {
            TrainingEvent[] fresh;
            lock (entry)
            {
                if (poll) CatchUp(entry);
                if (entry.Pending.Count == 0) return;
                fresh = [.. entry.Pending];
                entry.Pending.Clear();
                entry.Told = _time.GetTimestamp();
            }
            Guarded(() => Fresh?.Invoke(entry.Folder.Id, fresh));
        }
        lock (_entries) watchers = [.. entry.Watchers];
        foreach (Action watcher in watchers) Guarded(watcher);
    }

    /// <summary>One page that fails must not silence the others.</summary>
    private void Guarded(Action action)
    {
        try { action(); }
        catch (Exception e) { _logger.LogError(e, "A listener of the run feed failed"); }
    }

    private void Forget()
    {
        lock (_entries)
        {
            long values = _entries.Values.Sum(e => e.History.Columns.Count);
            foreach (Entry entry in _entries.Values.Where(e => e.Watchers.Count == 0).OrderByDescending(e => e.History.HasEnded).ThenBy(e => e.LastUsed).ToList())
            {
                if (_entries.Count <= MostRuns && values <= MostValues) break;
                _entries.Remove(entry.Folder.Id);
                values -= entry.History.Columns.Count;
            }
        }
    }

    private sealed class Entry(RunFolder folder, Action<string> warn)
    {
        public RunFolder Folder { get; } = folder;
        public RunHistory History { get; set; } = new(folder, warn);
        public bool IsRead { get; set; }
        public Lock Telling { get; } = new();
        public long Told { get; set; }
        public List<Action> Watchers { get; } = [];
        public List<TrainingEvent> Pending { get; } = [];
        public long LastUsed { get; set; }

        /// <summary>Keeps new events for the next beat; the oldest are dropped where there are too many, which a reader sees by the gap.</summary>
        public void Note(List<TrainingEvent> fresh)
        {
            if (Watchers.Count == 0) return;
            Pending.AddRange(fresh);
            if (Pending.Count > MostPending) Pending.RemoveRange(0, Pending.Count - MostPending);
        }
    }

    private sealed class Subscription(Action end) : IDisposable
    {
        private Action? _end = end;

        public void Dispose() => Interlocked.Exchange(ref _end, null)?.Invoke();
    }
}
