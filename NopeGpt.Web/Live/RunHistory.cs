using NopeGpt.Jobs;
using NopeGpt.Web.Series;

namespace NopeGpt.Web.Live;

/// <summary>One run's events, digested: the file is the truth, the hub only brings them sooner. Not safe for several threads: lock it.</summary>
/// <param name="warn">Told of each damaged line of the file.</param>
internal sealed class RunHistory(RunFolder folder, Action<string>? warn = null)
{
    public const int MostTexts = 200;
    private const int MostRecent = 512;
    private const int EventsBetweenMarks = 256;
    private const long CheckpointsCheckedEveryMs = 2000;

    private readonly EventTail _tail = new(folder.EventsPath, warn: warn);
    private readonly Dictionary<string, double> _metrics = new(StringComparer.Ordinal);
    private readonly SortedDictionary<long, CheckpointEvent> _checkpoints = [];
    private readonly Queue<SampleEvent> _samples = [];
    private readonly Queue<WarningEvent> _warnings = [];
    private readonly Queue<TrainingEvent> _recent = [];
    private readonly List<(long Sequence, long Offset)> _marks = [(0, 0)];
    private RunSnapshot _last = RunSnapshot.Empty;
    private RunSnapshot? _shown;
    private long _checkpointsChecked = long.MinValue;

    public MetricColumns Columns { get; } = new();

    /// <summary>The sequence number of the last event taken.</summary>
    public long Cursor => _last.Sequence;

    /// <summary>True when the last start of the trainer has ended in order.</summary>
    public bool HasEnded { get; private set; }

    /// <summary>True where events.jsonl is another file now: this history is worth nothing any more.</summary>
    public bool IsReplaced => _tail.IsReplaced;

    /// <summary>Takes what the file has and this has not.</summary>
    /// <param name="fresh">Gets what was new; null where nobody asks, as at the first reading of a long run.</param>
    public void CatchUp(List<TrainingEvent>? fresh)
    {
        foreach (TrainingEvent one in _tail.Read())
        {
            if (one.Sequence >= _marks[^1].Sequence + EventsBetweenMarks) _marks.Add((one.Sequence, _tail.Position));
            if (one.Sequence <= Cursor) continue;
            Apply(one);
            fresh?.Add(one);
        }
    }

    /// <summary>A place in the file from which on every event after the number is found, with few before them.</summary>
    public long OffsetBefore(long sequence)
    {
        int above = _marks.FindIndex(m => m.Sequence > sequence);
        return _marks[above < 0 ? ^1 : above - 1].Offset;
    }

    /// <summary>Takes a batch that a trainer sent. Events known already are dropped; where one is missing before it the file is read,
    /// which the trainer writes first; what then still does not follow is left to the file. Gives what was new.</summary>
    public List<TrainingEvent> Take(IReadOnlyList<TrainingEvent> batch)
    {
        List<TrainingEvent> fresh = [];
        foreach (TrainingEvent one in batch)
        {
            if (one.Sequence > Cursor + 1) CatchUp(fresh);
            if (one.Sequence != Cursor + 1) continue;
            Apply(one);
            fresh.Add(one);
        }
        return fresh;
    }

    /// <summary>The events after a sequence number, where they are still at hand; null where only the file has them.</summary>
    public IReadOnlyList<TrainingEvent>? Recent(long after)
    {
        if (after >= Cursor || _recent.Count == 0) return [];
        return _recent.Peek().Sequence <= after + 1 ? [.. _recent.Where(e => e.Sequence > after)] : null;
    }

    /// <summary>The last events, a few hundred.</summary>
    public IReadOnlyCollection<TrainingEvent> Recent() => _recent;

    /// <summary>The state after the last event.</summary>
    /// <param name="now">Milliseconds of any steady clock: says when to look again which checkpoints still lie in the folder.</param>
    public RunSnapshot Snapshot(long now)
    {
        if (_shown is not null && now - _checkpointsChecked < CheckpointsCheckedEveryMs) return _shown;
        int before = _checkpoints.Count;
        foreach (CheckpointEvent gone in _checkpoints.Values.Where(c => !Directory.Exists(Path.Combine(folder.Path, c.Path))).ToList()) _checkpoints.Remove(gone.Step);
        _checkpointsChecked = now;
        if (_shown is not null && before == _checkpoints.Count) return _shown;
        return _shown = _last with
        {
            Metrics = new Dictionary<string, double>(_metrics),
            Checkpoints = [.. _checkpoints.Values],
            Samples = [.. _samples],
            Warnings = [.. _warnings],
        };
    }

    private void Apply(TrainingEvent one)
    {
        _last = _last with { Sequence = one.Sequence, LastEvent = one.Time };
        switch (one)
        {
            case StartedEvent started:
                Columns.BeginSegment(started.FromStep);
                HasEnded = false;
                _last = _last with { Attempts = started.Attempt, Step = started.FromStep, EtaSeconds = null, Fraction = Part(started.FromStep, _last.MaxSteps, 0) };
                break;
            case ProgressEvent progress:
                _last = _last with { Stage = progress.Stage, Fraction = Math.Clamp(progress.Fraction, 0, 1), EtaSeconds = progress.EtaSeconds, BytesPerSecond = progress.BytesPerSecond };
                break;
            case MetricsEvent metrics:
                Columns.Add(metrics);
                foreach ((string name, double value) in metrics.Values) _metrics[name] = value;
                _last = _last with
                {
                    Step = metrics.Step, MaxSteps = metrics.MaxSteps, Tokens = metrics.Tokens, EtaSeconds = metrics.EtaSeconds,
                    Stage = null, BytesPerSecond = null, Fraction = Part(metrics.Step, metrics.MaxSteps, _last.Fraction),
                };
                break;
            case CheckpointEvent checkpoint:
                _checkpoints[checkpoint.Step] = checkpoint;
                break;
            case SampleEvent sample:
                Keep(_samples, sample, MostTexts);
                break;
            case WarningEvent warning:
                Keep(_warnings, warning, MostTexts);
                break;
            case EndedEvent ended:
                HasEnded = true;
                _last = _last with { Stage = null, EtaSeconds = null, BytesPerSecond = null, Fraction = ended.State == RunState.Completed ? 1 : _last.Fraction };
                break;
        }
        Keep(_recent, one, MostRecent);
        _shown = null;
    }

    private static double Part(long step, long maxSteps, double otherwise) => maxSteps > 0 ? Math.Clamp((double)step / maxSteps, 0, 1) : otherwise;

    private static void Keep<T>(Queue<T> queue, T item, int most)
    {
        queue.Enqueue(item);
        if (queue.Count > most) queue.Dequeue();
    }
}
