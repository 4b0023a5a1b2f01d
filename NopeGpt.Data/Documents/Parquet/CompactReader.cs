using System.Text;

namespace NopeGpt.Data.Documents.Parquet;

/// <summary>The value types of Thrift's compact protocol.</summary>
internal enum CompactType
{
    Stop = 0,
    True = 1,
    False = 2,
    Byte = 3,
    Int16 = 4,
    Int32 = 5,
    Int64 = 6,
    Double = 7,
    Binary = 8,
    List = 9,
    Set = 10,
    Map = 11,
    Struct = 12,
    Uuid = 13,
}

/// <summary>Reads Thrift's compact protocol, in which parquet keeps its footer and page headers
/// (github.com/apache/thrift, doc/specs/thrift-compact-protocol.md). Every length is checked against the bytes that are left, so that
/// damaged input gives an <see cref="InvalidDataException"/> and never a large allocation or an endless loop.</summary>
internal ref struct CompactReader(ReadOnlySpan<byte> data)
{
    private const int MaximumDepth = 64;
    private readonly ReadOnlySpan<byte> _data = data;
    private int _lastField;

    public int Position { get; private set; }

    /// <summary>True when the data ended inside a value: with more of it, reading may succeed.</summary>
    public bool EndedEarly { get; private set; }

    /// <summary>Begins a struct; give the result to <see cref="EndStruct"/>.</summary>
    public int BeginStruct()
    {
        int outer = _lastField;
        _lastField = 0;
        return outer;
    }

    public void EndStruct(int outer) => _lastField = outer;

    /// <summary>The next field of the current struct; false at its end.</summary>
    public bool NextField(out int id, out CompactType type)
    {
        byte header = ReadByte();
        type = (CompactType)(header & 0x0f);
        if (type == CompactType.Stop)
        {
            id = 0;
            return false;
        }
        int delta = header >> 4;
        id = delta == 0 ? (short)ReadInt64() : _lastField + delta;
        _lastField = id;
        return true;
    }

    public byte ReadByte()
    {
        if (Position >= _data.Length) throw End();
        return _data[Position++];
    }

    public int ReadInt32()
    {
        long value = ReadInt64();
        return value == (int)value ? (int)value : throw new InvalidDataException($"a number of the metadata is out of range ({value})");
    }

    public long ReadInt64()
    {
        ulong raw = ReadVarint();
        return (long)(raw >> 1) ^ -(long)(raw & 1);
    }

    public string ReadText() => Encoding.UTF8.GetString(ReadBinary());

    public ReadOnlySpan<byte> ReadBinary()
    {
        int length = ReadLength(1);
        ReadOnlySpan<byte> bytes = _data.Slice(Position, length);
        Position += length;
        return bytes;
    }

    /// <summary>The number of elements in a list. Each takes at least one byte, so there cannot be more than bytes left.</summary>
    public int ReadListHeader(out CompactType element)
    {
        byte header = ReadByte();
        element = (CompactType)(header & 0x0f);
        int count = header >> 4;
        if (count < 15) return count;
        return ReadLength(1);
    }

    public void Skip(CompactType type) => Skip(type, inList: false, depth: 0);

    private void Skip(CompactType type, bool inList, int depth)
    {
        if (depth > MaximumDepth) throw new InvalidDataException("the metadata is nested too deeply");
        switch (type)
        {
            case CompactType.True or CompactType.False:
                // A field's truth value is its type; a list's elements are bytes.
                if (inList) ReadByte();
                break;
            case CompactType.Byte:
                ReadByte();
                break;
            case CompactType.Int16 or CompactType.Int32 or CompactType.Int64:
                ReadVarint();
                break;
            case CompactType.Double:
                Advance(8);
                break;
            case CompactType.Uuid:
                Advance(16);
                break;
            case CompactType.Binary:
                ReadBinary();
                break;
            case CompactType.List or CompactType.Set:
                for (int left = ReadListHeader(out CompactType element); left > 0; left--) Skip(element, inList: true, depth + 1);
                break;
            case CompactType.Map:
                SkipMap(depth);
                break;
            case CompactType.Struct:
                int outer = BeginStruct();
                while (NextField(out _, out CompactType field)) Skip(field, inList: false, depth + 1);
                EndStruct(outer);
                break;
            default:
                throw new InvalidDataException($"the metadata holds an unknown type ({(int)type})");
        }
    }

    private void SkipMap(int depth)
    {
        int pairs = ReadLength(1);
        if (pairs == 0) return;
        byte types = ReadByte();
        for (; pairs > 0; pairs--)
        {
            Skip((CompactType)(types >> 4), inList: true, depth + 1);
            Skip((CompactType)(types & 0x0f), inList: true, depth + 1);
        }
    }

    private int ReadLength(int bytesEach)
    {
        ulong length = ReadVarint();
        if (length > (ulong)((_data.Length - Position) / bytesEach)) throw End();
        return (int)length;
    }

    private ulong ReadVarint()
    {
        ulong result = 0;
        for (int shift = 0; shift < 70; shift += 7)
        {
            byte b = ReadByte();
            if (shift < 64) result |= (ulong)(b & 0x7f) << shift;
            if (b < 0x80) return result;
        }
        throw new InvalidDataException("a number of the metadata is longer than ten bytes");
    }

    private void Advance(int bytes)
    {
        if (bytes > _data.Length - Position) throw End();
        Position += bytes;
    }

    private InvalidDataException End()
    {
        EndedEarly = true;
        return new InvalidDataException("the metadata ends early");
    }
}
