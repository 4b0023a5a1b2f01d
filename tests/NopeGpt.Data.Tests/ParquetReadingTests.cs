using System.Text;
using NopeGpt.Data.Documents;
using NopeGpt.Tests;
using Parquet;
using static NopeGpt.Data.Tests.SourceFiles;
using Record = NopeGpt.Data.Documents.Record;

namespace NopeGpt.Data.Tests;

public sealed class ParquetReadingTests
{
    [Theory]
    [InlineData(CompressionMethod.None, EncodingHint.Default)]
    [InlineData(CompressionMethod.Snappy, EncodingHint.Dictionary)]
    [InlineData(CompressionMethod.Gzip, EncodingHint.Default)]
    [InlineData(CompressionMethod.Brotli, EncodingHint.Dictionary)]
    [InlineData(CompressionMethod.Zstd, EncodingHint.Default)]
    [InlineData(CompressionMethod.Lz4Raw, EncodingHint.Default)]
    public async Task Texts_come_back_as_written_in_every_compression_and_nulls_stay_nulls(CompressionMethod codec, EncodingHint encoding)
    {
        using TemporaryFolder folder = new();
        Random random = new(7);
        string?[] texts = [.. Enumerable.Range(0, 2500).Select(i => i % 17 == 0 ? null : i % 5 == 0 ? "again and again" : RandomText.Next(random, 30))];
        string path = await TextsAsync(folder["a.parquet"], texts, 700, codec, encoding: encoding);
        (List<Record> records, ReadingReport report) = Read(Source.Open(path));
        Assert.Equal(texts, records.Select(r => r.Text("text")));
        Assert.Equal(Enumerable.Range(1, 2500).Select(i => (long)i), records.Select(r => r.Row));
        Assert.False(report.HasProblems, report.ToString());
    }

    [Fact]
    public async Task Conversations_numbers_and_lists_come_back_as_written_also_where_parts_are_missing()
    {
        using TemporaryFolder folder = new();
        Random random = new(11);
        List<ChatRow> rows = [.. Enumerable.Range(0, 1000).Select(i => new ChatRow
        {
            source = i % 7 == 0 ? null : $"origin {i % 3}",
            id = long.MaxValue - i,
            score = i % 4 == 0 ? null : i / 8.0,
            good = i % 3 == 0,
            messages = i % 11 == 0 ? null : [.. Enumerable.Range(0, random.Next(5)).Select(t => new ChatTurn { role = t % 2 == 0 ? "user" : "assistant", content = t == 3 ? null : RandomText.Next(random, 10) })],
            tags = i % 13 == 0 ? null : [.. Enumerable.Range(0, random.Next(3)).Select(t => $"tag {t}")],
        })];
        string path = await RowsAsync(folder["chat.parquet"], rows, 300);
        (List<Record> records, ReadingReport report) = Read(Source.Open(path));
        Assert.False(report.HasProblems, report.ToString());
        Assert.Equal(rows.Count, records.Count);
        for (int i = 0; i < rows.Count; i++) AssertEqual(rows[i], records[i], i);
    }

    [Fact]
    public async Task Only_the_wanted_columns_are_read()
    {
        using TemporaryFolder folder = new();
        List<ChatRow> rows = [.. Enumerable.Range(0, 200).Select(i => new ChatRow { source = new string('x', 10_000) + i, id = i, tags = ["a"] })];
        string path = await RowsAsync(folder["chat.parquet"], rows, codec: CompressionMethod.None);
        ReadingReport all = new(), ids = new();
        _ = Source.Open(path).Records(all).Count();
        List<Record> records = [.. Source.Open(path, new() { Columns = ["tags", "missing", "id"] }).Records(ids)];
        Assert.Equal(["tags", "missing", "id"], records[5].Names);
        Assert.Equal(5, records[5]["id"].AsWhole);
        Assert.True(records[5]["missing"].IsNull);
        Assert.True(ids.Bytes < all.Bytes / 50, $"{ids.Bytes} of {all.Bytes} bytes");
    }

    [Fact]
    public async Task A_wrong_column_is_named_with_those_that_the_file_has()
    {
        using TemporaryFolder folder = new();
        string path = await TextsAsync(folder["a.parquet"], ["one"], 10, column: "content");
        (List<string> texts, ReadingReport report) = ReadTexts(Source.Open(path));
        Assert.Empty(texts);
        Assert.Contains("a.parquet: there is no column \"text\" but \"content\"", Assert.Single(report.Problems).ToString(), StringComparison.Ordinal);
    }

