namespace NopeGpt.Data.Documents.Parquet;

internal enum PageKind
{
    Data = 0,
    Index = 1,
    Dictionary = 2,
    DataV2 = 3,
}

/// <summary>What stands before each page (parquet.thrift, PageHeader).</summary>
internal struct PageHeader
{
    public PageKind Kind { get; private set; }
    public int UncompressedBytes { get; private set; }
    public int CompressedBytes { get; private set; }
    public int Values { get; private set; }
    public ValueEncoding Encoding { get; private set; }
    public ValueEncoding DefinitionEncoding { get; private set; }
    public ValueEncoding RepetitionEncoding { get; private set; }
    public int DefinitionBytes { get; private set; }
    public int RepetitionBytes { get; private set; }
    public bool IsCompressed { get; private set; }

    /// <summary>False when the data ends before the header does.</summary>
    public static bool TryRead(ReadOnlySpan<byte> data, out PageHeader header, out int length)
    {
        CompactReader reader = new(data);
        header = new() { Kind = (PageKind)(-1), IsCompressed = true };
        length = 0;
        try
        {
            header.Read(ref reader);
        }
        catch (InvalidDataException) when (reader.EndedEarly)
        {
            return false;
        }
        length = reader.Position;
        return true;
    }

    private void Read(ref CompactReader reader)
    {
        while (reader.NextField(out int id, out CompactType type))
        {
            if (id == 1 && type == CompactType.Int32) Kind = (PageKind)reader.ReadInt32();
            else if (id == 2 && type == CompactType.Int32) UncompressedBytes = reader.ReadInt32();
            else if (id == 3 && type == CompactType.Int32) CompressedBytes = reader.ReadInt32();
            else if (id is 5 or 7 && type == CompactType.Struct) ReadVersion1(ref reader);
            else if (id == 8 && type == CompactType.Struct) ReadVersion2(ref reader);
            else reader.Skip(type);
        }
    }

    /// <summary>A data page's header; a dictionary page's is the beginning of one.</summary>
    private void ReadVersion1(ref CompactReader reader)
    {
        int outer = reader.BeginStruct();
        while (reader.NextField(out int id, out CompactType type))
        {
            if (id == 1 && type == CompactType.Int32) Values = reader.ReadInt32();
            else if (id == 2 && type == CompactType.Int32) Encoding = (ValueEncoding)reader.ReadInt32();
            else if (id == 3 && type == CompactType.Int32) DefinitionEncoding = (ValueEncoding)reader.ReadInt32();
            else if (id == 4 && type == CompactType.Int32) RepetitionEncoding = (ValueEncoding)reader.ReadInt32();
            else reader.Skip(type);
        }
        reader.EndStruct(outer);
    }

    private void ReadVersion2(ref CompactReader reader)
    {
        int outer = reader.BeginStruct();
        while (reader.NextField(out int id, out CompactType type))
        {
            if (id == 1 && type == CompactType.Int32) Values = reader.ReadInt32();
            else if (id == 4 && type == CompactType.Int32) Encoding = (ValueEncoding)reader.ReadInt32();
            else if (id == 5 && type == CompactType.Int32) DefinitionBytes = reader.ReadInt32();
            else if (id == 6 && type == CompactType.Int32) RepetitionBytes = reader.ReadInt32();
            else if (id == 7 && type is CompactType.True or CompactType.False) IsCompressed = type == CompactType.True;
            else reader.Skip(type);
        }
        reader.EndStruct(outer);
    }
}
