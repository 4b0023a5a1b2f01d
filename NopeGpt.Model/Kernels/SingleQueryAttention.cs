using System.Runtime.CompilerServices;
using System.Runtime.InteropServices;
using System.Runtime.Intrinsics;
using System.Runtime.Intrinsics.X86;
using NopeGpt.Model.Native;
using TorchSharp;
using static TorchSharp.torch;

namespace NopeGpt.Model.Kernels;

// Shapes: B rows, K key and value heads, G query heads that share one, S tokens in reach, D width of a head.

/// <summary>Attention of one new token of each row over a cache, in float32 on a CPU. It reads keys and values once, from front to back, where they lie;
/// libtorch's takes up to four times as long over them (docs/experiments.md).</summary>
internal static unsafe class SingleQueryAttention
{
    private const int Lanes = 8, Together = 4, LeastPart = 1 << 14;

    [ThreadStatic]
    private static float[]? scratch;

    /// <summary>softmax(q·kᵀ / √D + mask)·v, as <see cref="Aten.Attention"/>, which it is wherever the kernel is not for such tensors.</summary>
    /// <param name="query_BKGD">The G queries of each key head.</param>
    /// <param name="mask">Added to the scores, [B or 1, 1, 1, S], or null.</param>
    /// <returns>[B, K, G, D].</returns>
    public static Tensor Attend(Tensor query_BKGD, Tensor keys_BKSD, Tensor values_BKSD, Tensor? mask)
    {
        if (!Fits(query_BKGD, keys_BKSD, values_BKSD, mask)) return Aten.Attention(query_BKGD, keys_BKSD, values_BKSD, mask);
        int rows = (int)query_BKGD.shape[0], heads = (int)query_BKGD.shape[1];
        Tensor query = query_BKGD.contiguous(), mixed_BKGD = empty(query.shape);
        (long keyRow, long keyHead, long valueRow, long valueHead) = (keys_BKSD.stride(0), keys_BKSD.stride(1), values_BKSD.stride(0), values_BKSD.stride(1));
        Task all = new()
        {
            Query = Pointer(query), Keys = Pointer(keys_BKSD), Values = Pointer(values_BKSD), Mixed = Pointer(mixed_BKGD), Mask = mask is null ? null : Pointer(mask),
            Group = (int)query.shape[2], Reach = (int)keys_BKSD.shape[2], Width = (int)query.shape[3],
        };
        long maskRow = mask is null || mask.shape[0] == 1 ? 0 : all.Reach;
        int pairs = rows * heads, height = (int)Math.Max(1, Math.Min(pairs, LeastPart / ((long)all.Reach * all.Width)));
        Crew.Run((pairs + height - 1) / height, part =>
        {
            for (int pair = part * height; pair < Math.Min(pairs, (part + 1) * height); pair++)
            {
                (int row, int head) = (pair / heads, pair % heads);
                long at = (long)pair * all.Group * all.Width;
                One(all with
                {
                    Query = all.Query + at, Mixed = all.Mixed + at, Mask = all.Mask == null ? null : all.Mask + (row * maskRow),
                    Keys = all.Keys + (row * keyRow) + (head * keyHead), Values = all.Values + (row * valueRow) + (head * valueHead),
                });
            }
        });
        GC.KeepAlive(query);
        GC.KeepAlive(keys_BKSD);
        GC.KeepAlive(values_BKSD);
        GC.KeepAlive(mask);
        return mixed_BKGD;
    }

    private static bool Fits(Tensor query, Tensor keys, Tensor values, Tensor? mask) =>
        Fma.IsSupported && query.size(3) % Lanes == 0 && query.device_type == DeviceType.CPU && query.dtype == ScalarType.Float32 && !is_grad_enabled()
        && Dense(keys) && Dense(values) && (mask is null || (mask.dtype == ScalarType.Float32 && mask.is_contiguous()));

    // The tokens of a head stand one after the other.
    private static bool Dense(Tensor tensor) => tensor.dtype == ScalarType.Float32 && tensor.stride(3) == 1 && tensor.stride(2) == tensor.size(3);

    private static float* Pointer(Tensor tensor) => (float*)Dispatcher.DataPointer(tensor);

