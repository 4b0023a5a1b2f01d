namespace NopeGpt.Jobs.Tests.Faults;

/// <summary>The machine's clock, which a test can set to another time, or let run ahead.</summary>
internal sealed class MovedClock : TimeProvider
{
    private long _set, _skipped;

    public override DateTimeOffset GetUtcNow() => base.GetUtcNow() + TimeSpan.FromTicks(Volatile.Read(ref _set) + Volatile.Read(ref _skipped));

    public override long GetTimestamp() => base.GetTimestamp() + (long)(TimeSpan.FromTicks(Volatile.Read(ref _skipped)).TotalSeconds * TimestampFrequency);

    /// <summary>As somebody who sets the clock: the time of day changes, and no time passes.</summary>
    public void Set(TimeSpan by) => Interlocked.Add(ref _set, by.Ticks);

    /// <summary>As if so much time had passed. Timers know nothing of it.</summary>
    public void Skip(TimeSpan time) => Interlocked.Add(ref _skipped, time.Ticks);
}
