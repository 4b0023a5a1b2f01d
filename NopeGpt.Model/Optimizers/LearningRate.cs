namespace NopeGpt.Model.Optimizers;

/// <summary>How the learning rate changes over a run. Every schedule starts with the warm-up.</summary>
public enum LearningRateSchedule
{
    /// <summary>Stays at the peak.</summary>
    Constant,

    /// <summary>A straight line from the peak to the minimum at the last step.</summary>
    Linear,

    /// <summary>Half a cosine from the peak to the minimum at the last step (Loshchilov and Hutter 2017).</summary>
    Cosine,

    /// <summary>Stays at the peak, then a straight line to the minimum over the last share of the run (Hu et al. 2024, "MiniCPM").</summary>
    WarmupStableDecay,
}

/// <summary>The learning rate as a pure function of the step.</summary>
/// <remarks>Warm-up and cosine are those of the GPT-2 reproductions (nano-GPT, miniGPT2), step for step. lilLM warms up by
/// (s + 1) / (warmupSteps + 1), so that its peak comes one step later; before that ours is higher by at most peak / (warmupSteps + 1).
/// NoPE GPT's linear decay, 1 - s / (maxSteps - 1), gives the last step a rate of 0; ours, 1 - s / maxSteps, would reach 0 one step after
/// the last, so that no step is without effect. Its schedule begins anew when a run is resumed; a function of the step cannot.</remarks>
public static class LearningRate
{
    /// <summary>The rate of one step.</summary>
    /// <param name="peak">The highest rate.</param>
    /// <param name="step">Steps taken before this one: 0 is the first.</param>
    /// <param name="maxSteps">Steps of the whole run, warm-up included. From there on the rate is the minimum (constant: the peak).</param>
    /// <param name="warmupSteps">The first steps rise in a straight line, step s having peak · (s + 1) / warmupSteps; 0 for none.</param>
    /// <param name="minimumRatio">The minimum as a share of the peak, in [0, 1]. A constant rate has no use for it.</param>
    /// <param name="decayFraction">The share of maxSteps that <see cref="LearningRateSchedule.WarmupStableDecay"/> decays over, in (0, 1].</param>
    /// <returns>Constant: peak. Linear: peak · (r + (1 − r)(1 − p)). Cosine: peak · (r + (1 − r)(1 + cos πp) / 2), with r the minimum
    /// ratio and p the share of the steps after the warm-up that are taken, in [0, 1]. The last has the linear form with p over the decay.</returns>
    /// <exception cref="ArgumentOutOfRangeException">A value makes no sense.</exception>
    public static double At(
        LearningRateSchedule schedule, double peak, long step, long maxSteps, long warmupSteps = 0, double minimumRatio = 0, double decayFraction = 0.1)
    {
        if (!double.IsFinite(peak) || peak < 0) throw new ArgumentOutOfRangeException(nameof(peak), peak, "The peak rate must be a number that is not negative.");
        ArgumentOutOfRangeException.ThrowIfNegative(step);
        ArgumentOutOfRangeException.ThrowIfLessThan(maxSteps, 1);
        ArgumentOutOfRangeException.ThrowIfNegative(warmupSteps);
        if (minimumRatio is not (>= 0 and <= 1)) throw new ArgumentOutOfRangeException(nameof(minimumRatio), minimumRatio, "The minimum ratio must be within 0 and 1.");
        if (decayFraction is not (> 0 and <= 1)) throw new ArgumentOutOfRangeException(nameof(decayFraction), decayFraction, "The decay fraction must be more than 0 and at most 1.");

        if (step < warmupSteps) return peak * (step + 1) / warmupSteps;
        return schedule switch
        {
            LearningRateSchedule.Constant => peak,
            LearningRateSchedule.Linear => Between(peak, minimumRatio, 1 - Progress(step, warmupSteps, maxSteps)),
            LearningRateSchedule.Cosine => Between(peak, minimumRatio, (1 + Math.Cos(Math.PI * Progress(step, warmupSteps, maxSteps))) / 2),
            LearningRateSchedule.WarmupStableDecay => Between(peak, minimumRatio, 1 - Progress(step, Math.Max(warmupSteps, DecayStart(maxSteps, decayFraction)), maxSteps)),
            _ => throw new ArgumentOutOfRangeException(nameof(schedule), schedule, "There is no such schedule."),
        };
    }

    private static long DecayStart(long maxSteps, double decayFraction) => maxSteps - (long)Math.Ceiling(maxSteps * decayFraction);

    private static double Progress(long step, long from, long to) => step >= to ? 1 : step <= from ? 0 : (double)(step - from) / (to - from);

    private static double Between(double peak, double minimumRatio, double share) => peak * (minimumRatio + (1 - minimumRatio) * share);
}