    /// <summary>The queries of one row and key head.</summary>
    private static void One(Task task)
    {
        int size = task.Group * task.Reach;
        if (scratch is null || scratch.Length < size) scratch = GC.AllocateUninitializedArray<float>((int)Math.Min(Array.MaxLength, 2L * size));
        fixed (float* weights = scratch)
        {
            Score(task, weights);
            for (int g = 0; g < task.Group; g++) Softmax(weights + ((long)g * task.Reach), task.Reach);
            Mix(task, weights);
        }
    }

    [MethodImpl(MethodImplOptions.AggressiveOptimization)]
    private static void Score(Task task, float* scores_GS)
    {
        float scale = (float)(1 / Math.Sqrt(task.Width));
        for (int s = 0; s < task.Reach; s++)
        {
            float* key = task.Keys + ((long)s * task.Width);
            float added = task.Mask == null ? 0 : task.Mask[s];
            for (int g = 0; g < task.Group; g++)
            {
                float* query = task.Query + ((long)g * task.Width);
                Vector256<float> sum = Vector256<float>.Zero;
                for (int d = 0; d < task.Width; d += Lanes) sum = Fma.MultiplyAdd(Vector256.Load(query + d), Vector256.Load(key + d), sum);
                scores_GS[((long)g * task.Reach) + s] = (Vector256.Sum(sum) * scale) + added;
            }
        }
    }

    [MethodImpl(MethodImplOptions.AggressiveOptimization)]
    private static void Softmax(float* scores, int count)
    {
        Span<float> all = new(scores, count);
        float top = float.NegativeInfinity;
        foreach (float score in all) top = MathF.Max(top, score);
        Vector256<float> sums = Vector256<float>.Zero, tops = Vector256.Create(top);
        int s = 0;
        for (; s <= count - Lanes; s += Lanes)
        {
            Vector256<float> weight = Vector256.Exp(Vector256.Load(scores + s) - tops);
            weight.Store(scores + s);
            sums += weight;
        }
        float sum = Vector256.Sum(sums);
        for (; s < count; s++) sum += scores[s] = MathF.Exp(scores[s] - top);
        float share = 1 / sum;
        for (s = 0; s < count; s++) scores[s] *= share;
    }

    /// <summary>Adds up the values, some tokens together, so that the sums are fetched and put back less often.</summary>
    [MethodImpl(MethodImplOptions.AggressiveOptimization)]
    private static void Mix(Task task, float* weights_GS)
    {
        new Span<float>(task.Mixed, task.Group * task.Width).Clear();
        int width = task.Width, s = 0;
        for (; s <= task.Reach - Together; s += Together)
        {
            float* value = task.Values + ((long)s * width);
            for (int g = 0; g < task.Group; g++)
            {
                float* weight = weights_GS + ((long)g * task.Reach) + s, mixed = task.Mixed + ((long)g * width);
                Vector256<float> w0 = Vector256.Create(weight[0]), w1 = Vector256.Create(weight[1]), w2 = Vector256.Create(weight[2]), w3 = Vector256.Create(weight[3]);
                for (int d = 0; d < width; d += Lanes)
                {
                    float* at = value + d;
                    Vector256<float> sum = Fma.MultiplyAdd(w0, Vector256.Load(at), Vector256.Load(mixed + d));
                    sum = Fma.MultiplyAdd(w1, Vector256.Load(at + width), sum);
                    sum = Fma.MultiplyAdd(w2, Vector256.Load(at + (2 * width)), sum);
                    Fma.MultiplyAdd(w3, Vector256.Load(at + (3 * width)), sum).Store(mixed + d);
                }
            }
        }
        for (; s < task.Reach; s++)
        {
            for (int g = 0; g < task.Group; g++)
            {
                float* mixed = task.Mixed + ((long)g * width), value = task.Values + ((long)s * width);
                Vector256<float> weight = Vector256.Create(weights_GS[((long)g * task.Reach) + s]);
                for (int d = 0; d < width; d += Lanes) Fma.MultiplyAdd(weight, Vector256.Load(value + d), Vector256.Load(mixed + d)).Store(mixed + d);
            }
        }
    }

    private struct Task
    {
        public float* Query;
        public float* Keys;
        public float* Values;
        public float* Mixed;
        public float* Mask;
        public int Group;
        public int Reach;
        public int Width;
    }
}
