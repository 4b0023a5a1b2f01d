using System.Buffers.Binary;
using System.Text;
using System.Text.Unicode;

namespace NopeGpt.Data.Documents.Parquet;

internal enum ValueEncoding
{
    Plain = 0,
    PlainDictionary = 2,
    RunLength = 3,
    BitPacked = 4,
    DeltaBinaryPacked = 5,
    DeltaLengthByteArray = 6,
    DeltaByteArray = 7,
    RunLengthDictionary = 8,
    ByteStreamSplit = 9,
}

/// <summary>Streams the values of one page; nulls are not among them.</summary>
internal abstract class PageValues
{
    /// <summary>The next value.</summary>
    /// <exception cref="InvalidDataException">The page ends before it.</exception>
    public abstract FieldValue Next();

    /// <param name="dictionary">The column's values when they are stored once; null when there is no dictionary page.</param>
    public static PageValues Open(ValueEncoding encoding, SchemaNode column, ReadOnlyMemory<byte> data, FieldValue[]? dictionary, Utf8Text text, int count) => (encoding, column.Type) switch
    {
        (ValueEncoding.Plain, _) => new PlainValues(column, data, text),
        (ValueEncoding.PlainDictionary or ValueEncoding.RunLengthDictionary, _) => new DictionaryValues(data, dictionary),
        (ValueEncoding.RunLength, PhysicalType.Boolean) => new RunLengthTruths(data),
        (ValueEncoding.DeltaBinaryPacked, PhysicalType.Int32 or PhysicalType.Int64) => new DeltaNumbers(column, data),
        (ValueEncoding.DeltaLengthByteArray, PhysicalType.ByteArray) => new DeltaLengthTexts(data, text, count),
        (ValueEncoding.DeltaByteArray, PhysicalType.ByteArray) => new DeltaTexts(data, text, count),
        (ValueEncoding.ByteStreamSplit, PhysicalType.Int32 or PhysicalType.Int64 or PhysicalType.Float or PhysicalType.Double) => new SplitNumbers(column, data),
        _ => throw new InvalidDataException($"the values of column {column.Name} are encoded as {encoding}, which is not supported; write the file again with default settings"),
    };

    private protected static InvalidDataException Early() => new("a page ends before its last value");

    /// <summary>A number of the column's type from its bytes.</summary>
    private protected static FieldValue Number(SchemaNode column, ReadOnlySpan<byte> bytes) => column.Type switch
    {
        PhysicalType.Int32 when column.IsUnsigned => FieldValue.Of((long)BinaryPrimitives.ReadUInt32LittleEndian(bytes)),
        PhysicalType.Int32 => FieldValue.Of((long)BinaryPrimitives.ReadInt32LittleEndian(bytes)),
        PhysicalType.Int64 => FieldValue.Of(BinaryPrimitives.ReadInt64LittleEndian(bytes)),
        PhysicalType.Float => FieldValue.Of((double)BinaryPrimitives.ReadSingleLittleEndian(bytes)),
        _ => FieldValue.Of(BinaryPrimitives.ReadDoubleLittleEndian(bytes)),
    };

    private protected static int Width(PhysicalType? type) => type is PhysicalType.Int32 or PhysicalType.Float ? 4 : 8;
}

/// <summary>Texts from bytes; notes whether any were not UTF-8 and had to be replaced.</summary>
/// <param name="keep">As UTF-8, for who needs no strings.</param>
internal sealed class Utf8Text(bool keep)
{
    public bool Repaired { get; set; }

    public FieldValue Decode(ReadOnlySpan<byte> bytes)
    {
        bool valid = Utf8.IsValid(bytes);
        if (!valid) Repaired = true;
        return keep && valid ? FieldValue.OfUtf8(bytes.ToArray()) : FieldValue.Of(Encoding.UTF8.GetString(bytes));
    }
}

internal sealed class PlainValues(SchemaNode column, ReadOnlyMemory<byte> data, Utf8Text text) : PageValues
{
    private int _position;
    private int _bit;

    public bool AtEnd => column.Type == PhysicalType.Boolean ? _bit >= data.Length * 8 : _position >= data.Length;

    public override FieldValue Next()
    {
        switch (column.Type)
        {
            case PhysicalType.Boolean:
                return FieldValue.Of(Bits.Read(data.Span, _bit++, 1) != 0);
            case PhysicalType.ByteArray:
                int length = BinaryPrimitives.ReadInt32LittleEndian(Take(4));
                return text.Decode(Take(length));
            case PhysicalType.FixedLengthByteArray:
                Take(column.TypeLength);
                return default;
            case PhysicalType.Int96:
                Take(12);
                return default;
            default:
                return Number(column, Take(Width(column.Type)));
        }
    }

