using System.Buffers.Binary;
using Microsoft.Win32.SafeHandles;

namespace NopeGpt.Data.Documents.Parquet;

internal enum PageCodec
{
    None = 0,
    Snappy = 1,
    Gzip = 2,
    Lzo = 3,
    Brotli = 4,
    Lz4Hadoop = 5,
    Zstandard = 6,
    Lz4 = 7,
}

/// <summary>Where the values of one column of one row group lie.</summary>
internal sealed record ColumnChunk(PhysicalType Type, PageCodec Codec, long Values, long CompressedBytes, long UncompressedBytes, long Offset);

/// <summary>Consecutive rows that are stored together.</summary>
internal sealed record RowGroup(long Rows, ColumnChunk[] Columns);

/// <summary>What a parquet file says about itself at its end (github.com/apache/parquet-format, parquet.thrift).</summary>
internal sealed record ParquetFooter(SchemaNode Schema, RowGroup[] RowGroups, long Rows)
{
    private const uint Magic = 0x31524150, EncryptedMagic = 0x45524150;
    private const int MaximumDepth = 64;

    /// <exception cref="InvalidDataException">The file is no whole parquet file; the message says in what way.</exception>
    public static ParquetFooter Read(SafeFileHandle file)
    {
        long length = RandomAccess.GetLength(file);
        if (length == 0) throw new InvalidDataException("the file is empty");
        Span<byte> ends = stackalloc byte[12];
        if (length < ends.Length || !Fill(file, ends[..4], 0) || !Fill(file, ends[4..], length - 8)) throw new InvalidDataException("the file ends early: it is too short for a parquet file");
        uint head = BinaryPrimitives.ReadUInt32LittleEndian(ends), tail = BinaryPrimitives.ReadUInt32LittleEndian(ends[8..]);
        if (tail == EncryptedMagic) throw new InvalidDataException("the parquet file is encrypted; write it again without encryption");
        if (head != Magic) throw new InvalidDataException("this is not a parquet file (it does not begin with PAR1)");
        if (tail != Magic) throw new InvalidDataException("the parquet file ends early: its footer is missing, and without it nothing in it can be found");
        uint size = BinaryPrimitives.ReadUInt32LittleEndian(ends[4..]);
        if (size > length - 12) throw new InvalidDataException($"the parquet file is damaged: its footer of {size} bytes is longer than the file");
        byte[] footer = new byte[size];
        if (!Fill(file, footer, length - 8 - size)) throw new InvalidDataException("the parquet file ends early");
        return Parse(footer);
    }

    public static bool Fill(SafeFileHandle file, Span<byte> into, long offset)
    {
        while (into.Length > 0)
        {
            int read = RandomAccess.Read(file, into, offset);
            if (read == 0) return false;
            into = into[read..];
            offset += read;
        }
        return true;
    }

    private static ParquetFooter Parse(ReadOnlySpan<byte> footer)
    {
        CompactReader reader = new(footer);
        List<Element> elements = [];
        List<RowGroup> groups = [];
        long rows = 0;
        while (reader.NextField(out int id, out CompactType type))
        {
            if (id == 2 && type == CompactType.List)
                for (int left = reader.ReadListHeader(out _); left > 0; left--) elements.Add(ReadElement(ref reader));
            else if (id == 3 && type == CompactType.Int64) rows = reader.ReadInt64();
            else if (id == 4 && type == CompactType.List)
                for (int left = reader.ReadListHeader(out _); left > 0; left--) groups.Add(ReadRowGroup(ref reader));
            else reader.Skip(type);
        }
        if (elements.Count == 0) throw new InvalidDataException("the parquet file is damaged: its footer has no schema");
        int next = 0;
        SchemaNode schema = Build(elements, ref next, 0);
        if (schema.IsLeaf) throw new InvalidDataException("the parquet file is damaged: its schema is no group");
        int leaves = 0;
        schema.Place(0, 0, ref leaves);
        Check(schema, groups);
        return new(schema, [.. groups], rows);
    }

    private static void Check(SchemaNode schema, List<RowGroup> groups)
    {
        SchemaNode[] columns = [.. schema.Columns()];
        foreach (RowGroup group in groups)
        {
            if (group.Columns.Length != columns.Length) throw new InvalidDataException($"the parquet file is damaged: a row group has {group.Columns.Length} columns and the schema {columns.Length}");
            for (int i = 0; i < columns.Length; i++)
                if (group.Columns[i].Type != columns[i].Type) throw new InvalidDataException($"the parquet file is damaged: column {columns[i].Name} has two types");
        }
    }

    private static SchemaNode Build(List<Element> elements, ref int next, int depth)
    {
        if (next >= elements.Count || depth > MaximumDepth) throw new InvalidDataException("the parquet file is damaged: its schema does not fit together");
        Element element = elements[next++];
        if (element.Children < 0 || element.Children > elements.Count - next) throw new InvalidDataException("the parquet file is damaged: its schema does not fit together");
        if (element.Type is { } known && !Enum.IsDefined(known)) throw new InvalidDataException($"the parquet file has a column type that is not known ({(int)known})");
        SchemaNode[] children = new SchemaNode[element.Children];
        for (int i = 0; i < children.Length; i++) children[i] = Build(elements, ref next, depth + 1);
        return new()
        {
            // The root is always there, whatever it says.
            Name = element.Name, Repetition = depth == 0 ? Repetition.Required : element.Repetition, Type = depth == 0 || children.Length > 0 ? null : element.Type,
            TypeLength = element.TypeLength, IsList = element.IsList, IsUnsigned = element.IsUnsigned, Children = children,
        };
    }

