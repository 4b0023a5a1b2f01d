using static TorchSharp.torch;

namespace NopeGpt.Model.Storage;

/// <summary>The element types that safetensors (0.7) and libtorch (2.10) share. TorchSharp's enumeration does not list all of them; their
/// numbers, which are those of libtorch's ScalarType.h, work wherever libtorch has the operator.</summary>
public static class SafetensorsTypes
{
    /// <summary>Types that TorchSharp does not list: 8-bit floats (E exponent bits, M mantissa bits; "Fnuz" without infinities and negative
    /// zero), unsigned integers, a power of two (E8M0), and two 4-bit floats in a byte.</summary>
    public const ScalarType
        Float8E5M2 = (ScalarType)23, Float8E4M3 = (ScalarType)24, Float8E5M2Fnuz = (ScalarType)25, Float8E4M3Fnuz = (ScalarType)26,
        Unsigned16 = (ScalarType)27, Unsigned32 = (ScalarType)28, Unsigned64 = (ScalarType)29, Float8E8M0 = (ScalarType)44, Float4Pair = (ScalarType)45;

    /// <summary>Elements of <see cref="Float4Pair"/> are pairs; a file counts their halves in the last dimension.</summary>
    internal const int PairSize = 2;

    private static readonly ElementType[] All =
    [
        new("F64", ScalarType.Float64, 8), new("F32", ScalarType.Float32, 4), new("F16", ScalarType.Float16, 2), new("BF16", ScalarType.BFloat16, 2),
        new("F8_E4M3", Float8E4M3, 1), new("F8_E5M2", Float8E5M2, 1), new("F8_E4M3FNUZ", Float8E4M3Fnuz, 1), new("F8_E5M2FNUZ", Float8E5M2Fnuz, 1),
        new("F8_E8M0", Float8E8M0, 1), new("F4", Float4Pair, 1), new("C64", ScalarType.ComplexFloat32, 8),
        new("I64", ScalarType.Int64, 8), new("I32", ScalarType.Int32, 4), new("I16", ScalarType.Int16, 2), new("I8", ScalarType.Int8, 1),
        new("U64", Unsigned64, 8), new("U32", Unsigned32, 4), new("U16", Unsigned16, 2), new("U8", ScalarType.Byte, 1), new("BOOL", ScalarType.Bool, 1),
    ];

    internal static string Names { get; } = string.Join(", ", All.Select(t => t.Name));

    internal static IReadOnlyList<ElementType> Known => All;

    /// <summary>The name that safetensors has for a type of libtorch: F32, BF16, …; "unknown" where it has none.</summary>
    public static string NameOf(ScalarType type) => Find(type)?.Name ?? $"unknown ({type})";

    internal static ElementType? Find(ScalarType type) => Array.Find(All, t => t.Type == type);

    /// <param name="Size">Bytes of an element.</param>
    internal sealed record ElementType(string Name, ScalarType Type, int Size);
}
