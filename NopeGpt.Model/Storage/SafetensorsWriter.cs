using System.Buffers.Binary;
using System.Text;
using System.Text.Json;
using NopeGpt.Model.Native;
using TorchSharp;
using static TorchSharp.torch;

namespace NopeGpt.Model.Storage;

/// <summary>Writes safetensors.</summary>
internal static unsafe class SafetensorsWriter
{
    private const int Alignment = 8, ChunkSize = 1 << 30;

    private static readonly UTF8Encoding Strict = new(encoderShouldEmitUTF8Identifier: false, throwOnInvalidBytes: true);

    /// <summary>The tensors as an array.</summary>
    /// <exception cref="ArgumentException">One of them, or of the metadata, cannot be written; the message names it and the reason.</exception>
    public static (string Name, Tensor Tensor)[] Checked(IEnumerable<(string Name, Tensor Tensor)> tensors, IReadOnlyDictionary<string, string>? metadata)
    {
        (string Name, Tensor Tensor)[] all = [.. tensors];
        HashSet<string> names = new(StringComparer.Ordinal);
        foreach ((string name, Tensor tensor) in all)
        {
            if (!IsText(name)) throw new ArgumentException($"A tensor cannot have the name {name}: it has half a surrogate pair.");
            if (name == SafetensorsHeader.MetadataName) throw new ArgumentException($"A tensor cannot have the name {name}: the format keeps it for the metadata.");
            if (!names.Add(name)) throw new ArgumentException($"Tensor {name} is there twice: give each its own name.");
            if (SafetensorsTypes.Find(tensor.dtype) is null) throw new ArgumentException($"Tensor {name} is {tensor.dtype}, which cannot be written: {SafetensorsTypes.Names} can; convert it.");
            if (tensor.is_sparse || tensor.device.type == DeviceType.META) throw new ArgumentException($"Tensor {name} is sparse or without data and cannot be written: make it dense.");
            if (tensor.dim() > SafetensorsHeader.MaxDimensions) throw new ArgumentException($"Tensor {name} has {tensor.dim()} dimensions, the most is {SafetensorsHeader.MaxDimensions}: reshape it.");
            if (tensor.dtype == SafetensorsTypes.Float4Pair && tensor.dim() == 0) throw new ArgumentException($"Tensor {name} is F4 and has no dimension that could be counted in halves: reshape it to one.");
        }
        foreach ((string key, string value) in metadata ?? new Dictionary<string, string>())
            if (!IsText(key) || !IsText(value)) throw new ArgumentException($"The metadata's {key} has half a surrogate pair.");
        return all;
    }

    /// <summary>Bytes of a tensor's data.</summary>
    public static long Bytes(Tensor tensor) => tensor.numel() * SafetensorsTypes.Find(tensor.dtype)!.Size;

    /// <summary>Writes a new file that is on the disk when this returns. Not under its final name: it may be there in part.</summary>
    /// <param name="tensors">From <see cref="Checked"/>.</param>
    public static void Write(string path, IEnumerable<(string Name, Tensor Tensor)> tensors, IReadOnlyDictionary<string, string>? metadata)
    {
        // Wide types first: every tensor then begins at a multiple of its element's size.
        (string Name, Tensor Tensor)[] ordered = [.. tensors.OrderByDescending(t => SafetensorsTypes.Find(t.Tensor.dtype)!.Size)];
        byte[] head = Header(ordered, metadata);
        using DirectFile file = new(path, head.Length + ordered.Sum(t => Bytes(t.Tensor)));
        file.Write(head);
        foreach ((_, Tensor tensor) in ordered) Write(file, tensor);
        file.Finish();
    }

    private static byte[] Header(IEnumerable<(string Name, Tensor Tensor)> tensors, IReadOnlyDictionary<string, string>? metadata)
    {
        using MemoryStream stream = new();
        stream.Write(stackalloc byte[SafetensorsFile.LengthSize]);
        using (Utf8JsonWriter writer = new(stream))
        {
            writer.WriteStartObject();
            if (metadata is { Count: > 0 })
            {
                writer.WriteStartObject(SafetensorsHeader.MetadataName);
                foreach ((string key, string value) in metadata) writer.WriteString(key, value);
                writer.WriteEndObject();
            }
            long offset = 0;
            foreach ((string name, Tensor tensor) in tensors) offset = WriteEntry(writer, name, tensor, offset);
            writer.WriteEndObject();
        }
        while (stream.Length % Alignment != 0) stream.WriteByte((byte)' ');
        long length = stream.Length - SafetensorsFile.LengthSize;
        if (length > SafetensorsHeader.MaxLength) throw new ArgumentException($"The names and metadata take {length} bytes, the most is {SafetensorsHeader.MaxLength}.", nameof(tensors));
        byte[] head = stream.ToArray();
        BinaryPrimitives.WriteInt64LittleEndian(head, length);
        return head;
    }

    private static long WriteEntry(Utf8JsonWriter writer, string name, Tensor tensor, long offset)
    {
        SafetensorsTypes.ElementType type = SafetensorsTypes.Find(tensor.dtype)!;
        long[] shape = tensor.shape;
        if (type.Type == SafetensorsTypes.Float4Pair) shape[^1] *= SafetensorsTypes.PairSize;
        long end = offset + Bytes(tensor);
        writer.WriteStartObject(name);
        writer.WriteString("dtype", type.Name);
        writer.WriteStartArray("shape");
        foreach (long dimension in shape) writer.WriteNumberValue(dimension);
        writer.WriteEndArray();
        writer.WriteStartArray("data_offsets");
        writer.WriteNumberValue(offset);
        writer.WriteNumberValue(end);
        writer.WriteEndArray();
        writer.WriteEndObject();
        return end;
    }

    private static void Write(DirectFile file, Tensor tensor)
    {
        using DisposeScope scope = NewDisposeScope();
        // A conjugated or negated view has a mark in place of other bytes.
        Tensor dense = tensor.detach().cpu().resolve_conj().resolve_neg().contiguous();
        long length = Bytes(dense);
        byte* source = (byte*)Dispatcher.DataPointer(dense);
        for (long done = 0; done < length; done += ChunkSize) file.Write(new ReadOnlySpan<byte>(source + done, (int)Math.Min(ChunkSize, length - done)));
        GC.KeepAlive(dense);
    }

    private static bool IsText(string text)
    {
        try
        {
            return Strict.GetByteCount(text) >= 0;
        }
        catch (EncoderFallbackException)
        {
            return false;
        }
    }
}
