using NopeGpt.Model.Native;
using TorchSharp;
using static TorchSharp.torch;

namespace NopeGpt.Model.Optimizers;

/// <summary>Momentum, orthogonalized (Jordan et al. 2024, https://kellerjordan.github.io/posts/muon), for the hidden matrices
/// (<see cref="MuonOptions.IsHidden"/>), and <see cref="AdamW"/> for all other tensors. For an [n, m] matrix W with gradient G:
/// B ← μ·B + G;  W ← W − lr·decay·W;  W ← W − lr · scale·√max(n, m) · O(G + μ·B), where O brings the singular values near 1.
/// The factor gives every matrix's step the root mean square `scale`, whatever its shape (Liu et al. 2025, https://arxiv.org/abs/2502.16982).
/// The state is B (momentum), 4 bytes a hidden weight, and AdamW's 8 for the others.</summary>
/// <remarks>O is the Newton-Schulz iteration X ← aX + (bA + cA²)X with A = XXᵀ, from X = M / |M|, where M has no more rows than columns (else it
/// is transposed). The coefficients are Jordan's, made to grow small singular values fast; the result's lie in about 0.7 to 1.2.
/// A matrix whose momentum is zero stays.</remarks>
public sealed class Muon : Optimizer
{
    private const string Momentum = "momentum.";
    private const double A = 3.4445, B = -4.7750, C = 2.0315;

    // Far below any gradient that matters: the root of float32's least normal number.
    private const double LeastNorm = 1e-19;

    internal static readonly string[] StateNames = [Momentum];

    private sealed record Slot(int Index, string Name, Tensor Parameter, Tensor Momentum);

    private readonly MuonOptions options;
    private readonly IReadOnlyList<Slot> slots;
    private readonly IReadOnlyList<int> others;
    private readonly AdamW? adam;

    /// <inheritdoc cref="OptimizerOptions.Create"/>
    public Muon(IReadOnlyList<(string Name, Tensor Parameter)> parameters, MuonOptions options)
        : base(parameters, options)
    {
        this.options = options;
        ILookup<bool, int> hidden = Enumerable.Range(0, parameters.Count).ToLookup(i => MuonOptions.IsHidden(parameters[i].Name, parameters[i].Parameter));
        slots = [.. hidden[true].Select(i => new Slot(i, parameters[i].Name, parameters[i].Parameter, Zeros(parameters[i].Parameter, parameters[i].Parameter.shape)))];
        others = [.. hidden[false]];
        if (others.Count > 0) adam = new([.. others.Select(i => parameters[i])], options.Others);
    }

    public override void Dispose()
    {
        base.Dispose();
        adam?.Dispose();
    }

    private protected override void Update(long step, double learningRate, IReadOnlyList<Tensor> gradients)
    {
        foreach (Slot slot in slots)
        {
            using DisposeScope scope = NewDisposeScope();
            Tensor gradient = gradients[slot.Index];
            slot.Momentum.mul_(Scalars.Of(options.Momentum)).add_(gradient, Scalars.One);
            Tensor direction = Orthogonal(gradient.add(slot.Momentum, Scalars.Of(options.Momentum)), options.Iterations);
            if (options.WeightDecay > 0) slot.Parameter.mul_(Scalars.Of(1 - (learningRate * options.WeightDecay)));
            double factor = learningRate * options.Scale * Math.Sqrt(Math.Max(gradient.size(0), gradient.size(1)));
            slot.Parameter.add_(direction, Scalars.Of(-factor));
        }
        adam?.Apply(step, learningRate, [.. others.Select(i => gradients[i])]);
    }

    private protected override IEnumerable<(string Name, Tensor Tensor)> Memory() =>
        slots.Select(s => (Momentum + s.Name, s.Momentum)).Concat(adam?.StateTensors ?? []);

    /// <summary>The matrix with its singular values brought near 1.</summary>
    /// <param name="matrix">[n, m]; zeros stay zeros.</param>
    private static Tensor Orthogonal(Tensor matrix, int iterations)
    {
        bool tall = matrix.size(0) > matrix.size(1);
        Tensor x = tall ? matrix.t() : matrix;
        x = x.div(x.norm().clamp_(min: Scalars.Of(LeastNorm)));
        for (int i = 0; i < iterations; i++)
        {
            using DisposeScope scope = NewDisposeScope();
            Tensor a = x.mm(x.t());
            Tensor polynomial = a.addmm(a, a, (float)B, (float)C);
            x = x.addmm(polynomial, x, (float)A, 1).MoveToOuterDisposeScope();
        }
        return tall ? x.t() : x;
    }
}
