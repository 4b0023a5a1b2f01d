namespace NopeGpt.Model.Replicas;

/// <summary>Factor of the loss in the backward pass, for gradients that would vanish in float16 (Micikevicius et al. 2018, "Mixed Precision Training"). A dynamic
/// one begins high, halves when gradients leave float16's range, and doubles after enough steps without that. It is always a power of two, so that
/// taking it off again is exact. Results do not contain it.</summary>
public sealed class LossScaler
{
    private const double FirstScale = 65536, Highest = 1 << 24, Lowest = 1;
    private const int StepsToGrow = 2000;
    private readonly int _stepsToGrow;

    private LossScaler(double scale, int stepsToGrow)
    {
        if (!(scale > 0 && double.IsFinite(scale))) throw new ArgumentOutOfRangeException(nameof(scale), scale, "The scale of a loss must be a number above 0.");
        (Scale, _stepsToGrow) = (scale, stepsToGrow);
    }

    public double Scale { get; private set; }

    /// <summary>Steps since the scale changed.</summary>
    public int GoodSteps { get; private set; }

    /// <summary>One that never changes.</summary>
    public static LossScaler Fixed(double scale) => new(scale, 0);

    /// <param name="firstScale">From 1 to 2^24.</param>
    /// <param name="stepsToGrow">Good steps after which it doubles.</param>
    public static LossScaler Dynamic(double firstScale = FirstScale, int stepsToGrow = StepsToGrow)
    {
        ArgumentOutOfRangeException.ThrowIfLessThan(stepsToGrow, 1);
        LossScaler scaler = new(firstScale, stepsToGrow);
        scaler.Restore(firstScale, 0);
        return scaler;
    }

    /// <summary>Sets a dynamic one as it was.</summary>
    /// <exception cref="ArgumentOutOfRangeException">It can never have been so.</exception>
    public void Restore(double scale, int goodSteps)
    {
        if (!(scale >= Lowest && scale <= Highest)) throw new ArgumentOutOfRangeException(nameof(scale), scale, $"A dynamic scale lies from {Lowest} to {Highest}.");
        if (goodSteps < 0 || goodSteps >= _stepsToGrow) throw new ArgumentOutOfRangeException(nameof(goodSteps), goodSteps, $"The scale doubles after {_stepsToGrow} steps.");
        (Scale, GoodSteps) = (scale, goodSteps);
    }

    /// <summary>Gradients were not finite.</summary>
    /// <returns>False: the scale can go no lower, and is not what makes them so.</returns>
    internal bool Overflowed()
    {
        if (_stepsToGrow == 0 || Scale / 2 < Lowest) return false;
        (Scale, GoodSteps) = (Scale / 2, 0);
        return true;
    }

    /// <summary>A step was taken.</summary>
    internal void Succeeded()
    {
        if (_stepsToGrow == 0 || ++GoodSteps < _stepsToGrow) return;
        (Scale, GoodSteps) = (Math.Min(Highest, 2 * Scale), 0);
    }
}
