using System.Buffers;
using System.Buffers.Binary;
using Microsoft.Win32.SafeHandles;

namespace NopeGpt.Data.Documents.Parquet;

/// <summary>Goes through the entries of one column in one row group. An entry is a repetition level, a definition level and, where the
/// definition level is the column's own, a value. Memory is bounded by one page and the column's dictionary.</summary>
internal sealed class ColumnCursor : IDisposable
{
    private const int HeaderBytes = 8 << 10, MaximumHeaderBytes = 64 << 20, MaximumPageBytes = 1 << 30, FreeValues = 1 << 20, ValuesPerByte = 64;
    private readonly SafeFileHandle _file;
    private readonly SchemaNode _column;
    private readonly ColumnChunk _chunk;
    private readonly long _end;
    private readonly Utf8Text _text;
    private readonly PageInflater _inflater = new();
    private byte[] _page = [];
    private FieldValue[]? _dictionary;
    private long _offset;
    private long _unread;
    private int _inPage;
    private LevelReader _repetitions, _definitions;
    private PageValues? _values;
    private bool _valuePending;

    /// <summary>Opens the column; <see cref="Advance"/> goes to the first entry.</summary>
    public ColumnCursor(SafeFileHandle file, SchemaNode column, ColumnChunk chunk, Utf8Text text)
    {
        (_file, _column, _chunk, _text) = (file, column, chunk, text);
        long length = RandomAccess.GetLength(file);
        if (chunk.Offset < 4 || chunk.CompressedBytes < 0 || chunk.Values < 0 || chunk.Offset > length - chunk.CompressedBytes)
            throw new InvalidDataException($"column {column.Name} lies outside the file");
        // Some writers leave the dictionary out of the size, so the number of values alone tells where the column ends.
        (_offset, _end, _unread) = (chunk.Offset, length, chunk.Values);
    }

    /// <summary>The lists that the entry continues; 0 where it begins a row.</summary>
    public int Repetition { get; private set; }

    /// <summary>How much of the path to the value is there.</summary>
    public int Definition { get; private set; }

    public bool AtEnd { get; private set; }

    /// <summary>The value of the current entry; null where it has none.</summary>
    public FieldValue Value()
    {
        if (!_valuePending) return default;
        _valuePending = false;
        return _values!.Next();
    }

    public void Advance()
    {
        if (_valuePending) Value();
        while (_inPage == 0)
        {
            if (_unread == 0)
            {
                (AtEnd, Repetition, Definition) = (true, 0, -1);
                return;
            }
            LoadPage();
        }
        _inPage--;
        Repetition = _repetitions.Next();
        Definition = _definitions.Next();
        if (Repetition > _column.RepetitionDepth || Definition > _column.Definition) throw new InvalidDataException($"a page of column {_column.Name} holds a level that cannot be");
        _valuePending = Definition == _column.Definition;
    }

    public void Dispose()
    {
        _inflater.Dispose();
        if (_page.Length > 0) ArrayPool<byte>.Shared.Return(_page);
        _page = [];
    }

    private void LoadPage()
    {
        if (_offset >= _end) throw new InvalidDataException($"column {_column.Name} ends {_unread} values early");
        PageHeader header = ReadHeader();
        if (header.CompressedBytes < 0 || header.CompressedBytes > _end - _offset || header.UncompressedBytes is < 0 or > MaximumPageBytes)
            throw new InvalidDataException($"a page of column {_column.Name} claims a size that cannot be");
        ReadOnlyMemory<byte> data = ReadBytes(_offset, header.CompressedBytes);
        _offset += header.CompressedBytes;
        if (header.Kind == PageKind.Dictionary) LoadDictionary(header, data);
        else if (header.Kind is PageKind.Data or PageKind.DataV2) OpenData(header, data);
    }

