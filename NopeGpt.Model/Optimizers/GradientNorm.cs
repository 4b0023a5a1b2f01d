using NopeGpt.Model.Native;
using TorchSharp;
using static TorchSharp.torch;

namespace NopeGpt.Model.Optimizers;

/// <summary>The length of all gradients taken as one vector.</summary>
public static class GradientNorm
{
    /// <summary>√(Σ g²) over every gradient, at its device, without waiting for it.</summary>
    /// <param name="parameters">Those without a gradient count as zero.</param>
    /// <returns>[] float32. Not finite where a gradient is not.</returns>
    public static Tensor Of(IEnumerable<Tensor> parameters)
    {
        using DisposeScope scope = NewDisposeScope();
        return Of(Gradients(parameters)).MoveToOuterDisposeScope();
    }

    /// <summary>Multiplies every gradient in place by min(1, maxNorm / (norm + 1e-6)), as PyTorch's clip_grad_norm_ does, without waiting for
    /// the device. A norm that is not finite makes every gradient not finite: look at it before the step.</summary>
    /// <param name="maxNorm">More than 0. Positive infinity measures only.</param>
    /// <returns>[] float32: the norm before clipping.</returns>
    public static Tensor Clip(IEnumerable<Tensor> parameters, double maxNorm)
    {
        if (!(maxNorm > 0)) throw new ArgumentOutOfRangeException(nameof(maxNorm), maxNorm, "The largest gradient norm must be more than 0.");
        using DisposeScope scope = NewDisposeScope();
        using IDisposable quiet = no_grad();
        IReadOnlyList<Tensor> gradients = Gradients(parameters);
        Tensor norm = Of(gradients);
        if (!double.IsPositiveInfinity(maxNorm))
        {
            Tensor factor = norm.add(Scalars.Of(1e-6), Scalars.One).reciprocal_().mul_(Scalars.Of(maxNorm)).clamp_(max: Scalars.One);
            Aten.MultiplyEach(gradients, factor);
        }
        return norm.MoveToOuterDisposeScope();
    }

    private static List<Tensor> Gradients(IEnumerable<Tensor> parameters) => [.. parameters.Select(p => p.grad).OfType<Tensor>()];

    private static Tensor Of(IReadOnlyList<Tensor> gradients)
    {
        using IDisposable quiet = no_grad();
        if (gradients.Count == 0) return zeros([], ScalarType.Float32);
        Tensor[] norms = [.. gradients.Select(g => g.to(ScalarType.Float32).norm())];
        return stack(norms).norm();
    }
}
