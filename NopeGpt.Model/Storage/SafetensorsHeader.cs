using System.Text;
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

    public const int MaxDimensions = 64;

    internal const int ShownReason = 300;

    private const int MaxDepth = 8, Offsets = 2, ShownLength = 100;

    private readonly Dictionary<string, SafetensorsEntry> entries = new(StringComparer.Ordinal);
    private readonly Dictionary<string, string> metadata = new(StringComparer.Ordinal);
    private readonly long dataStart, fileLength;
    private string? current; // the name that is being read

    private SafetensorsHeader(long dataStart, long fileLength) => (this.dataStart, this.fileLength) = (dataStart, fileLength);

    /// <summary>The tensors by name.</summary>
    public IReadOnlyDictionary<string, SafetensorsEntry> Entries => entries;

    /// <summary>The names in the order of the data.</summary>
    public IReadOnlyList<string> Names { get; private set; } = [];

    public IReadOnlyDictionary<string, string> Metadata => metadata;

    private string Place => current switch { null => "", MetadataName => MetadataName + ": ", _ => $"tensor {Short(current)}: " };

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
            throw new InvalidDataException($"{header.Place}the header is not JSON ({Short(e.Message, ShownReason).TrimEnd('.')})", e);
        }
        catch (InvalidOperationException e)
        {
            throw new InvalidDataException($"{header.Place}the header has a string that is not text", e);
        }
        header.current = null;
        header.CheckFilled();
        return header;
    }

    /// <summary>A text of a file for a message: not long, in one line, and whole characters.</summary>
    internal static string Short(string text, int most = ShownLength)
    {
        int length = text.Length <= most ? text.Length : char.IsHighSurrogate(text[most - 1]) ? most - 1 : most;
        StringBuilder shown = new(length);
        foreach (char c in text.AsSpan(0, length)) shown.Append(char.IsControl(c) ? '\uFFFD' : c);
        return length < text.Length ? shown.Append('…').ToString() : shown.ToString();
    }

    private void ReadAll(ref Utf8JsonReader reader)
    {
        reader.Read();
        bool hasMetadata = false;
        while (reader.Read() && reader.TokenType == JsonTokenType.PropertyName)
        {
            string name = reader.GetString()!;
            current = name;
            reader.Read();
            if (name == MetadataName)
            {
                if (hasMetadata) throw new InvalidDataException($"{MetadataName} is there twice");
                hasMetadata = true;
                ReadMetadata(ref reader);
            }
            else if (!entries.TryAdd(name, ReadEntry(ref reader))) throw new InvalidDataException($"tensor {Short(name)} is there twice");
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

    private SafetensorsEntry ReadEntry(ref Utf8JsonReader reader)
    {
        if (reader.TokenType != JsonTokenType.StartObject) throw Wrong("its entry is not an object");
        SafetensorsTypes.ElementType? type = null;
        long[]? shape = null, offsets = null;
        while (reader.Read() && reader.TokenType == JsonTokenType.PropertyName)
        {
            if (reader.ValueTextEquals("dtype"u8))
            {
                if (type is not null) throw Wrong("its dtype is there twice");
                type = ReadType(ref reader);
            }
            else if (reader.ValueTextEquals("shape"u8))
            {
                if (shape is not null) throw Wrong("its shape is there twice");
                shape = ReadNumbers(ref reader, "shape", MaxDimensions);
            }
            else if (reader.ValueTextEquals("data_offsets"u8))
            {
                if (offsets is not null) throw Wrong("its data_offsets is there twice");
                offsets = ReadNumbers(ref reader, "data_offsets", Offsets);
            }
            else throw Wrong($"its {Short(reader.GetString()!)} is no field of the format");
        }
        if (type is null || shape is null || offsets is not [long begin, long end]) throw Wrong("it needs a dtype, a shape and two data_offsets");
        if (begin > end || end > fileLength - dataStart) throw Wrong($"its bytes {begin} to {end} lie outside the {fileLength - dataStart} bytes of data");
        string written = string.Join(", ", shape);
        if (type.Type == SafetensorsTypes.Float4Pair) HalveLast(shape);
        if (Bytes(shape, type.Size) is not { } needed || needed != end - begin) throw Wrong($"its shape [{written}] of {type.Name} does not take the {end - begin} bytes that it has");
        return new SafetensorsEntry(type.Type, shape, dataStart + begin, end - begin);
    }

    private SafetensorsTypes.ElementType ReadType(ref Utf8JsonReader reader)
    {
        reader.Read();
        if (reader.TokenType != JsonTokenType.String) throw Wrong("its dtype is no string");
        foreach (SafetensorsTypes.ElementType type in SafetensorsTypes.Known)
            if (reader.ValueTextEquals(type.Name)) return type;
        throw Wrong($"its dtype is {Short(reader.GetString()!)}, readable are {SafetensorsTypes.Names}");
    }

    private long[] ReadNumbers(ref Utf8JsonReader reader, string field, int most)
    {
        reader.Read();
        if (reader.TokenType != JsonTokenType.StartArray) throw Wrong($"its {field} is not a list");
        Span<long> numbers = stackalloc long[MaxDimensions];
        int count = 0;
        while (reader.Read() && reader.TokenType != JsonTokenType.EndArray)
        {
            // Minus zero has the value of a whole number and not the spelling of one.
            if (reader.TokenType != JsonTokenType.Number || !reader.TryGetInt64(out long number) || reader.ValueSpan[0] == (byte)'-')
                throw Wrong($"its {field} has something other than whole numbers that are not negative and fit into 64 bits");
            if (count == most) throw Wrong($"its {field} has more than {most} numbers");
            numbers[count++] = number;
        }
        return numbers[..count].ToArray();
    }

    private void HalveLast(long[] shape)
    {
        if (shape.Length == 0 || shape[^1] % SafetensorsTypes.PairSize != 0) throw Wrong("it is F4, of which libtorch keeps pairs, and its last size is not even");
        shape[^1] /= SafetensorsTypes.PairSize;
    }

    // Null where the strides would not fit into 64 bits: libtorch computes them also where another size is 0.
    private static long? Bytes(long[] shape, int size)
    {
        long total = size;
        foreach (long dimension in shape)
        {
            if (dimension > 0 && total > long.MaxValue / dimension) return null;
            total *= Math.Max(dimension, 1);
        }
        return Array.IndexOf(shape, 0) >= 0 ? 0 : total;
    }

    private void CheckFilled()
    {
        KeyValuePair<string, SafetensorsEntry>[] ordered = [.. entries];
        Array.Sort(ordered, (a, b) => a.Value.Offset != b.Value.Offset ? a.Value.Offset.CompareTo(b.Value.Offset)
            : a.Value.Length != b.Value.Length ? a.Value.Length.CompareTo(b.Value.Length) : string.CompareOrdinal(a.Key, b.Key));
        long filled = dataStart;
        foreach ((string name, SafetensorsEntry entry) in ordered)
        {
            current = name;
            if (entry.Offset != filled) throw Wrong(entry.Offset < filled ? "it overlaps another tensor" : $"there is a hole of {entry.Offset - filled} bytes before it");
            filled += entry.Length;
        }
        if (filled != fileLength) throw new InvalidDataException($"{fileLength - filled} bytes at the end belong to no tensor");
        Names = Array.ConvertAll(ordered, e => e.Key);
    }

    private InvalidDataException Wrong(string reason) => new(Place + reason);
}
