using NopeGpt.Model.Fused;
using NopeGpt.Model.Kernels;
using NopeGpt.Model.Native;
using TorchSharp;
using TorchSharp.Modules;
using static TorchSharp.torch;
using static TorchSharp.torch.nn;

namespace NopeGpt.Model;

/// <summary>A table: one row of weights for each id or place.</summary>
internal sealed class Table : Module
{
    public readonly Parameter weight;

    public Table(long rows, long width)
        : base(nameof(Table))
    {
        weight = new(empty(rows, width));
        RegisterComponents();
    }
}

/// <summary>x·Wᵀ + b over the last dimension.</summary>
internal sealed class Linear : Module
{
    public readonly Parameter weight;
    public readonly Parameter? bias;

    public Linear(long outputs, long inputs, bool hasBias)
        : base(nameof(Linear))
    {
        weight = new(empty(outputs, inputs));
        if (hasBias) bias = new(empty(outputs));
        RegisterComponents();
    }

    /// <summary>What attached adapters add to W.</summary>
    public IReadOnlyList<LowRank> Added { get; set; } = [];

    /// <summary>W and b, where no adapter adds to them.</summary>
    public Affine? Own => Added.Count == 0 ? new(weight, bias) : null;

    /// <param name="dropout">Draws what adapters leave out of x. Null: nothing.</param>
    public Tensor Apply(Tensor x, Generator? dropout) => Add(Times(x, bias), x, dropout);

    /// <summary>Without the bias.</summary>
    public Tensor Product(Tensor x, Generator? dropout) => Add(Times(x, null), x, dropout);

    private Tensor Times(Tensor x, Tensor? bias_o) =>
        FusedOperators.Fit(x, weight) && (x.requires_grad || weight.requires_grad) ? ProjectionPass.Apply(x, new(weight, bias_o)) : ThinProduct.Linear(x, weight, bias_o);

    private Tensor Add(Tensor y, Tensor x, Generator? dropout)
    {
        foreach (LowRank added in Added)
        {
            double kept = 1 - added.Dropout;
            Tensor input = dropout is null || kept == 1 ? x : x.mul(empty(x.shape, device: x.device).bernoulli_(kept, dropout).div_(Scalars.Of(kept)).As(x.dtype));
            // Scaled where it is narrow.
            y.add_(ThinProduct.Linear(ThinProduct.Linear(input, added.A_ri).mul_(Scalars.Of(added.Scale)), added.B_or), Scalars.One);
        }
        return y;
    }
}

/// <summary>RMSNorm or layer normalisation over the last dimension.</summary>
internal sealed class Normalisation : Module
{
    public readonly Parameter weight;
    public readonly Parameter? bias;
    private readonly Norm _kind;

    public Normalisation(ModelConfig config)
        : base(nameof(Normalisation))
    {
        (_kind, Epsilon) = (config.Norm, config.NormEpsilon);
        weight = new(empty(config.EmbeddingDimensions));
        if (config.NormBias) bias = new(empty(config.EmbeddingDimensions));
        RegisterComponents();
    }

    /// <summary>Whether the mean is taken off.</summary>
    public bool IsCentred => _kind != Norm.RmsNorm;

    public double Epsilon { get; }

    /// <param name="trains">A loss is wanted, and not the tokens that follow.</param>
    public Tensor Apply(Tensor x, bool trains) => trains && FusedOperators.Fit(x, weight) ? NormPass.Apply(x, this)
        : IsCentred ? functional.layer_norm(x, weight.shape, weight, bias, Epsilon)
        : ThinNorm.Rms(x, weight, Epsilon);
}
