using System.Runtime.CompilerServices;
using System.Runtime.Intrinsics;
using System.Runtime.Intrinsics.X86;
using NopeGpt.Model.Native;
using static TorchSharp.torch;

namespace NopeGpt.Model.Kernels;

/// <summary>RMSNorm for the few tokens of a decoding step, in float32 on a CPU. libtorch makes it of six operators there, which cost ten times as long.</summary>
internal static unsafe class ThinNorm
{
    /// <summary>x / √(mean(x²) + epsilon) · weight over the last dimension, as <see cref="Aten.RmsNorm"/>, which it is wherever the kernel is not for such
    /// tensors or a gradient is wanted.</summary>
    /// <param name="x">[..., d].</param>
    /// <param name="weight_d">[d].</param>
    public static Tensor Rms(Tensor x, Tensor weight_d, double epsilon)
    {
        if (!ThinProduct.Fits(x, weight_d)) return Aten.RmsNorm(x, weight_d, epsilon);
        int width = (int)x.size(-1), tokens = (int)(x.numel() / width);
        Tensor dense = x.contiguous(), y = empty_like(dense);
        float* from = (float*)Dispatcher.DataPointer(dense), to = (float*)Dispatcher.DataPointer(y), weight = (float*)Dispatcher.DataPointer(weight_d);
        for (long at = 0; at < (long)tokens * width; at += width) One(from + at, weight, to + at, width, (float)epsilon);
        GC.KeepAlive(dense);
        GC.KeepAlive(weight_d);
        return y;
    }

    [MethodImpl(MethodImplOptions.AggressiveOptimization)]
    private static void One(float* x, float* weight, float* y, int width, float epsilon)
    {
        Vector256<float> squares = Vector256<float>.Zero;
        for (int i = 0; i < width; i += ThinProduct.Lanes)
        {
            Vector256<float> v = Vector256.Load(x + i);
            squares = Fma.MultiplyAdd(v, v, squares);
        }
        Vector256<float> scale = Vector256.Create(1 / MathF.Sqrt((Vector256.Sum(squares) / width) + epsilon));
        for (int i = 0; i < width; i += ThinProduct.Lanes) (Vector256.Load(x + i) * scale * Vector256.Load(weight + i)).Store(y + i);
    }
}
