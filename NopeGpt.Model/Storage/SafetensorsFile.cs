using System.Buffers.Binary;
using System.IO.MemoryMappedFiles;
using System.Text.Json;
using NopeGpt.Model.Native;
using static TorchSharp.torch;

namespace NopeGpt.Model.Storage;

/// <summary>A safetensors file, read through a memory map: opening it costs its header, and each tensor its own bytes.
/// The format: 8 bytes with the header's length (little endian), the header in JSON, the data. Safe for several threads.</summary>
public sealed unsafe class SafetensorsFile : TensorSource
{
    private const int LengthSize = 8, Alignment = 8, ChunkSize = 8 << 20;

    private readonly SafetensorsHeader header;
    private readonly MemoryMappedFile map;
    private readonly MemoryMappedViewAccessor view;

    private SafetensorsFile(string path, SafetensorsHeader header, MemoryMappedFile map)
    {
        (Path, this.header, this.map) = (path, header, map);
        view = map.CreateViewAccessor(0, 0, MemoryMappedFileAccess.Read);
    }

    public override string Path { get; }

    public override IReadOnlyList<string> Names => [.. header.Entries.OrderBy(e => e.Value.Offset).ThenBy(e => e.Value.Length).Select(e => e.Key)];

    public override IReadOnlyDictionary<string, string> Metadata => header.Metadata;

    /// <summary>Opens a file and checks its header whole.</summary>
    /// <exception cref="FileNotFoundException">There is no such file.</exception>
    /// <exception cref="InvalidDataException">The file is not a safetensors file, or damaged; the message names the file, the tensor and the reason.</exception>
    public static new SafetensorsFile Open(string path)
    {
        FileStream stream = new(path, FileMode.Open, FileAccess.Read, FileShare.Read);
        try
        {
            SafetensorsHeader header = ReadHeader(stream);
            return new SafetensorsFile(path, header, MemoryMappedFile.CreateFromFile(stream, null, 0, MemoryMappedFileAccess.Read, HandleInheritability.None, leaveOpen: false));
        }
        catch (InvalidDataException e)
        {
            stream.Dispose();
            throw new InvalidDataException($"{path} is not a usable safetensors file: {e.Message}.", e);
        }
        catch
        {
            stream.Dispose();
            throw;
        }
    }

    protected override void Dispose(bool disposing)
    {
        view.Dispose();
        map.Dispose();
    }

    /// <summary>Writes a file: streamed, under a temporary name, flushed to the disk and renamed, so that it is there whole or not at all.</summary>
    /// <param name="tensors">Names and tensors of any device; each is brought to the CPU while it is written.</param>
    /// <exception cref="ArgumentException">A name is there twice or reserved, or safetensors has no such type.</exception>
    public static void Save(string path, IEnumerable<(string Name, Tensor Tensor)> tensors, IReadOnlyDictionary<string, string>? metadata = null)
    {
        // Wide types first: every tensor then begins at a multiple of its element's size.
        (string Name, Tensor Tensor)[] ordered = [.. tensors.Select(Checked).OrderByDescending(t => SafetensorsTypes.Find(t.Tensor.dtype)!.Value.Size)];
        if (ordered.GroupBy(t => t.Name, StringComparer.Ordinal).FirstOrDefault(g => g.Count() > 1) is { } twice) throw new ArgumentException($"Tensor {twice.Key} is there twice.", nameof(tensors));
        byte[] head = Header(ordered, metadata);
        string aside = $"{path}.{Guid.NewGuid():n}.tmp";
        try
        {
            using (FileStream stream = new(aside, FileMode.CreateNew, FileAccess.Write, FileShare.None, bufferSize: 1 << 16))
            {
                Span<byte> length = stackalloc byte[LengthSize];
                BinaryPrimitives.WriteInt64LittleEndian(length, head.Length);
                stream.Write(length);
                stream.Write(head);
                foreach ((_, Tensor tensor) in ordered) Write(stream, tensor);
                stream.Flush(flushToDisk: true);
            }
            File.Move(aside, path, overwrite: true);
        }
        finally
        {
            File.Delete(aside);
        }
    }

