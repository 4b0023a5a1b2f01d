using NopeGpt.Model.Kernels;
using NopeGpt.Model.Native;
using TorchSharp;
using static TorchSharp.torch;

namespace NopeGpt.Model.Fused;

// Shapes: N tokens, d width of the stream, h width of the hidden layer.

/// <summary>A matrix and its bias.</summary>
internal readonly record struct Affine(Tensor Weight_oi, Tensor? Bias_o);

/// <summary>Normalisation, linear1, the activation (gated by linear3 where there is one) and linear2. Of the hidden layer only what linear1 and linear3 made is kept.</summary>
internal sealed unsafe class MlpPass : BackwardPass
{
    private readonly Parts _parts;
    private readonly FusedNorm _norm;
    private readonly ActivationPool.Loan _hidden_Nh;
    private readonly ActivationPool.Loan? _gate_Nh;
    private readonly long[] _shape;
    private readonly bool _wanted;

    private MlpPass(Parts parts, FusedNorm norm, ActivationPool.Loan hidden_Nh, ActivationPool.Loan? gate_Nh, long[] shape, bool wanted) =>
        (_parts, _norm, _hidden_Nh, _gate_Nh, _shape, _wanted) = (parts, norm, hidden_Nh, gate_Nh, shape, wanted);

    /// <param name="Out">Its bias may be left out, for whoever adds it later.</param>
    internal sealed record Parts(Normalisation Norm, Affine In, Affine? Gate, Affine Out, bool Gelu, ActivationPool Memory);

    public static Tensor Apply(Tensor x, Parts parts)
    {
        Tensor y;
        MlpPass pass;
        using (no_grad()) (y, pass) = Forward(x, parts);
        return AutogradNode.Attach([y], x.requires_grad ? [x] : [], pass, x.requires_grad || parts.Norm.weight.requires_grad || parts.In.Weight_oi.requires_grad || parts.Out.Weight_oi.requires_grad)[0];
    }

    private static (Tensor, MlpPass) Forward(Tensor x, Parts parts)
    {
        Tensor x_Nd = FusedOperators.Flat(x), y = empty(x.shape, ScalarType.Float32, CPU);
        long tokens = x_Nd.shape[0], hidden = parts.In.Weight_oi.shape[0];
        ActivationPool.Loan hidden_Nh = parts.Memory.Rent(tokens, hidden);
        ActivationPool.Loan? gate_Nh = parts.Gate is null ? null : parts.Memory.Rent(tokens, hidden);
        FusedNorm norm;
        using (ActivationPool.Loan normed_Nd = parts.Memory.Rent(tokens, x_Nd.shape[1]))
        {
            norm = new(parts.Norm, x_Nd, normed_Nd.Tensor);
            FusedOperators.Project(normed_Nd.Tensor, parts.In.Weight_oi, parts.In.Bias_o, hidden_Nh.Tensor);
            if (parts.Gate is { } gate) FusedOperators.Project(normed_Nd.Tensor, gate.Weight_oi, gate.Bias_o, gate_Nh!.Tensor);
        }
        using (ActivationPool.Loan active_Nh = parts.Memory.Rent(tokens, hidden))
        {
            ActivationKernel.Forward(Pointer(hidden_Nh.Tensor), Pointer(gate_Nh?.Tensor), Pointer(active_Nh.Tensor), tokens * hidden, parts.Gelu);
            FusedOperators.Project(active_Nh.Tensor, parts.Out.Weight_oi, parts.Out.Bias_o, y.view(x_Nd.shape));
        }
        return (y, new(parts, norm, hidden_Nh, gate_Nh, x.shape, x.requires_grad));
    }

    public override Tensor[] Run(IReadOnlyList<Tensor?> gradients)
    {
        Tensor g_Nd = FusedOperators.Flat(gradients[0]!), hidden_Nh = _hidden_Nh.Tensor;
        long tokens = hidden_Nh.shape[0], hidden = hidden_Nh.shape[1];
        using ActivationPool.Loan error_Nh = _parts.Memory.Rent(tokens, hidden), normed_Nd = _parts.Memory.Rent(tokens, g_Nd.shape[1]);
        error_Nh.Tensor.addmm_(g_Nd, _parts.Out.Weight_oi, beta: 0);
        // What is kept becomes what the next products need, in place.
        ActivationKernel.Backward(Pointer(hidden_Nh), Pointer(_gate_Nh?.Tensor), Pointer(error_Nh.Tensor), tokens * hidden, _parts.Gelu);
        FusedOperators.AddGradients(_parts.Out.Weight_oi, _parts.Out.Bias_o, g_Nd, hidden_Nh);
        _norm.Again(normed_Nd.Tensor);
        FusedOperators.AddGradients(_parts.In.Weight_oi, _parts.In.Bias_o, error_Nh.Tensor, normed_Nd.Tensor);
        if (_parts.Gate is { } gate) FusedOperators.AddGradients(gate.Weight_oi, gate.Bias_o, _gate_Nh!.Tensor, normed_Nd.Tensor);
        Tensor dy_Nd = normed_Nd.Tensor.addmm_(error_Nh.Tensor, _parts.In.Weight_oi, beta: 0);
        if (_parts.Gate is { } by) dy_Nd.addmm_(_gate_Nh!.Tensor, by.Weight_oi);
        Tensor? dx_Nd = _norm.Backward(dy_Nd, _wanted);
        return _wanted ? [dx_Nd!.view(_shape)] : [];
    }

    public override void Dispose()
    {
        _norm.Dispose();
        _hidden_Nh.Dispose();
        _gate_Nh?.Dispose();
    }

    private static float* Pointer(Tensor? tensor) => FusedOperators.Pointer(tensor);
}
