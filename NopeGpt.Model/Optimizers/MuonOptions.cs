using NopeGpt.Model.Storage.Layouts;
using static TorchSharp.torch;

namespace NopeGpt.Model.Optimizers;

/// <summary>The constants of <see cref="Muon"/>.</summary>
public sealed record MuonOptions : OptimizerOptions
{
    /// <summary>Decay of the sum of the gradients, in [0, 1).</summary>
    public double Momentum { get; init; } = 0.95;

    /// <summary>Newton-Schulz iterations, from 1 to 20. Five bring all but the smallest singular values to within a third of 1.</summary>
    public int Iterations { get; init; } = 5;

    /// <summary>Root mean square of a matrix's step at learning rate 1; more than 0. AdamW's steps have about 0.2, so that with it one learning rate
    /// is right for both (Liu et al. 2025, "Muon is Scalable for LLM Training").</summary>
    public double Scale { get; init; } = 0.2;

    /// <summary>Share of a hidden matrix that a step at learning rate 1 takes away.</summary>
    public double WeightDecay { get; init; } = 0.1;

    /// <summary>For everything that is not a hidden matrix.</summary>
    public AdamWOptions Others { get; init; } = new();

    /// <summary>Whether a tensor is a hidden matrix, which maps between inner activations: two dimensions, and neither an embedding nor the head.</summary>
    /// <param name="name">As <see cref="Decoder.Parameters"/> has it.</param>
    public static bool IsHidden(string name, Tensor parameter) =>
        parameter.dim() == 2 && name is not (CanonicalNames.Embedding or CanonicalNames.Positions or CanonicalNames.Head);

    public override IEnumerable<string> Problems()
    {
        if (Momentum is not (>= 0 and < 1)) yield return $"momentum is {Momentum}: it must be at least 0 and less than 1.";
        if (Iterations is not (>= 1 and <= 20)) yield return $"iterations is {Iterations}: it must be from 1 to 20.";
        if (Scale is not (> 0 and < double.PositiveInfinity)) yield return $"scale is {Scale}: it must be a number above 0.";
        if (WeightDecay is not (>= 0 and < double.PositiveInfinity)) yield return $"weight_decay is {WeightDecay}: it must be a number that is not negative.";
        foreach (string problem in Others.Problems()) yield return $"others: {problem}";
    }

    public override Optimizer Create(IReadOnlyList<(string Name, Tensor Parameter)> parameters) => new Muon(parameters, this);
}