    private PageHeader ReadHeader()
    {
        for (long window = HeaderBytes; ; window *= 8)
        {
            int available = (int)Math.Min(window, _end - _offset);
            if (PageHeader.TryRead(ReadBytes(_offset, available).Span, out PageHeader header, out int length))
            {
                _offset += length;
                return header;
            }
            if (available < window || window >= MaximumHeaderBytes) throw new InvalidDataException($"a page header of column {_column.Name} ends early");
        }
    }

    private ReadOnlyMemory<byte> ReadBytes(long offset, int length)
    {
        if (_page.Length < length)
        {
            if (_page.Length > 0) ArrayPool<byte>.Shared.Return(_page);
            _page = [];
            _page = ArrayPool<byte>.Shared.Rent(length);
        }
        if (!ParquetFooter.Fill(_file, _page.AsSpan(0, length), offset)) throw new InvalidDataException("the file ends early");
        return _page.AsMemory(0, length);
    }

    private void LoadDictionary(PageHeader header, ReadOnlyMemory<byte> data)
    {
        if (_dictionary is not null) throw new InvalidDataException($"column {_column.Name} has two dictionaries");
        if (header.Encoding is not (ValueEncoding.Plain or ValueEncoding.PlainDictionary)) throw new InvalidDataException($"the dictionary of column {_column.Name} is encoded in an unknown way");
        ReadOnlyMemory<byte> plain = _inflater.Inflate(_chunk.Codec, data, header.UncompressedBytes);
        PlainValues values = new(_column, plain, _text);
        // The list grows with the data, whatever number is claimed.
        List<FieldValue> dictionary = [];
        while (dictionary.Count < header.Values)
        {
            if (values.AtEnd) throw new InvalidDataException($"the dictionary of column {_column.Name} ends early");
            dictionary.Add(values.Next());
        }
        _dictionary = [.. dictionary];
    }

    private void OpenData(PageHeader header, ReadOnlyMemory<byte> data)
    {
        if (header.Values < 0 || header.Values > _unread || header.Values > FreeValues + ((long)header.UncompressedBytes * ValuesPerByte))
            throw new InvalidDataException($"a page of column {_column.Name} claims {header.Values} values");
        int repetitionBits = LevelReader.BitsFor(_column.RepetitionDepth), definitionBits = LevelReader.BitsFor(_column.Definition);
        if (header.Kind == PageKind.DataV2)
        {
            int levels = checked(header.RepetitionBytes + header.DefinitionBytes);
            if (header.RepetitionBytes < 0 || header.DefinitionBytes < 0 || levels > data.Length || levels > header.UncompressedBytes) throw new InvalidDataException($"a page of column {_column.Name} claims a size that cannot be");
            _repetitions = new(data[..header.RepetitionBytes], repetitionBits);
            _definitions = new(data[header.RepetitionBytes..levels], definitionBits);
            data = _inflater.Inflate(header.IsCompressed ? _chunk.Codec : PageCodec.None, data[levels..], header.UncompressedBytes - levels);
        }
        else
        {
            data = _inflater.Inflate(_chunk.Codec, data, header.UncompressedBytes);
            if ((repetitionBits > 0 && header.RepetitionEncoding != ValueEncoding.RunLength) || (definitionBits > 0 && header.DefinitionEncoding != ValueEncoding.RunLength))
                throw new InvalidDataException($"the levels of column {_column.Name} are encoded in an old way that is not supported; write the file again");
            _repetitions = Levels(ref data, repetitionBits);
            _definitions = Levels(ref data, definitionBits);
        }
        _values = PageValues.Open(header.Encoding, _column, data, _dictionary, _text, header.Values);
        _inPage = header.Values;
        _unread -= header.Values;
    }

    private static LevelReader Levels(ref ReadOnlyMemory<byte> data, int bits)
    {
        if (bits == 0) return default;
        if (data.Length < 4) throw new InvalidDataException("a page ends before its last value");
        int length = BinaryPrimitives.ReadInt32LittleEndian(data.Span);
        if (length < 0 || length > data.Length - 4) throw new InvalidDataException("a page ends before its last value");
        LevelReader levels = new(data.Slice(4, length), bits);
        data = data[(4 + length)..];
        return levels;
    }
}
