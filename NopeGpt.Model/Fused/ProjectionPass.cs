using NopeGpt.Model.Native;
using TorchSharp;
using static TorchSharp.torch;

namespace NopeGpt.Model.Fused;

/// <summary>x·Wᵀ + b of one input by one or more matrices, after a normalisation where there is one.</summary>
internal sealed class ProjectionPass : BackwardPass
{
    private readonly ActivationPool? _memory;
    private readonly FusedNorm? _norm;
    private readonly Tensor? _x_Ni;
    private readonly Affine[] _by;
    private readonly long[] _shape;
    private readonly bool _wanted;

    private ProjectionPass(ActivationPool? memory, FusedNorm? norm, Tensor? x_Ni, Affine[] by, long[] shape, bool wanted) =>
        (_memory, _norm, _x_Ni, _by, _shape, _wanted) = (memory, norm, x_Ni, by, shape, wanted);

    /// <returns>[..., o].</returns>
    public static Tensor Apply(Tensor x, Affine by)
    {
        Tensor x_Ni, y;
        using (no_grad())
        {
            x_Ni = FusedOperators.Flat(x);
            y = Product(x_Ni, by, x.shape);
        }
        return AutogradNode.Attach([y], x.requires_grad ? [x] : [], new ProjectionPass(null, null, FusedOperators.Hold(x_Ni), [by], x.shape, x.requires_grad), x.requires_grad || by.Weight_oi.requires_grad)[0];
    }

    /// <returns>[..., o] for each matrix, after the normalisation.</returns>
    public static Tensor[] ApplyNormed(Tensor x, Normalisation norm, ActivationPool memory, params Affine[] by)
    {
        long[] shape = x.shape;
        Tensor[] y;
        FusedNorm fused;
        using (no_grad())
        {
            Tensor x_Ni = FusedOperators.Flat(x);
            using ActivationPool.Loan normed = memory.Rent(x_Ni.shape[0], x_Ni.shape[1]);
            fused = new(norm, x_Ni, normed.Tensor);
            y = [.. by.Select(b => Product(normed.Tensor, b, shape))];
        }
        return AutogradNode.Attach(y, x.requires_grad ? [x] : [], new ProjectionPass(memory, fused, null, by, shape, x.requires_grad), x.requires_grad || norm.weight.requires_grad || by.Any(b => b.Weight_oi.requires_grad));
    }

    public override Tensor[] Run(IReadOnlyList<Tensor?> gradients)
    {
        using ActivationPool.Loan? again = _norm is null ? null : _memory!.Rent(_shape[..^1].Aggregate(1L, (n, s) => n * s), _shape[^1]);
        if (_norm is not null) _norm.Again(again!.Tensor);
        Tensor x_Ni = again?.Tensor ?? _x_Ni!;
        Tensor? dx_Ni = null;
        for (int i = 0; i < _by.Length; i++)
        {
            if (gradients[i] is not { } gradient) continue;
            Tensor g_No = FusedOperators.Flat(gradient);
            FusedOperators.AddGradients(_by[i].Weight_oi, _by[i].Bias_o, g_No, x_Ni);
            if (!_wanted && _norm is null) continue;
            if (dx_Ni is null) dx_Ni = mm(g_No, _by[i].Weight_oi);
            else dx_Ni.addmm_(g_No, _by[i].Weight_oi);
        }
        if (dx_Ni is not null && _norm is not null) dx_Ni = _norm.Backward(dx_Ni, _wanted);
        return _wanted ? [dx_Ni!.view(_shape)] : [];
    }

    public override void Dispose()
    {
        _norm?.Dispose();
        _x_Ni?.Dispose();
    }

    private static Tensor Product(Tensor x_Ni, Affine by, long[] shape)
    {
        // Not a view itself, so that it can be changed in place.
        Tensor y = empty([.. shape[..^1], by.Weight_oi.shape[0]], ScalarType.Float32, CPU);
        FusedOperators.Project(x_Ni, by.Weight_oi, by.Bias_o, y.view(-1, by.Weight_oi.shape[0]));
        return y;
    }
}