    private static Element ReadElement(ref CompactReader reader)
    {
        Element element = new();
        int outer = reader.BeginStruct();
        while (reader.NextField(out int id, out CompactType type))
        {
            if (id == 1 && type == CompactType.Int32) element.Type = (PhysicalType)reader.ReadInt32();
            else if (id == 2 && type == CompactType.Int32) element.TypeLength = reader.ReadInt32();
            else if (id == 3 && type == CompactType.Int32) element.Repetition = (Repetition)reader.ReadInt32();
            else if (id == 4 && type == CompactType.Binary) element.Name = reader.ReadText();
            else if (id == 5 && type == CompactType.Int32) element.Children = reader.ReadInt32();
            else if (id == 6 && type == CompactType.Int32) element.Converted(reader.ReadInt32());
            else if (id == 10 && type == CompactType.Struct) element.IsList |= ReadLogicalType(ref reader) == 3;
            else reader.Skip(type);
        }
        reader.EndStruct(outer);
        if (!Enum.IsDefined(element.Repetition)) throw new InvalidDataException("the parquet file is damaged: its schema has an unknown kind of column");
        return element;
    }

    /// <summary>The number of the union's member; 3 is LIST.</summary>
    private static int ReadLogicalType(ref CompactReader reader)
    {
        int member = 0, outer = reader.BeginStruct();
        while (reader.NextField(out int id, out CompactType type))
        {
            member = id;
            reader.Skip(type);
        }
        reader.EndStruct(outer);
        return member;
    }

    private static RowGroup ReadRowGroup(ref CompactReader reader)
    {
        List<ColumnChunk> columns = [];
        long rows = 0;
        int outer = reader.BeginStruct();
        while (reader.NextField(out int id, out CompactType type))
        {
            if (id == 1 && type == CompactType.List)
                for (int left = reader.ReadListHeader(out _); left > 0; left--) columns.Add(ReadChunk(ref reader));
            else if (id == 3 && type == CompactType.Int64) rows = reader.ReadInt64();
            else reader.Skip(type);
        }
        reader.EndStruct(outer);
        if (rows < 0) throw new InvalidDataException("the parquet file is damaged: a row group has a negative number of rows");
        return new(rows, [.. columns]);
    }

    private static ColumnChunk ReadChunk(ref CompactReader reader)
    {
        ColumnChunk? chunk = null;
        int outer = reader.BeginStruct();
        while (reader.NextField(out int id, out CompactType type))
        {
            if (id == 3 && type == CompactType.Struct) chunk = ReadColumn(ref reader);
            else if (id == 1 && type == CompactType.Binary) throw new InvalidDataException("the parquet file keeps its columns in other files, which is not supported; write it again as one file");
            else reader.Skip(type);
        }
        reader.EndStruct(outer);
        return chunk ?? throw new InvalidDataException("the parquet file is damaged or encrypted: a column has no description");
    }

    private static ColumnChunk ReadColumn(ref CompactReader reader)
    {
        int physical = -1, codec = 0;
        long values = 0, uncompressed = 0, compressed = 0, data = 0, dictionary = 0;
        int outer = reader.BeginStruct();
        while (reader.NextField(out int id, out CompactType type))
        {
            if (id == 1 && type == CompactType.Int32) physical = reader.ReadInt32();
            else if (id == 4 && type == CompactType.Int32) codec = reader.ReadInt32();
            else if (id == 5 && type == CompactType.Int64) values = reader.ReadInt64();
            else if (id == 6 && type == CompactType.Int64) uncompressed = reader.ReadInt64();
            else if (id == 7 && type == CompactType.Int64) compressed = reader.ReadInt64();
            else if (id == 9 && type == CompactType.Int64) data = reader.ReadInt64();
            else if (id == 11 && type == CompactType.Int64) dictionary = reader.ReadInt64();
            else reader.Skip(type);
        }
        reader.EndStruct(outer);
        // Some writers put 0 for "no dictionary", others give the offset of a dictionary behind the data.
        long offset = dictionary > 0 && dictionary < data ? dictionary : data;
        return new((PhysicalType)physical, (PageCodec)codec, values, compressed, Math.Max(0, uncompressed), offset);
    }

    private sealed class Element
    {
        public string Name { get; set; } = "";
        public PhysicalType? Type { get; set; }
        public int TypeLength { get; set; }
        public Repetition Repetition { get; set; }
        public int Children { get; set; }
        public bool IsList { get; set; }
        public bool IsUnsigned { get; private set; }

        public void Converted(int kind)
        {
            // parquet.thrift's ConvertedType: 3 is LIST, 11 to 14 are the unsigned numbers.
            IsList |= kind == 3;
            IsUnsigned |= kind is >= 11 and <= 14;
        }
    }
}
