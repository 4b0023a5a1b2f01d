using System.IO.Compression;
using System.Text;
using NopeGpt.Data.Documents;
using Parquet;
using Parquet.Data;
using Parquet.Schema;
using Parquet.Serialization;
using ZstdSharp;
using Record = NopeGpt.Data.Documents.Record;

namespace NopeGpt.Data.Tests;

/// <summary>Writes files for sources to read.</summary>
internal static class SourceFiles
{
    public static byte[] Gzip(params byte[][] members)
    {
        using MemoryStream packed = new();
        foreach (byte[] member in members)
            using (GZipStream gzip = new(packed, CompressionLevel.Fastest, leaveOpen: true)) gzip.Write(member);
        return packed.ToArray();
    }

    public static byte[] Zstandard(byte[] data)
    {
        using Compressor compressor = new();
        return compressor.Wrap(data).ToArray();
    }

    public static string Write(string path, string text)
    {
        byte[] bytes = Encoding.UTF8.GetBytes(text);
        File.WriteAllBytes(path, path.EndsWith(".gz", StringComparison.Ordinal) ? Gzip(bytes) : path.EndsWith(".zst", StringComparison.Ordinal) ? Zstandard(bytes) : bytes);
        return path;
    }

    /// <summary>A parquet file with one text column.</summary>
    public static async Task<string> TextsAsync(string path, IReadOnlyList<string?> texts, int rowsPerGroup, CompressionMethod codec = CompressionMethod.Snappy, string column = "text", EncodingHint encoding = EncodingHint.Default)
    {
        DataField<string> field = new(column);
        ParquetOptions options = new() { CompressionMethod = codec };
        options.ColumnEncodingHints[column] = encoding;
        using FileStream stream = File.Create(path);
        await using ParquetWriter writer = await ParquetWriter.CreateAsync(new ParquetSchema(field), stream, options);
        for (int from = 0; from < texts.Count; from += rowsPerGroup)
        {
            using ParquetRowGroupWriter group = writer.CreateRowGroup();
            await group.WriteAsync(field, texts.Skip(from).Take(rowsPerGroup).ToArray());
            group.CompleteValidate();
        }
        return path;
    }

    /// <summary>A parquet file of bytes that are called texts.</summary>
    public static async Task<string> BytesAsync(string path, IReadOnlyList<byte[]> values)
    {
        DataField<byte[]> field = new("text");
        using FileStream stream = File.Create(path);
        await using ParquetWriter writer = await ParquetWriter.CreateAsync(new ParquetSchema(field), stream);
        using ParquetRowGroupWriter group = writer.CreateRowGroup();
        await group.WriteAsync(field, values.ToArray());
        group.CompleteValidate();
        return path;
    }

    public static async Task<string> RowsAsync<T>(string path, IReadOnlyList<T> rows, int rowsPerGroup = 1000, CompressionMethod codec = CompressionMethod.Snappy)
    {
        await ParquetSerializer.SerializeAsync(rows, path, new ParquetOptions { CompressionMethod = codec, RowGroupSize = rowsPerGroup });
        return path;
    }

    public static (List<Record> Records, ReadingReport Report) Read(Source source)
    {
        ReadingReport report = new();
        return ([.. source.Records(report)], report);
    }

    public static (List<string> Texts, ReadingReport Report) ReadTexts(Source source, string column = "text")
    {
        ReadingReport report = new();
        return ([.. source.Texts(new() { Text = column }, report)], report);
    }
}

/// <summary>A row such as chat data sets have.</summary>
internal sealed class ChatRow
{
    public string? source { get; set; }
    public long id { get; set; }
    public double? score { get; set; }
    public bool good { get; set; }
    public List<ChatTurn>? messages { get; set; }
    public List<string>? tags { get; set; }
}

internal sealed class ChatTurn
{
    public string? role { get; set; }
    public string? content { get; set; }
}
