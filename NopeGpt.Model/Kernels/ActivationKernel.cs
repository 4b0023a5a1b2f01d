using System.Runtime.CompilerServices;
using System.Runtime.Intrinsics;
using System.Runtime.Intrinsics.X86;

namespace NopeGpt.Model.Kernels;

/// <summary>The function between the MLP's products, of float32 numbers in a CPU's memory: a(h) = h·σ(t(h)), where t is h for SiLU and 2·√(2/π)·(h + 0.044715·h³) for
/// GELU in its tanh form; times a gate, where there is one.</summary>
internal static unsafe class ActivationKernel
{
    private const int Lanes = 8, PartElements = 1 << 14;
    private const float Slope = 1.5957691216f, Cubic = 0.044715f;

    /// <summary>y = a(h), times the gate.</summary>
    /// <param name="gate">Or null.</param>
    /// <param name="count">A multiple of 8.</param>
    public static void Forward(float* h, float* gate, float* y, long count, bool gelu) =>
        Crew.Run(Parts(count), part => Forward(h, gate, y, (long)part * PartElements, Math.Min(count, ((long)part + 1) * PartElements), gelu));

    /// <summary>In place: h becomes a(h) times the gate, dy the gradient of h, and the gate its own gradient.</summary>
    public static void Backward(float* h, float* gate, float* dy, long count, bool gelu) =>
        Crew.Run(Parts(count), part => Backward(h, gate, dy, (long)part * PartElements, Math.Min(count, ((long)part + 1) * PartElements), gelu));

    private static int Parts(long count) => checked((int)((count + PartElements - 1) / PartElements));

    [MethodImpl(MethodImplOptions.AggressiveOptimization)]
    private static void Forward(float* h, float* gate, float* y, long first, long end, bool gelu)
    {
        for (long i = first; i < end; i += Lanes)
        {
            Vector256<float> x = Vector256.Load(h + i), a = x * VectorMath.Sigmoid(gelu ? Bent(x) : x);
            (gate == null ? a : a * Vector256.Load(gate + i)).Store(y + i);
        }
    }

    [MethodImpl(MethodImplOptions.AggressiveOptimization)]
    private static void Backward(float* h, float* gate, float* dy, long first, long end, bool gelu)
    {
        for (long i = first; i < end; i += Lanes)
        {
            Vector256<float> x = Vector256.Load(h + i), g = Vector256.Load(dy + i), s = VectorMath.Sigmoid(gelu ? Bent(x) : x), a = x * s;
            Vector256<float> slope = gelu ? Fma.MultiplyAdd(x * x, Vector256.Create(3 * Slope * Cubic), Vector256.Create(Slope)) : Vector256<float>.One;
            // a' = s + x·s·(1 - s)·t'
            Vector256<float> derivative = Fma.MultiplyAdd(a * (Vector256<float>.One - s), slope, s);
            if (gate != null)
            {
                Vector256<float> open = Vector256.Load(gate + i);
                (g * a).Store(gate + i);
                (a, g) = (a * open, g * open);
            }
            a.Store(h + i);
            (g * derivative).Store(dy + i);
        }
    }

    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    private static Vector256<float> Bent(Vector256<float> x) => x * Fma.MultiplyAdd(x * x, Vector256.Create(Slope * Cubic), Vector256.Create(Slope));
}
