using System.Buffers.Binary;
using Microsoft.Win32.SafeHandles;
using static TorchSharp.torch;

namespace NopeGpt.Model.Storage;

/// <summary>A safetensors file, read through a memory map: opening it costs its header, and each tensor its own bytes.
/// The format: 8 bytes with the header's length (little endian), the header in JSON, the data. Safe for several threads.</summary>
public sealed unsafe class SafetensorsFile : TensorSource
{
    internal const int LengthSize = 8;
    private const int ChunkSize = 1 << 30;

    private readonly SafetensorsHeader header;
    private readonly MappedFile map;

    private SafetensorsFile(string path, SafetensorsHeader header, MappedFile map) => (Path, this.header, this.map) = (path, header, map);

    public override string Path { get; }

    public override IReadOnlyList<string> Names => header.Names;

    public override IReadOnlyDictionary<string, string> Metadata => header.Metadata;

    /// <summary>Opens a file and checks its header whole.</summary>
    /// <exception cref="FileNotFoundException">There is no such file.</exception>
    /// <exception cref="InvalidDataException">The file is not a safetensors file, or damaged; the message names the file, the tensor, the reason and the cure.</exception>
    public static new SafetensorsFile Open(string path)
    {
        if (Directory.Exists(path)) throw new InvalidDataException($"{path} is a folder and no safetensors file; name a file in it.");
        SafeFileHandle handle = File.OpenHandle(path, FileMode.Open, FileAccess.Read, FileShare.Read, FileOptions.RandomAccess); // the kernel reads nothing ahead on its own
        try
        {
            return new SafetensorsFile(path, ReadHeader(handle), new MappedFile(handle));
        }
        catch (InvalidDataException e)
        {
            handle.Dispose();
            throw new InvalidDataException($"{path} is not a usable safetensors file: {e.Message}; download it again, or write it again.", e);
        }
        catch
        {
            handle.Dispose();
            throw;
        }
    }

    /// <summary>Writes a file: streamed, under a temporary name, flushed to the disk and renamed, so that it is there whole or not at all.</summary>
    /// <param name="tensors">Names and tensors of any device; each is brought to the CPU while it is written.</param>
    /// <exception cref="ArgumentException">A name is there twice or reserved, or safetensors has no such type.</exception>
    /// <exception cref="IOException">The disk is full or unwritable. Nothing is left behind.</exception>
    public static void Save(string path, IEnumerable<(string Name, Tensor Tensor)> tensors, IReadOnlyDictionary<string, string>? metadata = null)
    {
        (string Name, Tensor Tensor)[] all = SafetensorsWriter.Checked(tensors, metadata);
        string full = System.IO.Path.GetFullPath(path), aside = Aside(full);
        try
        {
            SafetensorsWriter.Write(aside, all, metadata);
            File.Move(aside, full, overwrite: true);
            CheckpointFolder.FlushFolder(System.IO.Path.GetDirectoryName(full)!);
        }
        finally
        {
            File.Delete(aside);
        }
    }

    /// <summary>A temporary name beside a file.</summary>
    internal static string Aside(string path) => $"{path}.{Guid.NewGuid():n}.tmp";

    protected internal override SafetensorsEntry? Find(string name) => header.Entries.GetValueOrDefault(name);

    protected internal override void Read(string name, SafetensorsEntry entry, nint destination)
    {
        try
        {
            map.Copy(entry.Offset, entry.Length, destination);
        }
        catch (EndOfStreamException e)
        {
            throw new InvalidDataException($"{Path}: tensor {name} cannot be read: {e.Message}; write it again while nobody reads it.", e);
        }
        if (entry.Type == ScalarType.Bool) CheckBooleans(name, (byte*)destination, entry.Length);
    }

    protected override void Dispose(bool disposing) => map.Dispose();

    private static SafetensorsHeader ReadHeader(SafeFileHandle handle)
    {
        long size = RandomAccess.GetLength(handle);
        if (size < LengthSize) throw new InvalidDataException($"it has {size} bytes, fewer than the 8 that a file begins with");
        Span<byte> lengthBytes = stackalloc byte[LengthSize];
        Fill(handle, lengthBytes, 0);
        ulong length = BinaryPrimitives.ReadUInt64LittleEndian(lengthBytes);
        if (length > SafetensorsHeader.MaxLength) throw new InvalidDataException($"its header would have {length} bytes, the most is {SafetensorsHeader.MaxLength}");
        if (length > (ulong)(size - LengthSize)) throw new InvalidDataException($"its header would have {length} bytes, the file has {size}");
        byte[] json = new byte[length];
        Fill(handle, json, LengthSize);
        return SafetensorsHeader.Parse(json, LengthSize + (long)length, size);
    }

    private static void Fill(SafeFileHandle handle, Span<byte> bytes, long offset)
    {
        for (int done = 0; done < bytes.Length;)
        {
            int read = RandomAccess.Read(handle, bytes[done..], offset + done);
            if (read == 0) throw new InvalidDataException("it has become shorter while it was opened");
            done += read;
        }
    }

    private void CheckBooleans(string name, byte* bytes, long length)
    {
        for (long done = 0; done < length; done += ChunkSize)
        {
            ReadOnlySpan<byte> chunk = new(bytes + done, (int)Math.Min(ChunkSize, length - done));
            if (chunk.ContainsAnyExceptInRange((byte)0, (byte)1)) throw new InvalidDataException($"{Path}: tensor {name} is BOOL and has a byte other than 0 and 1, so it is damaged; download it again, or write it again.");
        }
    }
}