    [Theory]
    [InlineData(0, "is empty")]
    [InlineData(6, "ends early")]
    [InlineData(500, "ends early")]
    [InlineData(-1, "ends early")]
    [InlineData(-9, "ends early")]
    public async Task A_file_that_ends_early_is_named_and_the_others_are_read(int length, string reason)
    {
        using TemporaryFolder folder = new();
        await TextsAsync(folder["a.parquet"], ["one", "two"], 10);
        byte[] bytes = await File.ReadAllBytesAsync(await TextsAsync(folder["b.parquet"], [.. Enumerable.Range(0, 500).Select(i => $"text {i}")], 100, CompressionMethod.None));
        await File.WriteAllBytesAsync(folder["b.parquet"], bytes[..(length >= 0 ? length : bytes.Length + length)]);
        await TextsAsync(folder["c.parquet"], ["three"], 10);
        (List<string> texts, ReadingReport report) = ReadTexts(Source.Open(folder.Path));
        Assert.Equal(["one", "two", "three"], texts);
        Assert.Equal(1, report.BadFiles);
        string problem = Assert.Single(report.Problems).ToString();
        Assert.Contains("b.parquet: ", problem, StringComparison.Ordinal);
        Assert.Contains(reason, problem, StringComparison.Ordinal);
        Assert.Contains("get the file again", problem, StringComparison.Ordinal);
    }

    [Fact]
    public async Task Of_a_damaged_row_group_the_rows_before_the_damage_are_kept_and_the_rest_are_counted()
    {
        using TemporaryFolder folder = new();
        string[] texts = [.. Enumerable.Range(0, 400).Select(i => $"this is text number {i:0000}")];
        string path = await TextsAsync(folder["a.parquet"], texts, 100, CompressionMethod.None);
        byte[] bytes = await File.ReadAllBytesAsync(path);
        int damage = bytes.AsSpan().IndexOf("number 0250"u8) - "this is text ".Length - 4;
        bytes.AsSpan(damage, 4).Fill(0x7f);
        await File.WriteAllBytesAsync(path, bytes);
        (List<string> read, ReadingReport report) = ReadTexts(Source.Open(path, new() { ShardBytes = 1 }));
        Assert.Equal([.. texts[..250], .. texts[300..]], read);
        Assert.Equal((350, 50), (report.Records, report.Bad));
        ReadingProblem problem = Assert.Single(report.Problems);
        Assert.Equal(251, problem.Row);
        Assert.Contains("row group 3 is damaged", problem.Reason, StringComparison.Ordinal);
    }

    [Fact]
    public async Task Bytes_that_are_not_utf8_are_replaced_and_counted()
    {
        using TemporaryFolder folder = new();
        string path = await BytesAsync(folder["a.parquet"], [Encoding.UTF8.GetBytes("gut"), [0x61, 0xff, 0x62], Encoding.UTF8.GetBytes("schön")]);
        (List<string> texts, ReadingReport report) = ReadTexts(Source.Open(path));
        Assert.Equal(["gut", "a\ufffdb", "schön"], texts);
        Assert.Equal((3, 1), (report.Records, report.Repaired));
        Assert.Equal(2, Assert.Single(report.Problems).Row);
    }

    [Fact]
    public async Task A_compressed_parquet_file_is_unpacked_and_leaves_nothing_behind()
    {
        using TemporaryFolder folder = new();
        string[] texts = [.. Enumerable.Range(0, 300).Select(i => $"text {i}")];
        byte[] plain = await File.ReadAllBytesAsync(await TextsAsync(folder["a.parquet"], texts, 100));
        await File.WriteAllBytesAsync(folder["b.parquet.gz"], Gzip(plain));
        await File.WriteAllBytesAsync(folder["c.parquet.zst"], Zstandard(plain));
        await File.WriteAllBytesAsync(folder["d.parquet.gz"], Gzip(plain)[..200]);
        (List<string> read, ReadingReport report) = ReadTexts(Source.Open(folder.Path));
        Assert.Equal([.. texts, .. texts, .. texts], read);
        Assert.Contains("d.parquet.gz: ", Assert.Single(report.Problems).ToString(), StringComparison.Ordinal);
    }

    [Fact]
    public async Task A_large_row_group_takes_the_memory_of_its_pages_only()
    {
        using TemporaryFolder folder = new();
        string path = await TextsAsync(folder["a.parquet"], [.. Enumerable.Range(0, 2000).Select(i => new string((char)('a' + (i % 26)), 5000))], 500);
        ReadingReport report = new();
        int shards = 0;
        foreach (Shard shard in Source.Open(path, new() { ShardBytes = 1 << 20 }).Shards())
        {
            shards++;
            Assert.Equal(500, shard.Records(report).Count());
        }
        Assert.Equal((4, 2000), (shards, (int)report.Records));
    }

    private static void AssertEqual(ChatRow row, Record record, int at)
    {
        Assert.Equal(row.source, record.Text("source"));
        Assert.Equal(row.id, record["id"].AsWhole);
        Assert.Equal(row.score, record["score"].AsNumber);
        Assert.Equal(row.good, record["good"].AsBoolean);
        Assert.True(row.tags is null ? record["tags"].IsNull : row.tags.SequenceEqual(record["tags"].AsList!.Select(t => t.AsText!)), $"row {at}: {record["tags"]}");
        if (row.messages is null)
        {
            Assert.True(record["messages"].IsNull, $"row {at}");
            return;
        }
        Assert.Equal(row.messages.Select(m => (m.role, m.content)), record["messages"].AsList!.Select(m => (m.AsRecord!.Text("role"), m.AsRecord!.Text("content"))));
    }
}
