using NopeGpt.Model.Native;
using TorchSharp;
using static TorchSharp.torch;

namespace NopeGpt.Model.Fused;

/// <summary>Gives gradients that were computed with the loss.</summary>
internal sealed class HeadPass : BackwardPass
{
    private readonly Tensor _weight_Pd;
    private readonly Tensor _dx_Nd;
    private readonly Tensor? _dw_Pd;
    private readonly bool _returnsWeight;

    private HeadPass(Tensor weight_Pd, Tensor dx_Nd, Tensor? dw_Pd) =>
        (_weight_Pd, _dx_Nd, _dw_Pd, _returnsWeight) = (weight_Pd, dx_Nd.DetachFromDisposeScope(), dw_Pd?.DetachFromDisposeScope(), dw_Pd is not null && !weight_Pd.is_leaf);

    /// <param name="dw_Pd">Null: the head is frozen. Of a head that is a parameter it becomes the gradient, or is added to that.</param>
    public static Tensor Apply(Tensor loss, Tensor x_Nd, Tensor weight_Pd, Tensor dx_Nd, Tensor? dw_Pd)
    {
        HeadPass pass = new(weight_Pd, dx_Nd, dw_Pd);
        return AutogradNode.Attach([loss], pass._returnsWeight ? [x_Nd, weight_Pd] : [x_Nd], pass, needed: true)[0];
    }

    public override Tensor[] Run(IReadOnlyList<Tensor?> gradients)
    {
        Tensor by = gradients[0]!;
        // The factor of the loss is read where that does not make a device wait.
        if (by.device_type != DeviceType.CPU || by.item<float>() != 1)
        {
            _dx_Nd.mul_(by);
            _dw_Pd?.mul_(by);
        }
        Tensor dx_Nd = _dx_Nd.alias();
        if (_dw_Pd is null) return [dx_Nd];
        if (_returnsWeight) return [dx_Nd, _dw_Pd.alias()];
        FusedOperators.Add(_weight_Pd, _dw_Pd);
        return [dx_Nd];
    }

    public override void Dispose()
    {
        _dx_Nd.Dispose();
        _dw_Pd?.Dispose();
    }
}
