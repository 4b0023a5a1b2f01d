namespace NopeGpt.Data.Documents.Parquet;

/// <summary>Streams the numbers of parquet's hybrid of runs and bit packing (Encodings.md, "RLE / Bit-Packing Hybrid"): levels and dictionary places.</summary>
internal struct LevelReader
{
    private readonly ReadOnlyMemory<byte> _data;
    private readonly int _bits;
    private int _position;
    private int _left;
    private bool _packed;
    private int _value;
    private long _bit;

    public LevelReader(ReadOnlyMemory<byte> data, int bits)
    {
        if (bits is < 0 or > 32) throw new InvalidDataException($"a page holds numbers of {bits} bits");
        _data = data;
        _bits = bits;
    }

    /// <summary>The bits that numbers from 0 to the maximum take.</summary>
    public static int BitsFor(int maximum) => maximum == 0 ? 0 : System.Numerics.BitOperations.Log2((uint)maximum) + 1;

    public int Next()
    {
        if (_bits == 0) return 0;
        while (_left == 0) BeginRun();
        _left--;
        if (!_packed) return _value;
        int value = (int)Bits.Read(_data.Span, _bit, _bits);
        _bit += _bits;
        return value;
    }

    private void BeginRun()
    {
        ReadOnlySpan<byte> data = _data.Span;
        long header = 0;
        for (int shift = 0; ; shift += 7)
        {
            if (_position >= data.Length || shift > 35) throw new InvalidDataException("a page ends before its last value");
            byte b = data[_position++];
            header |= (long)(b & 0x7f) << shift;
            if (b < 0x80) break;
        }
        long count = header >> 1;
        _packed = (header & 1) != 0;
        if (_packed)
        {
            // A last group may be cut short by writers that leave the padding out.
            long available = (long)(data.Length - _position) * 8 / _bits;
            if (available == 0 && count > 0) throw new InvalidDataException("a page ends before its last value");
            _bit = (long)_position * 8;
            _left = (int)Math.Min(count * 8, available);
            _position = (int)Math.Min(data.Length, _position + (count * _bits));
            return;
        }
        int width = (_bits + 7) / 8;
        if (width > data.Length - _position) throw new InvalidDataException("a page ends before its last value");
        _value = (int)Bits.Read(data, (long)_position * 8, width * 8);
        _position += width;
        _left = (int)Math.Min(count, int.MaxValue);
    }
}

internal static class Bits
{
    /// <summary>A number of up to 64 bits that begins at a bit, the lowest first.</summary>
    public static ulong Read(ReadOnlySpan<byte> data, long bit, int count)
    {
        if (count == 0) return 0;
        int first = (int)(bit >> 3), shift = (int)(bit & 7), last = (int)((bit + count - 1) >> 3);
        if (last >= data.Length) throw new InvalidDataException("a page ends before its last value");
        ulong value = 0;
        for (int i = Math.Min(last, first + 7); i >= first; i--) value = (value << 8) | data[i];
        value >>= shift;
        if (last > first + 7) value |= (ulong)data[last] << (64 - shift);
        return count == 64 ? value : value & ((1UL << count) - 1);
    }
}
