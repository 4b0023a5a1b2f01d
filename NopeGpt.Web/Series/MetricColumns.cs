using NopeGpt.Jobs;

namespace NopeGpt.Web.Series;

/// <summary>What lies on a chart's horizontal axis.</summary>
internal enum SeriesAxis
{
    /// <summary>Optimizer steps.</summary>
    Step,

    /// <summary>Training tokens.</summary>
    Tokens,

    /// <summary>Seconds since 1970 (UTC).</summary>
    Wall,
}

/// <summary>One point of a raw series.</summary>
/// <param name="Segment">The start of the trainer that it belongs to, from 0; a resume begins a new one.</param>
internal readonly record struct SeriesPoint(double X, float Y, int Segment);

/// <summary>The metrics of a run in columns: 24 bytes for each event and 8 for each value.</summary>
internal sealed class MetricColumns
{
    private readonly List<long> _steps = [];
    private readonly List<long> _tokens = [];
    private readonly List<double> _wall = [];
    private readonly List<(int FirstRow, long FromStep)> _segments = [(0, 0)];
    private readonly Dictionary<string, (List<int> Rows, List<float> Values)> _metrics = new(StringComparer.Ordinal);

    private double _setBack;

    /// <summary>Values held, of all metrics together.</summary>
    public long Count { get; private set; }

    public void Add(MetricsEvent metrics)
    {
        int row = _steps.Count;
        _steps.Add(metrics.Step);
        _tokens.Add(metrics.Tokens);
        double wall = (metrics.Time - DateTimeOffset.UnixEpoch).TotalSeconds + _setBack;
        // A clock that was set back must not lead the curve back over itself: from there on its times count on from the last.
        if (_wall.Count > 0 && wall < _wall[^1]) (_setBack, wall) = (_setBack + _wall[^1] - wall, _wall[^1]);
        _wall.Add(wall);
        foreach ((string name, double value) in metrics.Values)
        {
            if (!_metrics.TryGetValue(name, out (List<int> Rows, List<float> Values) column)) _metrics[name] = column = ([], []);
            column.Rows.Add(row);
            column.Values.Add((float)value);
            Count++;
        }
    }

    public void BeginSegment(long fromStep) => _segments.Add((_steps.Count, fromStep));

    /// <summary>The points of a metric, oldest first. What a resume from an earlier step has superseded is left out, so that steps only rise.</summary>
    public IEnumerable<SeriesPoint> Points(string metric, SeriesAxis axis)
    {
        if (!_metrics.TryGetValue(metric, out (List<int> Rows, List<float> Values) column)) yield break;
        long[] lastSteps = LastSteps();
        int segment = 0;
        for (int i = 0; i < column.Rows.Count; i++)
        {
            int row = column.Rows[i];
            while (segment + 1 < _segments.Count && _segments[segment + 1].FirstRow <= row) segment++;
            if (_steps[row] > lastSteps[segment]) continue;
            double x = axis switch { SeriesAxis.Step => _steps[row], SeriesAxis.Tokens => _tokens[row], _ => _wall[row] };
            yield return new SeriesPoint(x, column.Values[i], segment);
        }
    }

    /// <summary>For each segment the last step of it that counts: the earliest that a later segment went on from.</summary>
    private long[] LastSteps()
    {
        long[] last = new long[_segments.Count];
        last[^1] = long.MaxValue;
        for (int s = _segments.Count - 2; s >= 0; s--) last[s] = Math.Min(last[s + 1], _segments[s + 1].FromStep);
        return last;
    }
}
