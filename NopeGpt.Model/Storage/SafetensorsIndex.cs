using System.Text.Json;

namespace NopeGpt.Model.Storage;

/// <summary>The index of sharded safetensors: {"metadata": {"total_size": bytes}, "weight_map": {tensor: file}}.</summary>
internal static class SafetensorsIndex
{
    private const string MapField = "weight_map";
    private const int MaxDepth = 8, MaxFileLength = 255;

    /// <summary>The file of each tensor, relative to the index's folder. Every one lies in that folder or below it.</summary>
    /// <exception cref="FileNotFoundException">There is no such file.</exception>
    /// <exception cref="InvalidDataException">It is not an index; the message names file, tensor and reason.</exception>
    public static IReadOnlyDictionary<string, string> Read(string path)
    {
        try
        {
            return Parse(ReadBytes(path));
        }
        catch (InvalidDataException e)
        {
            throw new InvalidDataException($"{path} is not a usable index of safetensors files: {e.Message}; download it again, or write the files again.", e);
        }
    }

    /// <summary>Writes a new index that is on the disk when this returns.</summary>
    public static void Write(string path, IEnumerable<(string Name, string File)> tensors, long totalSize)
    {
        using FileStream stream = new(path, FileMode.CreateNew, FileAccess.Write, FileShare.None);
        using (Utf8JsonWriter writer = new(stream, new JsonWriterOptions { Indented = true }))
        {
            writer.WriteStartObject();
            writer.WriteStartObject("metadata");
            writer.WriteNumber("total_size", totalSize);
            writer.WriteEndObject();
            writer.WriteStartObject(MapField);
            foreach ((string name, string file) in tensors.OrderBy(t => t.Name, StringComparer.Ordinal)) writer.WriteString(name, file);
            writer.WriteEndObject();
            writer.WriteEndObject();
        }
        stream.WriteByte((byte)'\n');
        stream.Flush(flushToDisk: true);
    }

    private static byte[] ReadBytes(string path)
    {
        using FileStream stream = new(path, FileMode.Open, FileAccess.Read, FileShare.Read);
        if (stream.Length > SafetensorsHeader.MaxLength) throw new InvalidDataException($"it has {stream.Length} bytes, the most is {SafetensorsHeader.MaxLength}");
        byte[] json = new byte[stream.Length];
        return stream.ReadAtLeast(json, json.Length, throwOnEndOfStream: false) == json.Length ? json : throw new InvalidDataException("it has become shorter while it was read");
    }

    private static Dictionary<string, string> Parse(byte[] json)
    {
        Utf8JsonReader reader = new(json, new JsonReaderOptions { MaxDepth = MaxDepth });
        Dictionary<string, string>? map = null;
        try
        {
            if (!reader.Read() || reader.TokenType != JsonTokenType.StartObject) throw new InvalidDataException("it is not a JSON object");
            while (reader.Read() && reader.TokenType == JsonTokenType.PropertyName)
            {
                string field = reader.GetString()!;
                reader.Read();
                if (field != MapField) reader.Skip();
                else if (map is not null) throw new InvalidDataException($"{MapField} is there twice");
                else map = ReadMap(ref reader);
            }
            reader.Read();
        }
        catch (JsonException e)
        {
            throw new InvalidDataException($"it is not JSON ({SafetensorsHeader.Short(e.Message, SafetensorsHeader.ShownReason).TrimEnd('.')})", e);
        }
        catch (InvalidOperationException e)
        {
            throw new InvalidDataException("it has a string that is not text", e);
        }
        if (map is null) throw new InvalidDataException($"it has no {MapField}");
        return map.Count > 0 ? map : throw new InvalidDataException($"its {MapField} is empty");
    }

    private static Dictionary<string, string> ReadMap(ref Utf8JsonReader reader)
    {
        if (reader.TokenType != JsonTokenType.StartObject) throw new InvalidDataException($"its {MapField} is not an object");
        Dictionary<string, string> map = new(StringComparer.Ordinal);
        Dictionary<string, string> files = new(StringComparer.Ordinal);
        while (reader.Read() && reader.TokenType == JsonTokenType.PropertyName)
        {
            string name = reader.GetString()!, shown = SafetensorsHeader.Short(name);
            reader.Read();
            if (reader.TokenType != JsonTokenType.String) throw new InvalidDataException($"tensor {shown}: its file is not a string");
            string file = reader.GetString()!;
            if (!files.TryGetValue(file, out string? shared)) // one string for each file, not for each tensor
            {
                if (!IsInside(file)) throw new InvalidDataException($"tensor {shown}: its file {SafetensorsHeader.Short(file)} is not the name of a file in the folder of the index");
                files.Add(file, shared = file);
            }
            if (!map.TryAdd(name, shared)) throw new InvalidDataException($"tensor {shown} is there twice");
        }
        return map;
    }

    // By its spelling alone: a link inside the folder may lead anywhere, as those of the Hub's cache do.
    private static bool IsInside(string file) =>
        file.Length <= MaxFileLength && !file.Contains('\0') && !file.Contains('\\') && file.Split('/').All(part => part is not ("" or "." or ".."));
}
