using System.Runtime.CompilerServices;
using System.Runtime.Intrinsics;
using System.Runtime.Intrinsics.X86;
using NopeGpt.Model.Native;
using TorchSharp;
using static TorchSharp.torch;
using static TorchSharp.torch.nn;

namespace NopeGpt.Model.Kernels;

// Shapes: N tokens, i inputs, o outputs.

/// <summary>x·Wᵀ + b for the few tokens of a decoding step, in float32 on a CPU. Such a product takes as long as reading W takes, and libtorch's reads it
/// at a third of the memory's rate and on one thread (docs/experiments.md). This one reads W once, from front to back, on all threads.</summary>
/// <remarks>Every output is added up in the same order, whatever the number of tokens and threads: a row of a batch gets the same bits as alone.</remarks>
internal static unsafe class ThinProduct
{
    /// <summary>Above this many tokens libtorch's product is as fast.</summary>
    internal const int MostTokens = 32;

    /// <summary>Numbers that the processor takes at once.</summary>
    internal const int Lanes = 8;

    private const int TileTokens = 4, LeastPart = 1 << 14;

    /// <summary>As `functional.linear`, which it is wherever the kernel is not for such tensors or a gradient is wanted. Weights take the type of x.</summary>
    /// <param name="x">[..., i].</param>
    /// <param name="weight_oi">W.</param>
    /// <returns>[..., o].</returns>
    public static Tensor Linear(Tensor x, Tensor weight_oi, Tensor? bias_o = null)
    {
        if (!Fits(x, weight_oi)) return functional.linear(x, weight_oi.As(x.dtype), bias_o?.As(x.dtype));
        long[] shape = x.shape;
        int inputs = (int)shape[^1], outputs = (int)weight_oi.shape[0], tokens = (int)(x.numel() / inputs);
        shape[^1] = outputs;
        Tensor dense = x.contiguous(), y = empty(shape);
        Task task = new(
            (float*)Dispatcher.DataPointer(weight_oi), (float*)Dispatcher.DataPointer(dense), (float*)Dispatcher.DataPointer(y),
            bias_o is null ? null : (float*)Dispatcher.DataPointer(bias_o), inputs, outputs, tokens);
        // Parts of whole pairs of rows, large against the cost of handing them out.
        int height = Math.Max(2, LeastPart / inputs & ~1);
        Crew.Run((outputs + height - 1) / height, part => Rows(task, part * height, Math.Min(outputs, (part + 1) * height)));
        GC.KeepAlive(weight_oi);
        GC.KeepAlive(dense);
        GC.KeepAlive(bias_o);
        return y;
    }

    /// <summary>Whether the kernels of this folder are for such a stream and weights.</summary>
    internal static bool Fits(Tensor x, Tensor weight)
    {
        long inputs = x.size(-1);
        return Fma.IsSupported && x.numel() <= MostTokens * inputs && inputs % Lanes == 0 && x.numel() > 0
            && x.device_type == DeviceType.CPU && x.dtype == ScalarType.Float32 && weight.dtype == ScalarType.Float32
            && weight.is_contiguous() && !is_grad_enabled();
    }

    /// <summary>The outputs from one row of W to another.</summary>
    [MethodImpl(MethodImplOptions.AggressiveOptimization)]
    private static void Rows(Task task, int first, int end)
    {
        if (task.Tokens == 1)
        {
            for (int row = first; row < end; row++) task.Store(row, 0, Dot(task.Weight + ((long)row * task.Inputs), task.X, task.Inputs));
            return;
        }
        for (int row = first; row < end; row += 2)
        {
            for (int token = 0; token < task.Tokens; token += TileTokens) Tile(task, row, Math.Min(row + 1, end - 1), token);
        }
    }

    private static float Dot(float* a, float* b, int length)
    {
        Vector256<float> sum = Vector256<float>.Zero;
        for (int i = 0; i < length; i += Lanes) sum = Fma.MultiplyAdd(Vector256.Load(a + i), Vector256.Load(b + i), sum);
        return Vector256.Sum(sum);
    }

    /// <summary>Two outputs of four tokens. Where there are fewer, the last stands in and its sums are stored once more or not at all.</summary>
    [MethodImpl(MethodImplOptions.AggressiveOptimization)]
    private static void Tile(Task task, int row0, int row1, int token)
    {
        int inputs = task.Inputs, last = task.Tokens - 1;
        float* w0 = task.Weight + ((long)row0 * inputs), w1 = task.Weight + ((long)row1 * inputs);
        float* x0 = task.X + ((long)token * inputs), x1 = task.X + ((long)Math.Min(token + 1, last) * inputs);
        float* x2 = task.X + ((long)Math.Min(token + 2, last) * inputs), x3 = task.X + ((long)Math.Min(token + 3, last) * inputs);
        // The next two rows are asked for a line at a time, in the order of memory: two rows read side by side do not look like one stream to
        // the processor, which then fetches at half the rate. Only the first tile of tokens does it; at the end it asks for what it has.
        float* ahead = w0 + (token == 0 && row1 + 2 < task.Outputs ? 2 * inputs : 0);
        Vector256<float> sum00 = Vector256<float>.Zero, sum01 = sum00, sum02 = sum00, sum03 = sum00, sum10 = sum00, sum11 = sum00, sum12 = sum00, sum13 = sum00;
        for (int i = 0; i < inputs; i += Lanes)
        {
            Sse.Prefetch0(ahead + (2 * i));
            Vector256<float> a = Vector256.Load(w0 + i), b = Vector256.Load(w1 + i), x = Vector256.Load(x0 + i);
            sum00 = Fma.MultiplyAdd(a, x, sum00);
            sum10 = Fma.MultiplyAdd(b, x, sum10);
            x = Vector256.Load(x1 + i);
            sum01 = Fma.MultiplyAdd(a, x, sum01);
            sum11 = Fma.MultiplyAdd(b, x, sum11);
            x = Vector256.Load(x2 + i);
            sum02 = Fma.MultiplyAdd(a, x, sum02);
            sum12 = Fma.MultiplyAdd(b, x, sum12);
            x = Vector256.Load(x3 + i);
            sum03 = Fma.MultiplyAdd(a, x, sum03);
            sum13 = Fma.MultiplyAdd(b, x, sum13);
        }
        Span<float> sums0 = [Vector256.Sum(sum00), Vector256.Sum(sum01), Vector256.Sum(sum02), Vector256.Sum(sum03)];
        Span<float> sums1 = [Vector256.Sum(sum10), Vector256.Sum(sum11), Vector256.Sum(sum12), Vector256.Sum(sum13)];
        for (int t = 0; t < TileTokens && token + t <= last; t++)
        {
            task.Store(row0, token + t, sums0[t]);
            task.Store(row1, token + t, sums1[t]);
        }
    }

    private readonly struct Task(float* weight, float* x, float* y, float* bias, int inputs, int outputs, int tokens)
    {
        public readonly float* Weight = weight, X = x, Y = y, Bias = bias;
        public readonly int Inputs = inputs, Outputs = outputs, Tokens = tokens;

        public void Store(int row, int token, float sum) => Y[((long)token * Outputs) + row] = Bias == null ? sum : sum + Bias[row];
    }
}
