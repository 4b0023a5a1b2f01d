using ZstdSharp;

namespace NopeGpt.Data.Documents;

/// <summary>Reads through a decompressor to the last byte before the damage. Decompressors throw away what they made of a piece when its end is damaged;
/// so the data is opened again then, and read byte by byte from where it was.</summary>
/// <param name="open">opens the decompressor at the data's beginning</param>
internal sealed class SalvagingStream(Func<Stream> open) : ReadOnlyStream
{
    private Stream _stream = open();
    private long _passed;
    private bool _bytewise;
    private Exception? _damage;

    /// <summary>What a decompressor throws for damaged data.</summary>
    public static bool IsDamage(Exception error) => error is InvalidDataException or EndOfStreamException or ZstdException;

    public override int Read(Span<byte> buffer)
    {
        if (_damage is not null) throw _damage;
        if (_bytewise) return ReadBytes(buffer);
        try
        {
            int read = _stream.Read(buffer);
            _passed += read;
            return read;
        }
        catch (Exception damage) when (IsDamage(damage))
        {
            _stream.Dispose();
            _stream = open();
            _bytewise = true;
            Span<byte> again = new byte[1 << 16];
            while (_passed > 0 && _stream.Read(again[..(int)Math.Min(_passed, again.Length)]) is > 0 and int read) _passed -= read;
            return ReadBytes(buffer);
        }
    }

    protected override void Dispose(bool disposing)
    {
        if (disposing) _stream.Dispose();
        base.Dispose(disposing);
    }

    private int ReadBytes(Span<byte> buffer)
    {
        int count = 0;
        try
        {
            for (; count < buffer.Length; count++)
            {
                buffer[count] = 0;
                if (_stream.Read(buffer.Slice(count, 1)) == 0) break;
            }
        }
        catch (Exception damage) when (IsDamage(damage))
        {
            // A wrong checksum shows in the step that gives the last byte, which stands in its place by then.
            if (buffer[count] != 0) count++;
            if (count == 0) throw;
            _damage = damage;
        }
        return count;
    }
}
