using System.Buffers;
using System.IO.Compression;
using K4os.Compression.LZ4;
using Snappier;
using ZstdSharp;

namespace NopeGpt.Data.Documents.Parquet;

/// <summary>Decompresses pages into a buffer that is used again for the next one. A size that the file claims is believed only as far as data
/// bears it out, so that a damaged number cannot claim memory.</summary>
internal sealed class PageInflater : IDisposable
{
    private const int Trusted = 16 << 20, TrustedRatio = 64;
    private readonly Decompressor _zstandard = new();
    private byte[] _buffer = [];

    /// <summary>The decompressed page; valid until the next call.</summary>
    /// <exception cref="InvalidDataException">The data is damaged, of another size than claimed, or of a codec that is not supported.</exception>
    public ReadOnlyMemory<byte> Inflate(PageCodec codec, ReadOnlyMemory<byte> compressed, int size)
    {
        if (codec == PageCodec.None) return compressed;
        if (size == 0) return default;
        long capacity = Math.Min(size, Math.Max(Trusted, (long)TrustedRatio * compressed.Length));
        while (true)
        {
            Grow((int)capacity);
            int written = Try(codec, compressed, _buffer.AsMemory(0, (int)capacity));
            if (written == size) return _buffer.AsMemory(0, size);
            if (written >= 0) throw new InvalidDataException($"a page holds {written} bytes instead of {size}");
            if (capacity >= size) throw new InvalidDataException($"a page holds more than the {size} bytes that it claims, or is damaged");
            capacity = Math.Min(size, capacity * 8);
        }
    }

    public void Dispose()
    {
        _zstandard.Dispose();
        if (_buffer.Length > 0) ArrayPool<byte>.Shared.Return(_buffer);
        _buffer = [];
    }

    /// <summary>The number of bytes written, or -1 when they do not fit.</summary>
    private int Try(PageCodec codec, ReadOnlyMemory<byte> from, Memory<byte> to)
    {
        switch (codec)
        {
            case PageCodec.Snappy:
                return Snappy.TryDecompress(from.Span, to.Span, out int snappy) ? snappy : -1;
            case PageCodec.Zstandard:
                return _zstandard.TryUnwrap(from.Span, to.Span, out int zstandard) ? zstandard : -1;
            case PageCodec.Lz4:
                return LZ4Codec.Decode(from.Span, to.Span);
            case PageCodec.Gzip:
                using (GZipStream gzip = new(Stream(from), CompressionMode.Decompress)) return ReadAll(gzip, to.Span);
            case PageCodec.Brotli:
                using (BrotliStream brotli = new(Stream(from), CompressionMode.Decompress)) return ReadAll(brotli, to.Span);
            default:
                throw new InvalidDataException($"the pages are compressed by {codec}, which is not supported; write the file again with snappy or zstd");
        }
    }

    private static MemoryStream Stream(ReadOnlyMemory<byte> data) =>
        System.Runtime.InteropServices.MemoryMarshal.TryGetArray(data, out ArraySegment<byte> array) ? new(array.Array!, array.Offset, array.Count, writable: false) : new(data.ToArray());

    private static int ReadAll(Stream from, Span<byte> to)
    {
        int total = from.ReadAtLeast(to, to.Length, throwOnEndOfStream: false);
        return total == to.Length && from.ReadByte() >= 0 ? -1 : total;
    }

    private void Grow(int size)
    {
        if (_buffer.Length >= size) return;
        if (_buffer.Length > 0) ArrayPool<byte>.Shared.Return(_buffer);
        _buffer = [];
        _buffer = ArrayPool<byte>.Shared.Rent(size);
    }
}
