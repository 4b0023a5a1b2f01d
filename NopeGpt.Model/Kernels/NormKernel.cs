using System.Runtime.CompilerServices;
using System.Runtime.Intrinsics;
using System.Runtime.Intrinsics.X86;

namespace NopeGpt.Model.Kernels;

// Shapes: N tokens, d channels.

/// <summary>RMSNorm, or with <paramref name="centred"/> layer normalisation, of float32 tokens in a CPU's memory: y = (x - m)·s·w + b, where s = 1/√(mean((x - m)²) + ε)
/// and m is the mean of x, or 0. Only m and s are kept for the backward pass. Work is cut by the shapes alone, and sums are added in one order.</summary>
internal sealed unsafe class NormKernel(bool centred, int tokens, int width, float epsilon)
{
    private const int Lanes = 8, PartTokens = 64;

    /// <summary>Numbers that a token leaves behind.</summary>
    public const int Kept = 2;

    private int Parts => (tokens + PartTokens - 1) / PartTokens;

    public void Forward(float* x_Nd, float* weight_d, float* bias_d, float* y_Nd, float* kept_N2) => Crew.Run(Parts, part =>
    {
        for (int t = part * PartTokens, end = Math.Min(tokens, t + PartTokens); t < end; t++)
        {
            float* x = x_Nd + ((long)t * width);
            (float mean, float scale) = Statistics(x);
            (kept_N2[2 * t], kept_N2[(2 * t) + 1]) = (mean, scale);
            Apply(x, weight_d, bias_d, y_Nd + ((long)t * width), mean, scale);
        }
    });

    /// <summary>y once more, from what was kept.</summary>
    public void Again(float* x_Nd, float* weight_d, float* bias_d, float* y_Nd, float* kept_N2) => Crew.Run(Parts, part =>
    {
        for (int t = part * PartTokens, end = Math.Min(tokens, t + PartTokens); t < end; t++)
            Apply(x_Nd + ((long)t * width), weight_d, bias_d, y_Nd + ((long)t * width), kept_N2[2 * t], kept_N2[(2 * t) + 1]);
    });

    /// <summary>dx = s·(g - mean(g) - x̂·mean(g·x̂)) with x̂ = (x - m)·s and g = dy·w, without mean(g) where nothing is centred.</summary>
    /// <param name="dx_Nd">May be dy. Null: not wanted.</param>
    /// <param name="weightGradient_d">Is added to. Null: not wanted.</param>
    /// <param name="biasGradient_d">Is added to. Null: not wanted.</param>
    public void Backward(float* x_Nd, float* weight_d, float* dy_Nd, float* kept_N2, float* dx_Nd, float* weightGradient_d, float* biasGradient_d)
    {
        float[] sums = new float[weightGradient_d == null ? 0 : 2L * Parts * width];
        fixed (float* start = sums)
        {
            float* partial = start;
            Crew.Run(Parts, part =>
            {
                float* sum = partial == null ? null : partial + (2L * part * width);
                for (int t = part * PartTokens, end = Math.Min(tokens, t + PartTokens); t < end; t++)
                {
                    long at = (long)t * width;
                    One(x_Nd + at, weight_d, dy_Nd + at, dx_Nd == null ? null : dx_Nd + at, sum, kept_N2[2 * t], kept_N2[(2 * t) + 1]);
                }
            });
            if (partial == null) return;
            for (int part = 0; part < Parts; part++)
            {
                Add(partial + (2L * part * width), weightGradient_d);
                if (biasGradient_d != null) Add(partial + (((2L * part) + 1) * width), biasGradient_d);
            }
        }
    }

    private void Add(float* from, float* to)
    {
        for (int i = 0; i < width; i += Lanes) (Vector256.Load(to + i) + Vector256.Load(from + i)).Store(to + i);
    }

    [MethodImpl(MethodImplOptions.AggressiveOptimization)]
    private (float Mean, float Scale) Statistics(float* x)
    {
        Vector256<float> sum = Vector256<float>.Zero, squares = Vector256<float>.Zero;
        if (centred)
            for (int i = 0; i < width; i += Lanes) sum += Vector256.Load(x + i);
        float mean = Vector256.Sum(sum) / width;
        Vector256<float> centre = Vector256.Create(mean);
        for (int i = 0; i < width; i += Lanes)
        {
            Vector256<float> v = Vector256.Load(x + i) - centre;
            squares = Fma.MultiplyAdd(v, v, squares);
        }
        return (mean, 1 / MathF.Sqrt((Vector256.Sum(squares) / width) + epsilon));
    }

    [MethodImpl(MethodImplOptions.AggressiveOptimization)]
    private void Apply(float* x, float* weight, float* bias, float* y, float mean, float scale)
    {
        Vector256<float> m = Vector256.Create(mean), s = Vector256.Create(scale);
        for (int i = 0; i < width; i += Lanes)
        {
            Vector256<float> v = (Vector256.Load(x + i) - m) * s * Vector256.Load(weight + i);
            (bias == null ? v : v + Vector256.Load(bias + i)).Store(y + i);
        }
    }

    [MethodImpl(MethodImplOptions.AggressiveOptimization)]
    private void One(float* x, float* weight, float* dy, float* dx, float* sums, float mean, float scale)
    {
        Vector256<float> m = Vector256.Create(mean), s = Vector256.Create(scale), all = Vector256<float>.Zero, along = Vector256<float>.Zero;
        for (int i = 0; i < width; i += Lanes)
        {
            Vector256<float> unit = (Vector256.Load(x + i) - m) * s, incoming = Vector256.Load(dy + i), g = incoming * Vector256.Load(weight + i);
            along = Fma.MultiplyAdd(g, unit, along);
            all += g;
            if (sums == null) continue;
            Fma.MultiplyAdd(incoming, unit, Vector256.Load(sums + i)).Store(sums + i);
            if (centred) (Vector256.Load(sums + width + i) + incoming).Store(sums + width + i);
        }
        if (dx == null) return;
        Vector256<float> mine = Vector256.Create(Vector256.Sum(along) / width), shift = Vector256.Create(centred ? Vector256.Sum(all) / width : 0);
        for (int i = 0; i < width; i += Lanes)
        {
            Vector256<float> unit = (Vector256.Load(x + i) - m) * s, g = Vector256.Load(dy + i) * Vector256.Load(weight + i);
            (Fma.MultiplyAddNegated(unit, mine, g - shift) * s).Store(dx + i);
        }
    }
}
