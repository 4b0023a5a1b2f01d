using System.Text.Json;
using static TorchSharp.torch;

namespace NopeGpt.Model.Storage;

/// <summary>The header of a safetensors file: a JSON object from names to {dtype, shape, data_offsets}, and `__metadata__` from strings to
/// strings. Nothing in it is believed: a header that is accepted describes tensors that lie one behind the other and fill the file.</summary>
internal sealed class SafetensorsHeader
{
    public const string MetadataName = "__metadata__";

    /// <summary>The limit of the format's own implementation.</summary>
    public const long MaxLength = 100_000_000;

    private const int MaxDepth = 8, MaxDimensions = 64;

    private readonly Dictionary<string, SafetensorsEntry> entries = new(StringComparer.Ordinal);
    private readonly Dictionary<string, string> metadata = new(StringComparer.Ordinal);
    private readonly long dataStart, fileLength;

    private SafetensorsHeader(long dataStart, long fileLength) => (this.dataStart, this.fileLength) = (dataStart, fileLength);

    /// <summary>The tensors by name.</summary>
    public IReadOnlyDictionary<string, SafetensorsEntry> Entries => entries;

    public IReadOnlyDictionary<string, string> Metadata => metadata;

    /// <summary>Reads a header.</summary>
    /// <param name="json">Its bytes.</param>
    /// <param name="dataStart">Where the data begins in the file, which is where the header ends.</param>
    /// <param name="fileLength">Bytes of the whole file.</param>
    /// <exception cref="InvalidDataException">Something is wrong; the message names the tensor and says what.</exception>
    public static SafetensorsHeader Parse(ReadOnlySpan<byte> json, long dataStart, long fileLength)
    {
        SafetensorsHeader header = new(dataStart, fileLength);
        if (json.IsEmpty || json[0] != (byte)'{') throw new InvalidDataException("the header does not begin with {");
        Utf8JsonReader reader = new(json, new JsonReaderOptions { MaxDepth = MaxDepth });
        try
        {
            header.ReadAll(ref reader);
            if (reader.Read()) throw new InvalidDataException("the header has something after its end");
        }
        catch (JsonException e)
        {
            throw new InvalidDataException($"the header is not JSON ({e.Message.TrimEnd('.')})", e);
        }
        catch (InvalidOperationException e)
        {
            throw new InvalidDataException("the header has a string that is not text", e);
        }
        header.CheckFilled();
        return header;
    }

    private void ReadAll(ref Utf8JsonReader reader)
    {
        reader.Read();
        bool hasMetadata = false;
        while (reader.Read() && reader.TokenType == JsonTokenType.PropertyName)
        {
            string name = reader.GetString()!;
            reader.Read();
            if (name == MetadataName)
            {
                if (hasMetadata) throw new InvalidDataException($"{MetadataName} is there twice");
                hasMetadata = true;
                ReadMetadata(ref reader);
            }
            else
            {
                SafetensorsEntry entry = ReadEntry(ref reader, Short(name));
                if (!entries.TryAdd(name, entry)) throw new InvalidDataException($"tensor {Short(name)} is there twice");
            }
        }
    }

    private void ReadMetadata(ref Utf8JsonReader reader)
    {
        if (reader.TokenType != JsonTokenType.StartObject) throw new InvalidDataException($"{MetadataName} is not an object");
        while (reader.Read() && reader.TokenType == JsonTokenType.PropertyName)
        {
            string name = reader.GetString()!;
            reader.Read();
            if (reader.TokenType != JsonTokenType.String) throw new InvalidDataException($"{MetadataName} has {Short(name)}, which is not a string");
            if (!metadata.TryAdd(name, reader.GetString()!)) throw new InvalidDataException($"{MetadataName} has {Short(name)} twice");
        }
    }

    private SafetensorsEntry ReadEntry(ref Utf8JsonReader reader, string tensor)
    {
        if (reader.TokenType != JsonTokenType.StartObject) throw Wrong(tensor, "its entry is not an object");
        string? dtype = null;
        List<long>? shape = null, offsets = null;
        while (reader.Read() && reader.TokenType == JsonTokenType.PropertyName)
        {
            string field = reader.GetString()!;
            reader.Read();
            switch (field)
            {
                case "dtype" when dtype is null && reader.TokenType == JsonTokenType.String: dtype = reader.GetString(); break;
                case "shape" when shape is null: shape = ReadNumbers(ref reader, tensor, field, MaxDimensions); break;
                case "data_offsets" when offsets is null: offsets = ReadNumbers(ref reader, tensor, field, 2); break;
                default: throw Wrong(tensor, $"its {Short(field)} is there twice, is no string, or is no field of the format");
            }
        }
        if (dtype is null || shape is null || offsets is not [long begin, long end]) throw Wrong(tensor, "it needs a dtype, a shape and two data_offsets");
        (ScalarType type, int size) = SafetensorsTypes.Find(dtype) ?? throw Wrong(tensor, $"its dtype is {Short(dtype)}, readable are {SafetensorsTypes.Names}");
        if (begin > end || end > fileLength - dataStart) throw Wrong(tensor, $"its bytes {begin} to {end} lie outside the {fileLength - dataStart} bytes of data");
        if (Bytes(shape, size) is not { } needed || needed != end - begin) throw Wrong(tensor, $"its shape [{string.Join(", ", shape)}] of {dtype} does not take the {end - begin} bytes that it has");
        return new SafetensorsEntry(type, shape, dataStart + begin, end - begin);
    }

    private static List<long> ReadNumbers(ref Utf8JsonReader reader, string tensor, string field, int most)
    {
        if (reader.TokenType != JsonTokenType.StartArray) throw Wrong(tensor, $"its {field} is not a list");
        List<long> numbers = [];
        while (reader.Read() && reader.TokenType != JsonTokenType.EndArray)
        {
            if (reader.TokenType != JsonTokenType.Number || !reader.TryGetInt64(out long number) || number < 0) throw Wrong(tensor, $"its {field} has something other than whole numbers that are not negative");
            if (numbers.Count == most) throw Wrong(tensor, $"its {field} has more than {most} numbers");
            numbers.Add(number);
        }
        return numbers;
    }

    // Null where the strides would not fit into 64 bits: libtorch computes them also where another size is 0.
    private static long? Bytes(List<long> shape, int size)
    {
        long total = size;
        foreach (long dimension in shape)
        {
            if (dimension > 0 && total > long.MaxValue / dimension) return null;
            total *= Math.Max(dimension, 1);
        }
        return shape.Contains(0) ? 0 : total;
    }

    private void CheckFilled()
    {
        long filled = dataStart;
        foreach ((string name, SafetensorsEntry entry) in entries.OrderBy(e => e.Value.Offset).ThenBy(e => e.Value.Length))
        {
            if (entry.Offset != filled) throw Wrong(Short(name), entry.Offset < filled ? "it overlaps another tensor" : $"there is a hole of {entry.Offset - filled} bytes before it");
            filled += entry.Length;
        }
        if (filled != fileLength) throw new InvalidDataException($"{fileLength - filled} bytes at the end belong to no tensor");
    }

    private static InvalidDataException Wrong(string tensor, string reason) => new($"tensor {tensor}: {reason}");

    internal static string Short(string text) => text.Length <= 100 ? text : text[..100] + "…";
}
