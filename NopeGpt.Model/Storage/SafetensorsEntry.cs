using static TorchSharp.torch;

namespace NopeGpt.Model.Storage;

/// <summary>One tensor of a safetensors file.</summary>
/// <param name="Type">The type of its elements.</param>
/// <param name="Shape">Its sizes; empty for a scalar.</param>
/// <param name="Offset">Bytes from the start of the file to its first element.</param>
/// <param name="Length">Bytes of all its elements, row-major, little endian.</param>
public sealed record SafetensorsEntry(ScalarType Type, IReadOnlyList<long> Shape, long Offset, long Length);
