using Microsoft.Win32.SafeHandles;

namespace NopeGpt.Data.Documents.Parquet;

/// <summary>A parquet file cut into shards of row groups.</summary>
internal sealed class ParquetShards
{
    private const string Cure = "get the file again";
    private readonly SafeFileHandle _file;
    private readonly ParquetFooter _footer;
    private readonly string _name;

    private ParquetShards(SafeFileHandle file, ParquetFooter footer, string name) => (_file, _footer, _name) = (file, footer, name);

    /// <summary>Names of the columns.</summary>
    public string[] Columns => _footer.Schema.ChildNames;

    public int RowGroups => _footer.RowGroups.Length;

    /// <summary>Opens a file. The shards share the one open file, which closes when the last of them is forgotten, so that a download that is
    /// deleted meanwhile can still be read.</summary>
    /// <exception cref="InvalidDataException">It is no whole parquet file.</exception>
    public static ParquetShards Open(string path, string name)
    {
        SafeFileHandle file = File.OpenHandle(path, FileMode.Open, FileAccess.Read, FileShare.ReadWrite | FileShare.Delete, FileOptions.RandomAccess);
        try
        {
            Span<byte> head = stackalloc byte[4];
            int read = RandomAccess.Read(file, head, 0);
            if (SourceFile.Packing(head[..read]) != SourceFile.PackingKind.None)
            {
                file.Dispose();
                file = Unpack(path);
            }
            return new(file, ParquetFooter.Read(file), name);
        }
        catch (InvalidDataException damage)
        {
            file.Dispose();
            throw new InvalidDataException($"{damage.Message}; {Cure}", damage);
        }
        catch
        {
            file.Dispose();
            throw;
        }
    }

    /// <summary>The columns to read.</summary>
    /// <exception cref="InvalidDataException">None of the wanted ones is there; the message lists those that are.</exception>
    public SchemaNode?[] Find(string[]? wanted)
    {
        if (wanted is null) return _footer.Schema.Children;
        SchemaNode?[] nodes = [.. wanted.Select(name => Array.Find(_footer.Schema.Children, c => c.Name == name))];
        return nodes.Any(n => n is not null) ? nodes
            : throw new InvalidDataException(ColumnMapping.NoneOf(wanted, Columns));
    }

    /// <summary>The end of the shard that begins at a row group: at least one, and more while they are small.</summary>
    public int EndOf(int first, SchemaNode?[] columns, long shardBytes)
    {
        long bytes = 0;
        int end = first;
        while (end < RowGroups && (end == first || bytes + Bytes(_footer.RowGroups[end], columns) <= shardBytes)) bytes += Bytes(_footer.RowGroups[end++], columns);
        return end;
    }

    public long Rows(int first, int end) => _footer.RowGroups[first..end].Sum(g => g.Rows);

    /// <summary>Streams the rows of some row groups; a damaged one ends early and its missing rows are counted.</summary>
    /// <param name="rows">Rows of the file before the first of them.</param>
    /// <param name="utf8">Whether texts stay UTF-8.</param>
    public IEnumerable<Record> Read(int first, int end, long rows, SchemaNode?[] columns, string[] names, bool utf8, ReadingReport report)
    {
        for (int i = first; i < end; i++)
        {
            RowGroup group = _footer.RowGroups[i];
            report.Bytes += Bytes(group, columns);
            foreach (Record record in ReadGroup(group, i, rows, columns, names, utf8, report)) yield return record;
            rows += group.Rows;
        }
    }

    private IEnumerable<Record> ReadGroup(RowGroup group, int index, long rows, SchemaNode?[] columns, string[] names, bool utf8, ReadingReport report)
    {
        long done = 0;
        using RowGroupReader? reader = Guarded(() => new RowGroupReader(_file, group, columns.OfType<SchemaNode>(), utf8), out string? problem);
        if (reader is not null)
        {
            using IEnumerator<FieldValue[]> values = reader.Rows().GetEnumerator();
            while (Guarded(() => values.MoveNext() ? values.Current : null, out problem) is { } row)
            {
                done++;
                if (reader.Repaired) report.AddRepaired(_name, rows + done);
                yield return new(names, Spread(row, columns), _name, rows + done);
            }
        }
        if (problem is not null) report.AddBad(_name, rows + done + 1, $"row group {index + 1} is damaged ({problem}); its remaining rows are left out; {Cure}", Math.Max(1, group.Rows - done));
    }

    /// <summary>The values in the order of the wanted columns, those that the file lacks included.</summary>
    private static FieldValue[] Spread(FieldValue[] row, SchemaNode?[] columns)
    {
        if (row.Length == columns.Length) return row;
        FieldValue[] all = new FieldValue[columns.Length];
        int next = 0;
        for (int i = 0; i < columns.Length; i++)
            if (columns[i] is not null) all[i] = row[next++];
        return all;
    }

    /// <summary>Runs a step of decoding. The decompressors are others' code, which meets damaged data with exceptions of many kinds.</summary>
    private static T? Guarded<T>(Func<T?> step, out string? problem) where T : class
    {
        problem = null;
        try
        {
            return step();
        }
        catch (Exception damage) when (damage is InvalidDataException or ArgumentException or IndexOutOfRangeException or OverflowException or InvalidOperationException or ZstdSharp.ZstdException)
        {
            problem = damage.Message.TrimEnd('.');
            return null;
        }
    }

    private static long Bytes(RowGroup group, SchemaNode?[] columns) => columns.OfType<SchemaNode>().SelectMany(c => c.Columns()).Sum(c => group.Columns[c.FirstLeaf].UncompressedBytes);

    /// <summary>Decompresses a whole file to a place of its own, because parquet is read from its end. The system deletes it when it closes.</summary>
    private static SafeFileHandle Unpack(string path)
    {
        string temporary = Path.Combine(Path.GetTempPath(), $"nopegpt-{Guid.NewGuid():N}.parquet");
        SafeFileHandle file = File.OpenHandle(temporary, FileMode.CreateNew, FileAccess.ReadWrite, FileShare.None, FileOptions.DeleteOnClose | FileOptions.RandomAccess);
        try
        {
            using Stream packed = SourceFile.OpenStream(path);
            byte[] buffer = new byte[1 << 20];
            long offset = 0;
            for (int read; (read = packed.Read(buffer)) > 0; offset += read) RandomAccess.Write(file, buffer.AsSpan(0, read), offset);
            return file;
        }
        catch (Exception damage)
        {
            file.Dispose();
            if (!SalvagingStream.IsDamage(damage)) throw;
            throw new InvalidDataException($"the compressed data is damaged or ends early ({damage.Message.TrimEnd('.')})", damage);
        }
    }
}

/// <summary>Rows of some row groups.</summary>
internal sealed class RowGroupShard(ShardPosition start, ShardPosition end, double fraction, ParquetShards file, int first, int behind, SchemaNode?[] columns, string[] names) : Shard(start, end, fraction)
{
    private protected override IEnumerable<Record> Read(ReadingReport report) => file.Read(first, behind, Start.Rows, columns, names, utf8: false, report);

    private protected override IEnumerable<ColumnText> ReadColumn(string column, ReadingReport report) =>
        file.Read(first, behind, Start.Rows, columns, names, utf8: true, report).Select(record => new ColumnText(record[column].Kind, record[column].AsUtf8, record.File, record.Row));
}
