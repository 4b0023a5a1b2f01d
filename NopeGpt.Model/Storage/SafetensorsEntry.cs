using static TorchSharp.torch;

namespace NopeGpt.Model.Storage;

/// <summary>One tensor of a file.</summary>
/// <param name="Type">The type of its elements; <see cref="SafetensorsTypes"/> has those that TorchSharp does not list.</param>
/// <param name="Shape">Its sizes as libtorch counts them; empty for a scalar.</param>
/// <param name="Offset">Bytes from the start of its file to its first element.</param>
/// <param name="Length">Bytes of all its elements, row-major, little endian.</param>
public sealed record SafetensorsEntry(ScalarType Type, IReadOnlyList<long> Shape, long Offset, long Length)
{
    /// <summary>The type's name in safetensors: F32, BF16, F8_E4M3, …</summary>
    public string Dtype => SafetensorsTypes.NameOf(Type);
}
