namespace NopeGpt.Jobs.Training;

/// <summary>Notices when a trainer makes no progress, and shows progress where a single step or evaluation takes long.</summary>
internal sealed class StallWatch : IDisposable
{
    private static readonly TimeSpan LookAtMostEvery = TimeSpan.FromMilliseconds(50), LookAtLeastEvery = TimeSpan.FromSeconds(15), TellEvery = TimeSpan.FromSeconds(15);

    private readonly TimeProvider _time;
    private readonly TimeSpan _limit;
    private readonly Action<TimeSpan, string> _stalled;
    private readonly Action<string> _busy;
    private readonly ITimer? _timer;
    private readonly Lock _gate = new();
    private string _doing = "starting";
    private long _progress, _told;
    private bool _reported;

    /// <param name="limit">Time without progress that counts as a stall; zero for none.</param>
    /// <param name="stalled">Told once for each stall, with its length so far and what was being done. Called on a thread of its own.</param>
    /// <param name="busy">Told now and then what is being done, where no step has ended for some seconds.</param>
    public StallWatch(TimeProvider time, TimeSpan limit, Action<TimeSpan, string> stalled, Action<string> busy)
    {
        (_time, _limit, _stalled, _busy) = (time, limit, stalled, busy);
        _progress = _told = time.GetTimestamp();
        if (limit <= TimeSpan.Zero) return;
        TimeSpan every = TimeSpan.FromTicks(Math.Clamp(limit.Ticks / 4, LookAtMostEvery.Ticks, LookAtLeastEvery.Ticks));
        _timer = time.CreateTimer(_ => Look(), null, every, every);
    }

    /// <summary>A step is done, and was told.</summary>
    public void Step()
    {
        lock (_gate)
        {
            _progress = _told = _time.GetTimestamp();
            _reported = false;
        }
    }

    /// <summary>Something is done that is less than a step.</summary>
    /// <param name="doing">What begins now: "evaluating, batch 3".</param>
    public void Part(string doing)
    {
        bool tell;
        lock (_gate)
        {
            _doing = doing;
            _progress = _time.GetTimestamp();
            _reported = false;
            tell = _time.GetElapsedTime(_told) >= TellEvery;
            if (tell) _told = _progress;
        }
        if (tell) _busy(doing);
    }

    public void Dispose() => _timer?.Dispose();

    private void Look()
    {
        TimeSpan since;
        string doing;
        lock (_gate)
        {
            since = _time.GetElapsedTime(_progress);
            if (_reported || since < _limit) return;
            _reported = true;
            doing = _doing;
        }
        _stalled(since, doing);
    }
}
