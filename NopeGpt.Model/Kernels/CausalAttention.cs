using System.Runtime.CompilerServices;
using System.Runtime.InteropServices;
using System.Runtime.Intrinsics;
using System.Runtime.Intrinsics.X86;
using NopeGpt.Model.Native;

namespace NopeGpt.Model.Kernels;

// Shapes: B rows, T tokens, H query heads, K key and value heads, D width of a head.

/// <summary>Causal attention of whole rows and its gradients, scale 1/√D, in float32 on a CPU. A few queries at a time meet the keys up to the last of them, so that
/// what no query sees is hardly computed, and their scores stay in the cache. Heads are read where they lie among the others, and shared keys are not
/// repeated. Each key head's part is one thread's, so that sums are added in one order.</summary>
internal sealed unsafe class CausalAttention(int rows, int tokens, int queryHeads, int keyHeads, int width)
{
    private const int Lanes = 8, Together = 64;

    private readonly float _scale = 1 / MathF.Sqrt(width);

    // A line of scores has whole vectors.
    private readonly int _line = (tokens + Lanes - 1) / Lanes * Lanes;

    [ThreadStatic]
    private static float[]? scratch;

    /// <param name="mixed">[B, T, H, D], as the query; the others are [B, T, K, D].</param>
    /// <param name="logSum">[B, H, T]: of each query, the logarithm of the sum of its exponentials.</param>
    public void Forward(float* query, float* keys, float* values, float* mixed, float* logSum) => Each((row, head, scores, _) =>
    {
        (Block k, Block v) = (Key(keys, row, head), Key(values, row, head));
        float* inverse = stackalloc float[Together];
        for (int h = head * Group; h < (head + 1) * Group; h++)
        {
            (Block q, Block y) = (Query(query, row, h), Query(mixed, row, h));
            float* sums = logSum + (((long)row * queryHeads) + h) * tokens;
            for (int first = 0; first < tokens; first += Together)
            {
                int end = Math.Min(tokens, first + Together), count = end - first;
                Blas.TimesTransposed(q.From(first), k, scores, count, end, width);
                for (int i = 0; i < count; i++) (sums[first + i], inverse[i]) = Softmax(scores.From(i).Start, first + i + 1, end);
                Blas.Times(scores, v, y.From(first), count, width, end);
                for (int i = 0; i < count; i++) Scale(y.From(first + i).Start, inverse[i]);
            }
        }
    });

    /// <param name="dKeys">Zeros before.</param>
    /// <param name="dValues">Zeros before.</param>
    public void Backward(float* query, float* keys, float* values, float* mixed, float* logSum, float* dMixed, float* dQuery, float* dKeys, float* dValues) => Each((row, head, scores, errors) =>
    {
        (Block k, Block v, Block dk, Block dv) = (Key(keys, row, head), Key(values, row, head), Key(dKeys, row, head), Key(dValues, row, head));
        for (int h = head * Group; h < (head + 1) * Group; h++)
        {
            (Block q, Block y, Block dq, Block dy) = (Query(query, row, h), Query(mixed, row, h), Query(dQuery, row, h), Query(dMixed, row, h));
            float* sums = logSum + (((long)row * queryHeads) + h) * tokens;
            for (int first = 0; first < tokens; first += Together)
            {
                int end = Math.Min(tokens, first + Together), count = end - first;
                Blas.TimesTransposed(q.From(first), k, scores, count, end, width);
                Blas.TimesTransposed(dy.From(first), v, errors, count, end, width);
                for (int i = 0; i < count; i++)
                    Errors(scores.From(i).Start, errors.From(i).Start, first + i + 1, end, sums[first + i], Dot(y.From(first + i).Start, dy.From(first + i).Start));
                Blas.AddTransposedTimes(scores, dy.From(first), dv, end, width, count);
                Blas.AddTransposedTimes(errors, q.From(first), dk, end, width, count);
                Blas.Times(errors, k, dq.From(first), count, width, end);
            }
        }
    });

    private int Group => queryHeads / keyHeads;

