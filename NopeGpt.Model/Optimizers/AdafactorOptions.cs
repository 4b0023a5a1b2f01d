using static TorchSharp.torch;

namespace NopeGpt.Model.Optimizers;

/// <summary>The constants of <see cref="Adafactor"/>; the defaults are PyTorch's, and so the reference's.</summary>
public sealed record AdafactorOptions : OptimizerOptions
{
    /// <summary>A step's weight in the running means is step^Beta2Decay; not positive.</summary>
    public double Beta2Decay { get; init; } = -0.8;

    /// <summary>Least value of the root of the second moment, and of the mean that its factors are divided by; more than 0. The default is
    /// the machine epsilon of float32.</summary>
    public double Epsilon1 { get; init; } = 1.1920928955078125e-7;

    /// <summary>Least root mean square of a weight tensor that its steps are made in proportion to; not negative.</summary>
    public double Epsilon2 { get; init; } = 1e-3;

    /// <summary>Root mean square (d in the paper) to which an update before scaling is cut; at least 1.</summary>
    public double ClippingThreshold { get; init; } = 1;

    /// <summary>Share of a weight that a step at learning rate 1 takes away, from every tensor.</summary>
    public double WeightDecay { get; init; }

    /// <summary>Goes through the tensors one at a time, so that a step needs memory for the largest tensor in place of memory for all of
    /// them. The results differ by rounding only. <see cref="Fused"/> needs no such memory.</summary>
    public bool LowMemory { get; init; }

    /// <summary>On a CPU a kernel of ours does the whole step without memory for it, several times faster than libtorch's operators. False:
    /// those operators on a CPU too. No difference on other devices.</summary>
    public bool Fused { get; init; } = true;

    public override IEnumerable<string> Problems()
    {
        if (Beta2Decay is not (<= 0 and > double.NegativeInfinity)) yield return $"beta2_decay is {Beta2Decay}: it must be a number that is not positive.";
        if (Epsilon1 is not (>= 1e-30 and <= 1)) yield return $"epsilon1 is {Epsilon1}: it must be from 1e-30, the least whose reciprocal is safe in float32, to 1.";
        if (Epsilon2 is not (>= 0 and < double.PositiveInfinity)) yield return $"epsilon2 is {Epsilon2}: it must be a number that is not negative.";
        if (ClippingThreshold is not (>= 1 and < double.PositiveInfinity)) yield return $"clipping_threshold is {ClippingThreshold}: it must be a number from 1 on.";
        if (WeightDecay is not (>= 0 and < double.PositiveInfinity)) yield return $"weight_decay is {WeightDecay}: it must be a number that is not negative.";
    }

    public override Optimizer Create(IReadOnlyList<(string Name, Tensor Parameter)> parameters) => new Adafactor(parameters, this);
}
