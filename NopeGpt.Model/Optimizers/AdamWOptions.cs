using static TorchSharp.torch;

namespace NopeGpt.Model.Optimizers;

/// <summary>The constants of <see cref="AdamW"/>.</summary>
public sealed record AdamWOptions : OptimizerOptions
{
    /// <summary>Decay of the running mean of the gradients, in [0, 1).</summary>
    public double Beta1 { get; init; } = 0.9;

    /// <summary>Decay of the running mean of their squares, in [0, 1).</summary>
    public double Beta2 { get; init; } = 0.95;

    /// <summary>Added to the root of the second moment; not negative.</summary>
    public double Epsilon { get; init; } = 1e-8;

    /// <summary>Share of a weight that a step at learning rate 1 takes away.</summary>
    public double WeightDecay { get; init; } = 0.1;

    /// <summary>Tensors of at least so many dimensions decay. 2: matrices do, norms and biases do not. 0: every one does, as with the
    /// parameters in one group in PyTorch.</summary>
    public int DecayDimensions { get; init; } = 2;

    internal override bool NeedsWholeTensors => false;

    public override IEnumerable<string> Problems()
    {
        if (Beta1 is not (>= 0 and < 1)) yield return $"beta1 is {Beta1}: it must be at least 0 and less than 1.";
        if (Beta2 is not (>= 0 and < 1)) yield return $"beta2 is {Beta2}: it must be at least 0 and less than 1.";
        if (Epsilon is not (>= 0 and < double.PositiveInfinity)) yield return $"epsilon is {Epsilon}: it must be a number that is not negative.";
        if (WeightDecay is not (>= 0 and < double.PositiveInfinity)) yield return $"weight_decay is {WeightDecay}: it must be a number that is not negative.";
        if (DecayDimensions < 0) yield return $"decay_dimensions is {DecayDimensions}: it must not be negative.";
    }

    public override Optimizer Create(IReadOnlyList<(string Name, Tensor Parameter)> parameters) => new AdamW(parameters, this);
}
