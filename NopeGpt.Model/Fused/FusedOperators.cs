using System.Runtime.Intrinsics.X86;
using NopeGpt.Model.Kernels;
using NopeGpt.Model.Native;
using TorchSharp;
using static TorchSharp.torch;

namespace NopeGpt.Model.Fused;

// Shapes: N tokens, i inputs and o outputs of a projection, d width of the stream.

/// <summary>What the operators of training have in common. They compute what libtorch's do, keep less for the backward pass, and add the gradients of
/// parameters to where these are, without a tensor between. They are for float32 on a CPU.</summary>
internal static class FusedOperators
{
    /// <summary>Whether a training pass can take them.</summary>
    public static bool Fit(Tensor x, Tensor weight) =>
        is_grad_enabled() && Fma.IsSupported && x.device_type == DeviceType.CPU && x.dtype == ScalarType.Float32 && weight.dtype == ScalarType.Float32
        && x.size(-1) % ThinProduct.Lanes == 0 && x.numel() > 0 && weight.is_leaf && weight.is_contiguous();

    /// <summary>A handle of its own on the same memory, without autograd, that lives until it is disposed.</summary>
    public static Tensor Hold(Tensor tensor) => tensor.detach().DetachFromDisposeScope();

    /// <summary>[N, columns], dense.</summary>
    public static Tensor Flat(Tensor x) => x.reshape(-1, x.size(-1)).contiguous();

    public static unsafe float* Pointer(Tensor? tensor) => tensor is null ? null : (float*)Dispatcher.DataPointer(tensor);

    /// <summary>y = x·Wᵀ + b into a tensor that is there.</summary>
    public static void Project(Tensor x_Ni, Tensor weight_oi, Tensor? bias_o, Tensor y_No)
    {
        if (bias_o is not null) y_No.copy_(bias_o.unsqueeze(0).expand_as(y_No));
        y_No.addmm_(x_Ni, weight_oi.t(), beta: bias_o is null ? 0 : 1);
    }

    /// <summary>Adds gᵀ·x to the gradient of W, and the sums of g to that of b.</summary>
    public static void AddGradients(Tensor weight_oi, Tensor? bias_o, Tensor g_No, Tensor x_Ni)
    {
        if (weight_oi.requires_grad)
        {
            if (weight_oi.grad is { } gradient_oi) gradient_oi.addmm_(g_No.t(), x_Ni);
            else weight_oi.grad = mm(g_No.t(), x_Ni);
        }
        if (bias_o is not null && bias_o.requires_grad) Add(bias_o, g_No.sum([0L]));
    }

    /// <summary>Adds to the gradient of a parameter. The added tensor may become it.</summary>
    public static void Add(Tensor parameter, Tensor added)
    {
        if (parameter.grad is { } gradient) gradient.add_(added, Scalars.One);
        else parameter.grad = added;
    }

    /// <summary>The gradient of a parameter, zeros where there was none. Null: it wants none.</summary>
    public static Tensor? GradientOf(Tensor? parameter)
    {
        if (parameter is null || !parameter.requires_grad) return null;
        if (parameter.grad is null) parameter.grad = zeros_like(parameter, requires_grad: false);
        return parameter.grad;
    }
}
