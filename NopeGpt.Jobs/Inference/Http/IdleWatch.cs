namespace NopeGpt.Jobs.Inference.Http;

/// <summary>Knows for how long nobody has asked for anything.</summary>
internal sealed class IdleWatch(TimeProvider time)
{
    private readonly Lock _gate = new();
    private long _lastUse = time.GetTimestamp();

    /// <summary>Requests that are being answered.</summary>
    public int Active { get; private set; }

    /// <summary>Zero while a request is being answered.</summary>
    public TimeSpan Idle
    {
        get
        {
            lock (_gate) return Active > 0 ? TimeSpan.Zero : time.GetElapsedTime(_lastUse);
        }
    }

    public void Enter()
    {
        lock (_gate) Active++;
    }

    public void Leave()
    {
        lock (_gate)
        {
            Active--;
            _lastUse = time.GetTimestamp();
        }
    }

    /// <summary>Returns when nobody has asked for anything for so long.</summary>
    public async Task WaitAsync(TimeSpan limit, CancellationToken cancel)
    {
        while (Idle is var idle && idle < limit) await Task.Delay(Max(limit - idle, TimeSpan.FromMilliseconds(50)), time, cancel);

        static TimeSpan Max(TimeSpan a, TimeSpan b) => a > b ? a : b;
    }
}