    private void Each(Action<int, int, Block, Block> work) => Crew.Run(rows * keyHeads, pair =>
    {
        int size = Together * _line;
        // Whole vectors more, for a start where a line of the cache begins.
        if (scratch is null || scratch.Length < (2 * size) + 16) scratch = GC.AllocateUninitializedArray<float>((2 * size) + 16, pinned: true);
        float* start = (float*)(((nint)Unsafe.AsPointer(ref MemoryMarshal.GetArrayDataReference(scratch)) + 63) / 64 * 64);
        int threads = Blas.SetThreads(1);
        work(pair / keyHeads, pair % keyHeads, new(start, _line), new(start + size, _line));
        _ = Blas.SetThreads(threads);
    });

    private Block Query(float* start, int row, int head) => new(start + ((((long)row * tokens * queryHeads) + head) * width), queryHeads * width);

    private Block Key(float* start, int row, int head) => new(start + ((((long)row * tokens * keyHeads) + head) * width), keyHeads * width);

    /// <summary>A row of scores becomes exponentials, 0 from `seen` to `end`.</summary>
    /// <returns>The logarithm of their sum, and what makes a softmax of them.</returns>
    [MethodImpl(MethodImplOptions.AggressiveOptimization)]
    private (float LogSum, float Inverse) Softmax(float* row, int seen, int end)
    {
        Fill(row, seen, end, float.NegativeInfinity);
        int whole = (seen + Lanes - 1) / Lanes * Lanes;
        Vector256<float> highest = Vector256.Create(float.NegativeInfinity), total = Vector256<float>.Zero, scale = Vector256.Create(_scale);
        for (int i = 0; i < whole; i += Lanes) highest = Avx.Max(highest, Vector256.Load(row + i));
        float most = float.NegativeInfinity;
        for (int i = 0; i < Lanes; i++) most = MathF.Max(most, highest[i]);
        Vector256<float> shift = Vector256.Create(most * _scale);
        for (int i = 0; i < whole; i += Lanes)
        {
            Vector256<float> e = VectorMath.Exp(Fma.MultiplySubtract(Vector256.Load(row + i), scale, shift));
            e.Store(row + i);
        }
        Fill(row, seen, end, 0);
        for (int i = 0; i < whole; i += Lanes) total += Vector256.Load(row + i);
        float sum = Vector256.Sum(total);
        return ((most * _scale) + MathF.Log(sum), 1 / sum);
    }

    /// <summary>A row of scores becomes the weights p, and that of the weights' gradients g the scores' own: p·(g - along)/√D, 0 from `seen` to `end`.</summary>
    [MethodImpl(MethodImplOptions.AggressiveOptimization)]
    private void Errors(float* row, float* error, int seen, int end, float logSum, float along)
    {
        int whole = (seen + Lanes - 1) / Lanes * Lanes;
        Vector256<float> shift = Vector256.Create(logSum), scale = Vector256.Create(_scale), mean = Vector256.Create(along);
        for (int i = 0; i < whole; i += Lanes)
        {
            Vector256<float> p = VectorMath.Exp(Fma.MultiplySubtract(Vector256.Load(row + i), scale, shift));
            p.Store(row + i);
            (p * (Vector256.Load(error + i) - mean) * scale).Store(error + i);
        }
        Fill(row, seen, end, 0);
        Fill(error, seen, end, 0);
    }

    // Up to whole vectors: the line has them.
    private static void Fill(float* row, int seen, int end, float value) => new Span<float>(row + seen, ((end + Lanes - 1) / Lanes * Lanes) - seen).Fill(value);

    private float Dot(float* a, float* b)
    {
        Vector256<float> sum = Vector256<float>.Zero;
        for (int i = 0; i < width; i += Lanes) sum = Fma.MultiplyAdd(Vector256.Load(a + i), Vector256.Load(b + i), sum);
        return Vector256.Sum(sum);
    }

    private void Scale(float* row, float factor)
    {
        Vector256<float> by = Vector256.Create(factor);
        for (int i = 0; i < width; i += Lanes) (Vector256.Load(row + i) * by).Store(row + i);
    }
}
