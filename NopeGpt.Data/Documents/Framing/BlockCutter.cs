using System.Collections.Concurrent;
using ZstdSharp;

namespace NopeGpt.Data.Documents.Framing;

/// <summary>A stretch of a file that holds whole records.</summary>
/// <param name="EndOffset">Where the next block begins, in the decompressed file.</param>
/// <param name="EndRows">Rows before the next block.</param>
/// <param name="Problem">Why the file ends here although it should not.</param>
/// <param name="Buffers">Where its bytes come from.</param>
internal sealed record Block(byte[] Bytes, int Length, List<Frame> Frames, long EndOffset, long EndRows, string? Problem, BlockBuffers Buffers)
{
    /// <summary>Gives its bytes to the blocks that follow.</summary>
    public void Release() => Buffers.Return(Bytes);
}

/// <summary>Memory of the blocks of one file: what is given back is used again. Safe for concurrent use.</summary>
/// <param name="usual">The length that nearly all blocks do with; longer ones are not kept.</param>
internal sealed class BlockBuffers(int usual)
{
    private readonly ConcurrentBag<byte[]> _idle = [];

    public int Usual => usual;

    /// <summary>Memory of at least that length, in which anything may stand.</summary>
    public byte[] Rent(int least) => _idle.TryTake(out byte[]? buffer) && buffer.Length >= least ? buffer : GC.AllocateUninitializedArray<byte>(least);

    public void Return(byte[] buffer)
    {
        if (buffer.Length <= usual) _idle.Add(buffer);
    }
}

/// <summary>Cuts a stream into blocks of whole records. Where blocks end depends on the bytes only, not on how they arrive.</summary>
internal sealed class BlockCutter(Stream stream, Framing framing, int blockBytes)
{
    private const int FirstBuffer = 64 << 10, MostPerRead = 1 << 20;
    private readonly BlockBuffers _buffers = new(blockBytes + Math.Clamp(blockBytes, FirstBuffer, MostPerRead));
    private byte[] _buffer = new byte[FirstBuffer];
    private int _cursor, _end;
    private long _offset, _rows;
    private bool _final, _ended, _passed;
    private string? _problem;

    /// <summary>Reads the file's beginning and goes to a place where a block ended before.</summary>
    /// <exception cref="InvalidDataException">The file cannot be one of its format.</exception>
    public void Open(long offset, long rows)
    {
        int preamble;
        while ((preamble = framing.Preamble(_buffer.AsSpan(0, _end), _final)) == Framing.More) Fill();
        if (_problem is not null && _end == 0) throw new InvalidDataException(_problem);
        // What a file lacks at its end was said when that was reached.
        _ended = offset > 0;
        if (offset <= preamble)
        {
            _rows = framing is CsvFraming ? _buffer.AsSpan(0, preamble).Count((byte)'\n') : 0;
            Drop(preamble);
            _offset = preamble;
            return;
        }
        if (stream.CanSeek)
        {
            stream.Seek(offset, SeekOrigin.Begin);
            (_end, _final) = (0, false);
        }
        else
        {
            long left = offset;
            while (left > 0)
            {
                int dropped = (int)Math.Min(left, _end);
                Drop(dropped);
                left -= dropped;
                if (left > 0 && !Fill()) throw new InvalidDataException("the file is shorter than when it was read before; prepare the data set from the beginning");
            }
        }
        (_offset, _rows) = (offset, rows);
    }

    /// <summary>The next block; null behind the last one.</summary>
    public Block? Next()
    {
        List<Frame> frames = [];
        while (_cursor < blockBytes)
        {
            if (_cursor == _end && !Fill()) break;
            ReadOnlySpan<byte> rest = _buffer.AsSpan(_cursor, _end - _cursor);
            int next = framing.Next(rest, _final, out Frame frame);
            if (next == Framing.More && !_final && rest.Length <= framing.MaximumBytes)
            {
                Fill();
                continue;
            }
            if (next < 0 || (frame.Length > framing.MaximumBytes && framing is DocumentFraming)) next = framing.Recover(rest, _final, out frame);
            else if (frame.Length > framing.MaximumBytes) frame = frame with { Length = 0, Kind = FrameKind.TooLong };
            if (frame.Length > 0 || frame.Kind != FrameKind.Whole) frames.Add(frame with { Start = _cursor + frame.Start, Row = _rows + 1 });
            if (next < 0) return PassOver(frames);
            _rows += framing.RowsIn(rest[..next], frame);
            _cursor += next;
        }
        bool last = AtEnd();
        return _cursor == 0 && _problem is null ? null : Emit(frames, last);
    }

    /// <summary>Passes over a record that is too long to keep. The block ends there, because its bytes would have a gap.</summary>
    private Block PassOver(List<Frame> frames)
    {
        long passed = 0;
        // The framing has seen what is here; all but a line's end must lie behind it.
        int next = framing is JsonFraming ? Framing.More : framing.Pass(_buffer.AsSpan(_cursor, _end - _cursor));
        while (true)
        {
            int drop = next < 0 ? _end - _cursor : next;
            _buffer.AsSpan(_cursor + drop, _end - _cursor - drop).CopyTo(_buffer.AsSpan(_cursor));
            _end -= drop;
            passed += drop;
            if (next >= 0 || !Fill()) break;
            next = framing.Pass(_buffer.AsSpan(_cursor, _end - _cursor));
        }
        _rows++;
        // It may be the file's last: a place says nothing of what was said there, so that the end must be told with the last bytes.
        _passed = true;
        Block block = Emit(frames, AtEnd());
        _offset += passed;
        return block with { EndOffset = _offset };
    }

    /// <summary>Whether the file ends here; finds what is wrong with its end, once.</summary>
    private bool AtEnd()
    {
        bool last = _cursor == _end && !Fill();
        _ended &= _cursor == 0 && !_passed;
        if (last) _problem = _ended ? null : _problem ?? framing.EndProblem;
        (_ended, _passed) = (last, false);
        return last;
    }

    private Block Emit(List<Frame> frames, bool last)
    {
        byte[] bytes = _buffer;
        int length = _cursor;
        // Small as long as what was read is.
        _buffer = last ? [] : _buffers.Rent(Math.Max(_end - length, Math.Min(bytes.Length, _buffers.Usual)));
        bytes.AsSpan(length, _end - length).CopyTo(_buffer);
        (_cursor, _end) = (0, _end - length);
        _offset += length;
        string? problem = last ? _problem : null;
        if (last) _problem = null;
        return new(bytes, length, frames, _offset, _rows, problem, _buffers);
    }

    private void Drop(int count)
    {
        _buffer.AsSpan(count, _end - count).CopyTo(_buffer);
        _end -= count;
    }

    /// <summary>Reads more; false at the file's end.</summary>
    private bool Fill()
    {
        if (_final) return false;
        if (_end == _buffer.Length) Array.Resize(ref _buffer, Math.Max(FirstBuffer, (int)Math.Min(Array.MaxLength, _buffer.Length * 2L)));
        try
        {
            int read = stream.Read(_buffer, _end, Math.Min(MostPerRead, _buffer.Length - _end));
            _end += read;
            _final = read == 0;
        }
        catch (Exception damage) when (SalvagingStream.IsDamage(damage))
        {
            _final = true;
            _problem = $"the compressed data is damaged or ends early ({damage.Message.TrimEnd('.')}); what stands before is read; get the file again for the rest";
        }
        return !_final;
    }
}
