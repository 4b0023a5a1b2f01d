namespace NopeGpt.Data.Documents.Stories;

/// <summary>SplitMix64: one story's stream of choices, a pure function of its start.</summary>
internal struct StoryRandom(ulong state)
{
    private ulong _state = state;

    public ulong Next() => Mixing.Mix(_state += Mixing.Golden);

    /// <summary>A whole number in [0, count).</summary>
    public int Below(int count) => (int)(((Next() >> 32) * (ulong)count) >> 32);

    public bool Chance(int percent) => Below(100) < percent;

    public T Pick<T>(T[] from) => from[Below(from.Length)];
}
