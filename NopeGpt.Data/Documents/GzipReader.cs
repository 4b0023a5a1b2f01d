using System.IO.Compression;

namespace NopeGpt.Data.Documents;

/// <summary>Decompresses gzip data of one or several members and notices when it ends early, which <see cref="GZipStream"/> passes over in
/// silence: a member with a mark of ours is put behind the data, and only whole data lets the mark through.</summary>
internal sealed class GzipReader : ReadOnlyStream
{
    private static readonly byte[] _mark = Guid.Parse("5f0d9c1e-4b7a-4c55-9f3e-8a1d27c66b42").ToByteArray();
    private static readonly byte[] _markMember = Pack(_mark);
    private readonly SalvagingStream _gzip;
    private readonly byte[] _buffer = new byte[64 << 10];
    private int _start, _end;
    private bool _ended;
    private InvalidDataException? _damage;

    /// <param name="open">opens the packed data</param>
    public GzipReader(Func<Stream> open) => _gzip = new(() => new GZipStream(new Tailed(open(), _markMember), CompressionMode.Decompress));

    /// <exception cref="InvalidDataException">The data is damaged or ends early. All that could be read was handed over before.</exception>
    public override int Read(Span<byte> buffer)
    {
        // The last bytes are held back until it is known whether they are the mark.
        while (!_ended && _end - _start <= _mark.Length) Fill();
        int ready = _ended ? _end - _start : _end - _start - _mark.Length;
        if (ready == 0 && _damage is not null) throw _damage;
        int count = Math.Min(ready, buffer.Length);
        _buffer.AsSpan(_start, count).CopyTo(buffer);
        _start += count;
        return count;
    }

    protected override void Dispose(bool disposing)
    {
        if (disposing) _gzip.Dispose();
        base.Dispose(disposing);
    }

    private void Fill()
    {
        _buffer.AsSpan(_start, _end - _start).CopyTo(_buffer);
        (_start, _end) = (0, _end - _start);
        try
        {
            int read = _gzip.Read(_buffer, _end, _buffer.Length - _end);
            _end += read;
            if (read > 0) return;
            if (_buffer.AsSpan(0, _end).EndsWith(_mark)) _end -= _mark.Length;
            else _damage = new InvalidDataException("the gzip data does not end as it should");
        }
        catch (InvalidDataException damage)
        {
            _damage = damage;
        }
        _ended = true;
    }

    private static byte[] Pack(byte[] data)
    {
        using MemoryStream packed = new();
        using (GZipStream gzip = new(packed, CompressionLevel.Fastest, leaveOpen: true)) gzip.Write(data);
        return packed.ToArray();
    }

    /// <summary>A stream with some bytes behind it.</summary>
    private sealed class Tailed(Stream stream, byte[] tail) : ReadOnlyStream
    {
        private int _tail;

        public override int Read(Span<byte> buffer)
        {
            int read = stream.Read(buffer);
            if (read > 0) return read;
            int count = Math.Min(buffer.Length, tail.Length - _tail);
            tail.AsSpan(_tail, count).CopyTo(buffer);
            _tail += count;
            return count;
        }

        protected override void Dispose(bool disposing)
        {
            if (disposing) stream.Dispose();
            base.Dispose(disposing);
        }
    }
}
