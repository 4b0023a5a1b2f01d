using NopeGpt.Model.Kernels;
using NopeGpt.Model.Native;
using TorchSharp;
using static TorchSharp.torch;

namespace NopeGpt.Model.Fused;

/// <summary>A normalisation before something: it keeps its input and two numbers of each token, and makes its result again where that is needed.</summary>
internal sealed unsafe class FusedNorm : IDisposable
{
    private readonly Normalisation _norm;
    private readonly NormKernel _kernel;
    private readonly Tensor _x_Nd;
    private readonly Tensor _kept_N2;

    /// <param name="x_Nd">Dense; its memory must stay as it is.</param>
    /// <param name="y_Nd">Takes the result.</param>
    public FusedNorm(Normalisation norm, Tensor x_Nd, Tensor y_Nd)
    {
        _norm = norm;
        _kernel = new(norm.IsCentred, checked((int)x_Nd.shape[0]), checked((int)x_Nd.shape[1]), (float)norm.Epsilon);
        _x_Nd = FusedOperators.Hold(x_Nd);
        _kept_N2 = empty([x_Nd.shape[0], NormKernel.Kept], ScalarType.Float32, CPU).DetachFromDisposeScope();
        _kernel.Forward(Pointer(_x_Nd), Pointer(norm.weight), Pointer(norm.bias), Pointer(y_Nd), Pointer(_kept_N2));
    }

    /// <summary>The result once more, to the bit.</summary>
    public void Again(Tensor y_Nd) => _kernel.Again(Pointer(_x_Nd), Pointer(_norm.weight), Pointer(_norm.bias), Pointer(y_Nd), Pointer(_kept_N2));

    /// <summary>Adds up the gradients of the parameters.</summary>
    /// <param name="dy_Nd">Dense.</param>
    /// <param name="wanted">Whether the input's gradient is.</param>
    public Tensor? Backward(Tensor dy_Nd, bool wanted)
    {
        Tensor? dx_Nd = wanted ? empty_like(dy_Nd) : null, weightGradient_d = FusedOperators.GradientOf(_norm.weight), biasGradient_d = FusedOperators.GradientOf(_norm.bias);
        _kernel.Backward(Pointer(_x_Nd), Pointer(_norm.weight), Pointer(dy_Nd), Pointer(_kept_N2), Pointer(dx_Nd), Pointer(weightGradient_d), Pointer(biasGradient_d));
        return dx_Nd;
    }

    public void Dispose()
    {
        _x_Nd.Dispose();
        _kept_N2.Dispose();
    }

    private static float* Pointer(Tensor? tensor) => FusedOperators.Pointer(tensor);
}

/// <summary>A normalisation by itself.</summary>
internal sealed class NormPass : BackwardPass
{
    private readonly FusedNorm _norm;
    private readonly bool _wanted;

    private NormPass(FusedNorm norm, bool wanted) => (_norm, _wanted) = (norm, wanted);

    public static Tensor Apply(Tensor x, Normalisation norm)
    {
        Tensor y;
        FusedNorm fused;
        using (no_grad())
        {
            Tensor x_Nd = FusedOperators.Flat(x);
            y = empty(x.shape, ScalarType.Float32, CPU);
            fused = new(norm, x_Nd, y.view(x_Nd.shape));
        }
        return AutogradNode.Attach([y], x.requires_grad ? [x] : [], new NormPass(fused, x.requires_grad), x.requires_grad || norm.weight.requires_grad)[0];
    }

    public override Tensor[] Run(IReadOnlyList<Tensor?> gradients)
    {
        Tensor gradient = gradients[0]!;
        Tensor? dx_Nd = _norm.Backward(FusedOperators.Flat(gradient), _wanted);
        return dx_Nd is null ? [] : [dx_Nd.view(gradient.shape)];
    }

    public override void Dispose() => _norm.Dispose();
}
