namespace NopeGpt.Data.Documents;

/// <summary>A stream up to a place in it.</summary>
internal sealed class HeadStream(Stream stream, long end) : ReadOnlyStream
{
    private long _position;

    public override bool CanSeek => stream.CanSeek;

    public override long Length => Math.Min(end, stream.Length);

    public override long Position
    {
        get => _position;
        set => Seek(value, SeekOrigin.Begin);
    }

    public override int Read(Span<byte> buffer)
    {
        if (_position < end)
        {
            int read = stream.Read(buffer[..(int)Math.Min(end - _position, buffer.Length)]);
            _position += read;
            return read;
        }
        // Packed data tells only at its end whether it is whole.
        if (!stream.CanSeek)
            while (stream.Read(buffer) > 0) { }
        return 0;
    }

    public override long Seek(long offset, SeekOrigin origin) => _position = stream.Seek(offset, origin);

    protected override void Dispose(bool disposing)
    {
        if (disposing) stream.Dispose();
        base.Dispose(disposing);
    }
}
