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

    public Tensor Apply(Tensor x) => functional.linear(x, weight, bias);

    /// <summary>Without the bias.</summary>
    public Tensor Product(Tensor x) => functional.linear(x, weight);
}

/// <summary>RMSNorm or layer normalisation over the last dimension, each one kernel.</summary>
internal sealed class Normalisation : Module
{
    public readonly Parameter weight;
    public readonly Parameter? bias;
    private readonly Norm _kind;
    private readonly double _epsilon;

    public Normalisation(ModelConfig config)
        : base(nameof(Normalisation))
    {
        (_kind, _epsilon) = (config.Norm, config.NormEpsilon);
        weight = new(empty(config.EmbeddingDimensions));
        if (config.NormBias) bias = new(empty(config.EmbeddingDimensions));
        RegisterComponents();
    }

    public Tensor Apply(Tensor x) => _kind == Norm.RmsNorm
        ? Aten.RmsNorm(x, weight, _epsilon)
        : functional.layer_norm(x, weight.shape, weight, bias, _epsilon);
}