    private static SafetensorsHeader ReadHeader(FileStream stream)
    {
        long size = stream.Length;
        Span<byte> lengthBytes = stackalloc byte[LengthSize];
        if (stream.ReadAtLeast(lengthBytes, LengthSize, throwOnEndOfStream: false) < LengthSize) throw new InvalidDataException($"it has {size} bytes, fewer than the 8 that a file begins with");
        ulong length = BinaryPrimitives.ReadUInt64LittleEndian(lengthBytes);
        if (length > SafetensorsHeader.MaxLength) throw new InvalidDataException($"its header would have {length} bytes, the most is {SafetensorsHeader.MaxLength}");
        if (length > (ulong)(size - LengthSize)) throw new InvalidDataException($"its header would have {length} bytes, the file has {size}");
        byte[] json = new byte[length];
        stream.ReadExactly(json);
        return SafetensorsHeader.Parse(json, LengthSize + (long)length, size);
    }

    protected internal override SafetensorsEntry? Find(string name) => header.Entries.GetValueOrDefault(name);

    protected internal override void Read(string name, SafetensorsEntry entry, nint destination)
    {
        if (entry.Length == 0) return;
        byte* start = null;
        // Holds the map open against a Dispose on another thread; throws after one.
        view.SafeMemoryMappedViewHandle.AcquirePointer(ref start);
        try
        {
            byte* source = start + view.PointerOffset + entry.Offset;
            if (entry.Type == ScalarType.Bool) CheckBooleans(name, source, entry.Length);
            Buffer.MemoryCopy(source, (void*)destination, entry.Length, entry.Length);
        }
        finally
        {
            view.SafeMemoryMappedViewHandle.ReleasePointer();
        }
    }

    private void CheckBooleans(string name, byte* source, long length)
    {
        for (long done = 0; done < length; done += ChunkSize)
        {
            ReadOnlySpan<byte> chunk = new(source + done, (int)Math.Min(ChunkSize, length - done));
            if (chunk.ContainsAnyExceptInRange((byte)0, (byte)1)) throw new InvalidDataException($"{Path}: tensor {name} is BOOL and has a byte other than 0 and 1.");
        }
    }

    private static (string Name, Tensor Tensor) Checked((string Name, Tensor Tensor) item)
    {
        if (item.Name == SafetensorsHeader.MetadataName) throw new ArgumentException($"A tensor cannot have the name {item.Name}.");
        if (SafetensorsTypes.Find(item.Tensor.dtype) is null) throw new ArgumentException($"Tensor {item.Name} is {item.Tensor.dtype}, which cannot be written: {SafetensorsTypes.Names} can.");
        return item;
    }

    private static byte[] Header(IEnumerable<(string Name, Tensor Tensor)> tensors, IReadOnlyDictionary<string, string>? metadata)
    {
        using MemoryStream stream = new();
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
            foreach ((string name, Tensor tensor) in tensors)
            {
                (string type, int size) = SafetensorsTypes.Find(tensor.dtype)!.Value;
                writer.WriteStartObject(name);
                writer.WriteString("dtype", type);
                writer.WriteStartArray("shape");
                foreach (long dimension in tensor.shape) writer.WriteNumberValue(dimension);
                writer.WriteEndArray();
                writer.WriteStartArray("data_offsets");
                writer.WriteNumberValue(offset);
                writer.WriteNumberValue(offset += tensor.numel() * size);
                writer.WriteEndArray();
                writer.WriteEndObject();
            }
            writer.WriteEndObject();
        }
        while (stream.Length % Alignment != 0) stream.WriteByte((byte)' ');
        if (stream.Length > SafetensorsHeader.MaxLength) throw new ArgumentException($"The names and metadata take {stream.Length} bytes, the most is {SafetensorsHeader.MaxLength}.", nameof(tensors));
        return stream.ToArray();
    }

    private static void Write(FileStream stream, Tensor tensor)
    {
        using TorchSharp.DisposeScope scope = NewDisposeScope();
        Tensor dense = tensor.detach().cpu().contiguous();
        long length = dense.numel() * dense.element_size();
        if (length == 0) return;
        byte* source = (byte*)Dispatcher.DataPointer(dense);
        for (long done = 0; done < length; done += ChunkSize)
            stream.Write(new ReadOnlySpan<byte>(source + done, (int)Math.Min(ChunkSize, length - done)));
        GC.KeepAlive(dense);
    }
}
