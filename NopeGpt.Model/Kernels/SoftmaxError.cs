using System.Runtime.CompilerServices;
using System.Runtime.Intrinsics;
using System.Runtime.Intrinsics.X86;

namespace NopeGpt.Model.Kernels;

// Shapes: C tokens of a chunk, V vocabulary, P a vocabulary and its padding.

/// <summary>Cross-entropy and its gradient by the logits, in float32 on a CPU, a row while it is in the nearest cache.</summary>
internal static unsafe class SoftmaxError
{
    private const int Lanes = 8;

    /// <summary>The logits become share·(softmax - one_hot(target)), 0 in the padding.</summary>
    /// <param name="loss_C">The cross-entropies, not weighted by the share; 0 where it is 0.</param>
    public static void Apply(float* logits_CP, long* target_C, float* share_C, float* loss_C, int tokens, int padded, int vocabulary)
    {
        const int together = 8;
        Crew.Run((tokens + together - 1) / together, part =>
        {
            for (int t = part * together, end = Math.Min(tokens, t + together); t < end; t++)
                loss_C[t] = Row(logits_CP + ((long)t * padded), target_C[t], share_C[t], padded, vocabulary);
        });
    }

    [MethodImpl(MethodImplOptions.AggressiveOptimization)]
    private static float Row(float* row, long target, float share, int padded, int vocabulary)
    {
        if (share == 0)
        {
            new Span<float>(row, padded).Clear();
            return 0;
        }
        int whole = vocabulary / Lanes * Lanes;
        Vector256<float> highest = Vector256.Create(float.NegativeInfinity), total = Vector256<float>.Zero;
        for (int i = 0; i < whole; i += Lanes) highest = Avx.Max(highest, Vector256.Load(row + i));
        float most = float.NegativeInfinity;
        for (int i = 0; i < Lanes; i++) most = MathF.Max(most, highest[i]);
        for (int i = whole; i < vocabulary; i++) most = MathF.Max(most, row[i]);
        Vector256<float> shift = Vector256.Create(most);
        float right = row[target] - most;
        for (int i = 0; i < whole; i += Lanes)
        {
            Vector256<float> e = VectorMath.Exp(Vector256.Load(row + i) - shift);
            total += e;
            e.Store(row + i);
        }
        float sum = Vector256.Sum(total);
        for (int i = whole; i < vocabulary; i++) sum += row[i] = MathF.Exp(row[i] - most);
        float factor = share / sum;
        Vector256<float> scale = Vector256.Create(factor);
        for (int i = 0; i < whole; i += Lanes) (Vector256.Load(row + i) * scale).Store(row + i);
        for (int i = whole; i < vocabulary; i++) row[i] *= factor;
        row[target] -= share;
        new Span<float>(row + vocabulary, padded - vocabulary).Clear();
        return MathF.Log(sum) - right;
    }
}
