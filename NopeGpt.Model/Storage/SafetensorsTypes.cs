using static TorchSharp.torch;

namespace NopeGpt.Model.Storage;

/// <summary>The element types that safetensors and libtorch share.</summary>
internal static class SafetensorsTypes
{
    private static readonly (string Name, ScalarType Type, int Size)[] All =
    [
        ("F64", ScalarType.Float64, 8),
        ("F32", ScalarType.Float32, 4),
        ("F16", ScalarType.Float16, 2),
        ("BF16", ScalarType.BFloat16, 2),
        ("I64", ScalarType.Int64, 8),
        ("I32", ScalarType.Int32, 4),
        ("I16", ScalarType.Int16, 2),
        ("I8", ScalarType.Int8, 1),
        ("U8", ScalarType.Byte, 1),
        ("BOOL", ScalarType.Bool, 1),
    ];

    public static string Names => string.Join(", ", All.Select(t => t.Name));

    /// <summary>The type of a name and its bytes an element, or null.</summary>
    public static (ScalarType Type, int Size)? Find(string name)
    {
        int index = Array.FindIndex(All, t => t.Name == name);
        return index < 0 ? null : (All[index].Type, All[index].Size);
    }

    /// <summary>The name of a type and its bytes an element, or null.</summary>
    public static (string Name, int Size)? Find(ScalarType type)
    {
        int index = Array.FindIndex(All, t => t.Type == type);
        return index < 0 ? null : (All[index].Name, All[index].Size);
    }
}
