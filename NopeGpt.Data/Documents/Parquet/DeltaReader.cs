namespace NopeGpt.Data.Documents.Parquet;

/// <summary>Streams the numbers of DELTA_BINARY_PACKED (Encodings.md): blocks of differences, each with a least difference and miniblocks of their own widths.</summary>
internal struct DeltaReader
{
    private readonly ReadOnlyMemory<byte> _data;
    private readonly int _miniblocks;
    private readonly int _perMiniblock;
    private long _value;
    private long _least;
    private bool _first = true;
    private int _position;
    private int _widths;
    private int _miniblock;
    private int _inMiniblock;
    private int _width;

    public DeltaReader(ReadOnlyMemory<byte> data)
    {
        _data = data;
        long block = Unsigned(), miniblocks = Unsigned();
        Count = Unsigned();
        if (block is <= 0 or > 1 << 24 || miniblocks is <= 0 or > 1 << 16 || block % miniblocks != 0 || block / miniblocks % 8 != 0)
            throw new InvalidDataException("a page's differences are not laid out as they should be");
        _miniblocks = (int)miniblocks;
        _perMiniblock = (int)(block / miniblocks);
        _miniblock = _miniblocks;
        _inMiniblock = _perMiniblock;
        _value = Signed();
    }

    /// <summary>The number of values that the page claims.</summary>
    public long Count { get; }

    /// <summary>The byte behind everything that was read; behind the whole encoding once all values were.</summary>
    public readonly int Position => _position;

    public long Next()
    {
        if (_first)
        {
            _first = false;
            return _value;
        }
        if (_inMiniblock == _perMiniblock) BeginMiniblock();
        ulong difference = Bits.Read(_data.Span, ((long)_position * 8) - ((long)(_perMiniblock - _inMiniblock) * _width), _width);
        _inMiniblock++;
        // Differences wrap around, as the writer's did.
        _value = unchecked(_value + _least + (long)difference);
        return _value;
    }

    private void BeginMiniblock()
    {
        if (_miniblock == _miniblocks)
        {
            _least = Signed();
            _widths = _position;
            if (_miniblocks > _data.Length - _position) throw Early();
            _position += _miniblocks;
            _miniblock = 0;
        }
        _width = _data.Span[_widths + _miniblock++];
        if (_width > 64) throw new InvalidDataException($"a page holds numbers of {_width} bits");
        long bytes = (long)_perMiniblock * _width / 8;
        if (bytes > _data.Length - _position) throw Early();
        _position += (int)bytes;
        _inMiniblock = 0;
    }

    private long Signed()
    {
        ulong raw = (ulong)Unsigned();
        return (long)(raw >> 1) ^ -(long)(raw & 1);
    }

    private long Unsigned()
    {
        ulong result = 0;
        ReadOnlySpan<byte> data = _data.Span;
        for (int shift = 0; shift < 70; shift += 7)
        {
            if (_position >= data.Length) throw Early();
            byte b = data[_position++];
            if (shift < 64) result |= (ulong)(b & 0x7f) << shift;
            if (b < 0x80) return (long)result;
        }
        throw Early();
    }

    private static InvalidDataException Early() => new("a page ends before its last value");
}
