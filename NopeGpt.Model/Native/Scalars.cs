using TorchSharp;
using static TorchSharp.torch;

namespace NopeGpt.Model.Native;

#pragma warning disable RS0030 // This is the owner.

/// <summary>Numbers for TorchSharp's operators, and the only place that makes them (BannedSymbols.txt). A <see cref="Scalar"/> is an object that
/// frees its native number in a finalizer, and TorchSharp does not keep it alive during a call. Where nothing else refers to it, as with x.mul(0.5),
/// a collection in the midst of the call frees the number that libtorch is about to read, and the result is silently wrong.</summary>
public static class Scalars
{
    /// <summary>An operator takes three at most, so that all of an expression are far fewer.</summary>
    private const int Kept = 64;

    /// <summary>Whole numbers: an operator gives the tensor's own type.</summary>
    public static readonly Scalar Zero = 0L.ToScalar(), One = 1L.ToScalar();

    public static readonly Scalar MinusInfinity = double.NegativeInfinity.ToScalar();

    [ThreadStatic]
    private static Scalar[]? newest;

    [ThreadStatic]
    private static int count;

    /// <summary>A number for the expression in which it is made: it lives until its thread has made 64 others, or as long as it is referred to.</summary>
    public static Scalar Of(double value) => Keep(value.ToScalar());

    /// <inheritdoc cref="Of(double)"/>
    public static Scalar Of(long value) => Keep(value.ToScalar());

    /// <summary>0, 1, ... up to `end`, without it.</summary>
    /// <returns>[end]</returns>
    public static Tensor Range(long end, ScalarType type, Device? device = null) => arange(Zero, Of(end), One, type, device);

    private static Scalar Keep(Scalar made)
    {
        newest ??= new Scalar[Kept];
        newest[count++ % Kept] = made;
        return made;
    }
}
