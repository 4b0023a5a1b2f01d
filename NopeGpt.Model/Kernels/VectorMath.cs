using System.Runtime.CompilerServices;
using System.Runtime.Intrinsics;
using System.Runtime.Intrinsics.X86;

namespace NopeGpt.Model.Kernels;

/// <summary>Functions of eight numbers at once.</summary>
internal static class VectorMath
{
    /// <summary>e^x to 2 units in the last place, of x bounded to -87.3 and 88, so that the result and its inverse are normal numbers. Not a number stays so.</summary>
    /// <remarks>x = n·ln 2 + r with |r| at most ln 2 / 2, in two parts for its precision (Cody and Waite 1980), and e^r by its series to r^7.</remarks>
    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    public static Vector256<float> Exp(Vector256<float> x)
    {
        // The processor's own minimum and maximum give the second operand where one is not a number.
        x = Avx.Min(Vector256.Create(88f), Avx.Max(Vector256.Create(-87.3f), x));
        Vector256<float> n = Avx.RoundToNearestInteger(x * 1.44269504f);
        Vector256<float> r = Fma.MultiplyAddNegated(n, Vector256.Create(0.693359375f), x);
        r = Fma.MultiplyAddNegated(n, Vector256.Create(-2.12194440e-4f), r);
        Vector256<float> p = Fma.MultiplyAdd(r, Vector256.Create(1 / 5040f), Vector256.Create(1 / 720f));
        p = Fma.MultiplyAdd(p, r, Vector256.Create(1 / 120f));
        p = Fma.MultiplyAdd(p, r, Vector256.Create(1 / 24f));
        p = Fma.MultiplyAdd(p, r, Vector256.Create(1 / 6f));
        p = Fma.MultiplyAdd(p, r, Vector256.Create(0.5f));
        p = Fma.MultiplyAdd(p, r, Vector256<float>.One);
        p = Fma.MultiplyAdd(p, r, Vector256<float>.One);
        return p * ((Avx.ConvertToVector256Int32(n) + Vector256.Create(127)) << 23).AsSingle();
    }

    /// <summary>1 / (1 + e^-x).</summary>
    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    public static Vector256<float> Sigmoid(Vector256<float> x) => Vector256<float>.One / (Vector256<float>.One + Exp(-x));
}