    private ReadOnlySpan<byte> Take(int length)
    {
        if (length < 0 || length > data.Length - _position) throw Early();
        _position += length;
        return data.Span.Slice(_position - length, length);
    }
}

internal sealed class DictionaryValues : PageValues
{
    private readonly FieldValue[] _dictionary;
    private LevelReader _places;

    public DictionaryValues(ReadOnlyMemory<byte> data, FieldValue[]? dictionary)
    {
        _dictionary = dictionary ?? throw new InvalidDataException("a page refers to a dictionary that is not there");
        // A page of nulls only may leave even the width out.
        _places = data.Length == 0 ? default : new(data[1..], data.Span[0]);
    }

    public override FieldValue Next()
    {
        int place = _places.Next();
        return (uint)place < (uint)_dictionary.Length ? _dictionary[place] : throw new InvalidDataException($"a page refers to value {place} of a dictionary of {_dictionary.Length}");
    }
}

internal sealed class RunLengthTruths : PageValues
{
    private LevelReader _values;

    public RunLengthTruths(ReadOnlyMemory<byte> data)
    {
        if (data.Length < 4) throw Early();
        _values = new(data[4..], 1);
    }

    public override FieldValue Next() => FieldValue.Of(_values.Next() != 0);
}

internal sealed class DeltaNumbers(SchemaNode column, ReadOnlyMemory<byte> data) : PageValues
{
    private DeltaReader _values = new(data);

    public override FieldValue Next()
    {
        long value = _values.Next();
        return FieldValue.Of(column.Type == PhysicalType.Int64 ? value : column.IsUnsigned ? (uint)value : (int)value);
    }
}

/// <summary>The lengths of all texts, then their bytes.</summary>
internal sealed class DeltaLengthTexts : PageValues
{
    private readonly ReadOnlyMemory<byte> _data;
    private readonly Utf8Text _text;
    private DeltaReader _lengths;
    private int _position;

    public DeltaLengthTexts(ReadOnlyMemory<byte> data, Utf8Text text, int count)
    {
        (_data, _text) = (data, text);
        _position = EndOf(data, count);
        _lengths = new(data);
    }

    public override FieldValue Next()
    {
        long length = _lengths.Next();
        if (length < 0 || length > _data.Length - _position) throw Early();
        _position += (int)length;
        return _text.Decode(_data.Span.Slice(_position - (int)length, (int)length));
    }

    /// <summary>Where the numbers that the data begins with end.</summary>
    internal static int EndOf(ReadOnlyMemory<byte> data, int count)
    {
        DeltaReader numbers = new(data);
        if (numbers.Count > count || numbers.Count < 0) throw new InvalidDataException($"a page of {count} values claims to hold {numbers.Count}");
        for (long left = numbers.Count; left > 0; left--) numbers.Next();
        return numbers.Position;
    }
}

/// <summary>Each text as the beginning that it shares with the one before, and the rest.</summary>
internal sealed class DeltaTexts : PageValues
{
    private readonly ReadOnlyMemory<byte> _suffixes;
    private readonly Utf8Text _text;
    private DeltaReader _prefixLengths;
    private DeltaReader _suffixLengths;
    private int _position;
    private byte[] _last = [];
    private int _lastLength;

    public DeltaTexts(ReadOnlyMemory<byte> data, Utf8Text text, int count)
    {
        _text = text;
        _suffixes = data[DeltaLengthTexts.EndOf(data, count)..];
        _prefixLengths = new(data);
        _suffixLengths = new(_suffixes);
        _position = DeltaLengthTexts.EndOf(_suffixes, count);
    }

    public override FieldValue Next()
    {
        long prefix = _prefixLengths.Next(), suffix = _suffixLengths.Next();
        if (prefix < 0 || prefix > _lastLength || suffix < 0 || suffix > _suffixes.Length - _position) throw Early();
        int length = (int)(prefix + suffix);
        if (_last.Length < length) Array.Resize(ref _last, Math.Max(length, _last.Length * 2));
        _suffixes.Span.Slice(_position, (int)suffix).CopyTo(_last.AsSpan((int)prefix));
        _position += (int)suffix;
        _lastLength = length;
        return _text.Decode(_last.AsSpan(0, length));
    }
}

/// <summary>All first bytes of the numbers, then all second ones, and so on.</summary>
internal sealed class SplitNumbers(SchemaNode column, ReadOnlyMemory<byte> data) : PageValues
{
    private readonly int _width = Width(column.Type);
    private int _next;

    public override FieldValue Next()
    {
        int count = data.Length / _width;
        if (_next >= count) throw Early();
        Span<byte> bytes = stackalloc byte[8];
        for (int i = 0; i < _width; i++) bytes[i] = data.Span[(i * count) + _next];
        _next++;
        return Number(column, bytes);
    }
}
