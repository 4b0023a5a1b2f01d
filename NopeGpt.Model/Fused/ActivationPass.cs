using NopeGpt.Model.Kernels;
using NopeGpt.Model.Native;
using TorchSharp;
using static TorchSharp.torch;

namespace NopeGpt.Model.Fused;

/// <summary>The function between the MLP's products by itself, with the bits that <see cref="MlpPass"/> has.</summary>
internal sealed unsafe class ActivationPass : BackwardPass
{
    private readonly Tensor _hidden;
    private readonly Tensor? _gate;
    private readonly bool _gelu;

    private ActivationPass(Tensor hidden, Tensor? gate, bool gelu) => (_hidden, _gate, _gelu) = (FusedOperators.Hold(hidden), gate is null ? null : FusedOperators.Hold(gate), gelu);

    /// <param name="hidden">Dense; its elements are a multiple of 8.</param>
    /// <param name="gate">Of the same shape, or null.</param>
    public static Tensor Apply(Tensor hidden, Tensor? gate, bool gelu)
    {
        Tensor y;
        ActivationPass pass;
        using (no_grad())
        {
            y = empty_like(hidden);
            ActivationKernel.Forward(Pointer(hidden), Pointer(gate), Pointer(y), hidden.numel(), gelu);
            pass = new(hidden, gate, gelu);
        }
        // Both come from the same input by projections, and need gradients together.
        return AutogradNode.Attach([y], gate is null ? [hidden] : [hidden, gate], pass, hidden.requires_grad || gate is { requires_grad: true })[0];
    }

    public override Tensor[] Run(IReadOnlyList<Tensor?> gradients)
    {
        Tensor hidden = _hidden.clone(), error = gradients[0]!.contiguous().clone();
        Tensor? gate = _gate?.clone();
        ActivationKernel.Backward(Pointer(hidden), Pointer(gate), Pointer(error), hidden.numel(), _gelu);
        return gate is null ? [error] : [error, gate];
    }

    public override void Dispose()
    {
        _hidden.Dispose();
        _gate?.Dispose();
    }

    private static float* Pointer(Tensor? tensor) => FusedOperators.Pointer(tensor);
}
