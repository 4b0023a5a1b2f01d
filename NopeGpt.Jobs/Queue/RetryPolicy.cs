namespace NopeGpt.Jobs.Queue;

/// <summary>Whether a run whose trainer died goes on by itself, and after which pause. What a person has to mend first (a configuration, a divergence, a
/// full disk, too little memory) is not tried again.</summary>
/// <param name="attempts">Trainers that may die one after the other without getting further than any before; 0 never tries again.</param>
/// <param name="first">The first pause.</param>
internal sealed class RetryPolicy(int attempts, TimeSpan first)
{
    private const double Growth = 3, LongestSeconds = 600;

    /// <summary>The longest pause.</summary>
    public static TimeSpan Longest => TimeSpan.FromSeconds(LongestSeconds);

    /// <summary>Whether anything is tried again at all.</summary>
    public bool TriesAgain => attempts > 0;

    /// <summary>What follows the death of a trainer.</summary>
    /// <param name="fruitless">Attempts that died without progress before this one.</param>
    /// <param name="best">Step of the furthest checkpoint before; -1 for none.</param>
    /// <param name="reached">Step of the newest checkpoint now; null for none.</param>
    public Retry After(int fruitless, long best, long? reached)
    {
        bool further = reached > best;
        int now = further ? 1 : fruitless + 1;
        return new(now < attempts || (further && TriesAgain) ? Pause(now) : null, now, Math.Max(best, reached ?? -1));
    }

    /// <summary>Three times as long each time, up to ten minutes.</summary>
    private TimeSpan Pause(int fruitless) => TimeSpan.FromSeconds(Math.Min(LongestSeconds, first.TotalSeconds * Math.Pow(Growth, fruitless - 1)));
}

/// <param name="Pause">Before the next attempt; null where there is none.</param>
/// <param name="Fruitless">Attempts without progress so far, this one included.</param>
/// <param name="Best">Step of the furthest checkpoint; -1 for none.</param>
internal sealed record Retry(TimeSpan? Pause, int Fruitless, long Best);
