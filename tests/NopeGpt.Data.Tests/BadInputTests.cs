using System.Text;
using System.Text.Json;
using NopeGpt.Data.Documents;
using NopeGpt.Tests;
using static NopeGpt.Data.Tests.SourceFiles;

namespace NopeGpt.Data.Tests;

public sealed class BadInputTests
{
    [Fact]
    public void Bad_lines_are_named_and_counted_and_the_good_ones_are_kept()
    {
        using TemporaryFolder folder = new();
        Write(folder["a.jsonl"], "{\"text\": \"one\"}\n{\"text\": \n\n{\"txt\": \"x\"}\n{\"text\": 5}\n17\n{\"text\": \"\"}\n{\"text\": \"  \"}\n{\"text\": \"two\"} x\n{\"text\": \"three\"}\n{\"text\": [\"a\"]}");
        (List<string> texts, ReadingReport report) = ReadTexts(Source.Open(folder["a.jsonl"]));
        Assert.Equal(["one", "three"], texts);
        Assert.Equal((2, 6, 2), (report.Records, report.Bad, report.Empty));
        Assert.Equal([2, 4, 5, 6, 7, 8, 9, 11], report.Problems.Select(p => p.Row!.Value));
        Assert.All(report.Problems, p => Assert.EndsWith("a.jsonl", p.File, StringComparison.Ordinal));
        Assert.Contains("this is not JSON", report.Problems[0].Reason, StringComparison.Ordinal);
        Assert.Contains("there is no column \"text\" but \"txt\"; did you mean \"txt\"?", report.Problems[1].Reason, StringComparison.Ordinal);
        Assert.Contains("but a number", report.Problems[2].Reason, StringComparison.Ordinal);
        Assert.Contains("neither an object", report.Problems[3].Reason, StringComparison.Ordinal);
        Assert.Contains("empty", report.Problems[4].Reason, StringComparison.Ordinal);
        Assert.Contains("but a list", report.Problems[7].Reason, StringComparison.Ordinal);
    }

    [Theory]
    [InlineData("jsonl")]
    [InlineData("json")]
    [InlineData("csv")]
    [InlineData("txt")]
    public void Invalid_utf8_is_replaced_and_counted(string ending)
    {
        using TemporaryFolder folder = new();
        byte[] bad = [0x61, 0xff, 0xc3, 0x62];
        byte[] bytes = ending switch
        {
            "jsonl" => [.. "{\"text\": \"good\"}\n{\"text\": \""u8, .. bad, .. "\"}\n"u8],
            "json" => [.. "[{\"text\": \"good\"},\n{\"text\": \""u8, .. bad, .. "\"}]"u8],
            "csv" => [.. "text\ngood\n"u8, .. bad, .. "\n"u8],
            _ => [.. "good\n<|endoftext|>\n"u8, .. bad],
        };
        File.WriteAllBytes(folder["a." + ending], bytes);
        (List<string> texts, ReadingReport report) = ReadTexts(Source.Open(folder["a." + ending]));
        Assert.Equal(["good", "a\ufffd\ufffdb"], texts);
        Assert.Equal((2, 1, 0), (report.Records, report.Repaired, report.Bad));
        Assert.Contains("U+FFFD", Assert.Single(report.Problems).Reason, StringComparison.Ordinal);
    }

    [Fact]
    public void Halves_of_characters_in_json_are_replaced_and_counted_and_the_rest_of_the_text_stays()
    {
        using TemporaryFolder folder = new();
        Write(folder["a.jsonl"], "{\"text\": \"a\\ud800b\\n\\ud83d\\ude00\\\"\\/\\u0041\\\\\"}\n{\"te\\u0078t\": \"fine\"}");
        (List<string> texts, ReadingReport report) = ReadTexts(Source.Open(folder["a.jsonl"]));
        Assert.Equal(["a\ufffdb\n😀\"/A\\", "fine"], texts);
        Assert.Equal((2, 1), (report.Records, report.Repaired));
    }

    [Theory]
    [InlineData("jsonl", 100_000)]
    [InlineData("csv", 100_000)]
    [InlineData("json", 100_000)]
    [InlineData("jsonl", 3_000_000)]
    [InlineData("csv", 3_000_000)]
    [InlineData("json", 3_000_000)]
    public void A_record_beyond_the_limit_is_left_out_and_named_and_the_next_one_is_read(string ending, int length)
    {
        using TemporaryFolder folder = new();
        string huge = new('x', length);
        string text = ending switch
        {
            "jsonl" => $"{{\"text\": \"one\"}}\n{{\"text\": \"{huge}\"}}\n{{\"text\": \"two\"}}\n",
            "csv" => $"text\none\n{huge}\ntwo\n",
            _ => $"[\n {{\"text\": \"one\"}},\n {{\"text\": \"{huge}\"}},\n {{\"text\": \"two\"}}\n]",
        };
        Write(folder["a." + ending], text);
        foreach (int shardBytes in new[] { 1, 50, 1 << 20 })
        {
            Source source = Source.Open(folder["a." + ending], new() { MaximumRecordBytes = 10_000, ShardBytes = shardBytes });
            (List<string> texts, ReadingReport report) = ReadTexts(source);
            Assert.Equal(["one", "two"], texts);
            Assert.Equal((2, 1), (report.Records, report.Bad));
            Assert.Equal(ending == "csv" ? 3 : 2, report.Problems[0].Row);
            Assert.Contains("longer than 10000 bytes", report.Problems[0].Reason, StringComparison.Ordinal);
            // Going on behind it works too.
            Shard bad = source.Shards().First(s => Count(s).Bad == 1);
            Assert.Equal(texts.TakeLast(source.Shards(bad.End).Sum(s => (int)Count(s).Records)), source.Shards(bad.End).SelectMany(s => s.Texts(new() { Text = "text" }, new())));
        }
    }

    [Fact]
    public void A_huge_line_takes_no_more_memory_than_the_limit()
    {
        using TemporaryFolder folder = new();
        using (FileStream file = File.Create(folder["a.jsonl"]))
        {
            file.Write("{\"text\": \""u8);
            byte[] block = new byte[1 << 20];
            Array.Fill(block, (byte)'x');
            for (int i = 0; i < 64; i++) file.Write(block);
            file.Write("\"}\n{\"text\": \"good\"}"u8);
        }
        long before = GC.GetAllocatedBytesForCurrentThread();
        (List<string> texts, ReadingReport report) = ReadTexts(Source.Open(folder["a.jsonl"], new() { MaximumRecordBytes = 1 << 20 }));
        long allocated = GC.GetAllocatedBytesForCurrentThread() - before;
        Assert.Equal(["good"], texts);
        Assert.Equal((1, 2L), (report.Bad, report.Records + report.Bad));
        Assert.True(allocated < 12 << 20, $"{allocated} bytes");
    }

    [Fact]
    public void A_long_text_document_is_cut_at_line_ends_and_nothing_of_it_is_lost()
    {
        using TemporaryFolder folder = new();
        string[] lines = [.. Enumerable.Range(0, 500).Select(i => $"line {i} é")];
        Write(folder["a.txt"], string.Join('\n', lines) + "\n<|endoftext|>\nshort\n");
        Write(folder["b.txt"], new string('é', 700));
        (List<string> texts, ReadingReport report) = ReadTexts(Source.Open(folder.Path, new() { MaximumRecordBytes = 300 }));
        Assert.Equal(string.Join('\n', lines) + "\nshort\n" + new string('é', 700), string.Join('\n', texts).Replace("é\né", "éé", StringComparison.Ordinal).Replace("é\né", "éé", StringComparison.Ordinal));
        Assert.Equal(texts.Count - 3, report.Cuts);
        Assert.Equal(0, report.Repaired + report.Bad);
        Assert.All(texts, t => Assert.True(Encoding.UTF8.GetByteCount(t) <= 300));
    }

    [Fact]
    public void A_csv_row_with_another_number_of_fields_is_named()
    {
        using TemporaryFolder folder = new();
        Write(folder["a.csv"], "id,text\n1,one\n2,two,three\n3\n\n\"4\",\"four, \"\"quoted\"\"\nline\"\n5,five\n");
        (List<string> texts, ReadingReport report) = ReadTexts(Source.Open(folder["a.csv"]));
        Assert.Equal(["one", "four, \"quoted\"\nline", "five"], texts);
        Assert.Equal([3, 4], report.Problems.Select(p => p.Row!.Value));
        Assert.Contains("the row has 3 fields and the file 2 columns", report.Problems[0].Reason, StringComparison.Ordinal);
    }

    [Fact]
    public void A_quotation_mark_that_never_closes_costs_one_row()
    {
        using TemporaryFolder folder = new();
        Write(folder["a.csv"], "id,text\n1,one\n2,\"two\n3,three\n4,four\n");
        (List<string> texts, ReadingReport report) = ReadTexts(Source.Open(folder["a.csv"]));
        Assert.Equal(["one", "three", "four"], texts);
        Assert.Equal((1, 3), (report.Bad, report.Problems[0].Row));
        Assert.Contains("never closes", report.Problems[0].Reason, StringComparison.Ordinal);
    }

    [Theory]
    [InlineData("{\"text\": \"broken}")]
    [InlineData("{\"text\": [1, 2}")]
    [InlineData("{\"text\": {\"a\": 1}")]
    public void A_bracket_or_mark_that_never_closes_costs_one_element_of_a_json_array(string broken)
    {
        using TemporaryFolder folder = new();
        Write(folder["a.json"], $"[\n  {{\"text\": \"one\"}},\n  {broken},\n  {{\"text\": \"two\"}},\n  {{\"text\": \"three\"}}\n]");
        (List<string> texts, ReadingReport report) = ReadTexts(Source.Open(folder["a.json"]));
        Assert.Equal(["one", "two", "three"], texts);
        Assert.Equal((1, 2), (report.Bad, report.Problems[0].Row));
    }

    [Fact]
    public void A_json_array_that_ends_early_keeps_what_is_whole_and_says_so()
    {
        using TemporaryFolder folder = new();
        string whole = JsonSerializer.Serialize(Enumerable.Range(0, 10).Select(i => new { text = $"text {i}" }));
        Write(folder["a.json"], whole[..^30]);
        Write(folder["b.json"], whole[..^1]);
        (List<string> a, ReadingReport reportA) = ReadTexts(Source.Open(folder["a.json"]));
        Assert.Equal((8, 1, 1), (a.Count, reportA.Bad, reportA.BadFiles));
        (List<string> b, ReadingReport reportB) = ReadTexts(Source.Open(folder["b.json"]));
        Assert.Equal((10, 0, 1), (b.Count, reportB.Bad, reportB.BadFiles));
        Assert.Contains("may end early", Assert.Single(reportB.Problems).Reason, StringComparison.Ordinal);
    }

    [Theory]
    [InlineData("jsonl.gz")]
    [InlineData("jsonl.zst")]
    public void Packed_data_that_ends_early_keeps_what_is_whole_and_says_so(string ending)
    {
        using TemporaryFolder folder = new();
        Random random = new(1);
        string[] texts = [.. Enumerable.Range(0, 2000).Select(_ => RandomText.Next(random, 20) + random.NextDouble())];
        byte[] plain = Encoding.UTF8.GetBytes(string.Concat(texts.Select(t => JsonSerializer.Serialize(new { text = t }) + "\n")));
        byte[] packed = ending.EndsWith("gz", StringComparison.Ordinal) ? Gzip(plain) : Zstandard(plain);
        File.WriteAllBytes(folder["a." + ending], packed[..(packed.Length * 3 / 4)]);
        Write(folder["b.jsonl"], "{\"text\": \"last\"}");
        (List<string> read, ReadingReport report) = ReadTexts(Source.Open(folder.Path));
        if (ending == "jsonl.gz") Assert.InRange(read.Count, 1000, 1999);
        Assert.Equal([.. texts[..(read.Count - 1)], "last"], read);
        Assert.Equal(1, report.BadFiles);
        Assert.Contains(report.Problems, p => p.Row is null && p.File.EndsWith(ending, StringComparison.Ordinal) && p.Reason.Contains("ends early", StringComparison.Ordinal));
    }

    [Theory]
    [InlineData("gz", 6)]
    [InlineData("gz", 1)]
    [InlineData("zst", 1)]
    public void A_checksum_that_does_not_match_costs_no_record_and_is_named(string packing, int fromEnd)
    {
        using TemporaryFolder folder = new();
        byte[] plain = Encoding.UTF8.GetBytes(string.Concat(Enumerable.Range(0, 500).Select(i => $"{(i > 0 ? "\n" : "")}{{\"text\": \"{i}\"}}")));
        using ZstdSharp.Compressor compressor = new();
        compressor.SetParameter(ZstdSharp.Unsafe.ZSTD_cParameter.ZSTD_c_checksumFlag, 1);
        byte[] packed = packing == "gz" ? Gzip(plain) : compressor.Wrap(plain).ToArray();
        packed[^fromEnd] ^= 0x10;
        File.WriteAllBytes(folder["a.jsonl." + packing], packed);
        (List<string> texts, ReadingReport report) = ReadTexts(Source.Open(folder.Path));
        Assert.Equal(Enumerable.Range(0, 500).Select(i => $"{i}"), texts);
        Assert.Equal((1, 0), (report.BadFiles, report.Bad));
    }

    [Fact]
    public void All_that_stands_before_a_damage_in_packed_data_is_read()
    {
        using TemporaryFolder folder = new();
        byte[] first = "{\"text\": \"one\"}\n{\"text\": \"two\"}\n"u8.ToArray(), second = Encoding.UTF8.GetBytes($"{{\"text\": \"{new string('x', 500)}\"}}\n");
        byte[] gzip = Gzip(first, second), zstandard = [.. Zstandard(first), .. Zstandard(second)];
        gzip[Gzip(first).Length + 12] ^= 0xff;
        zstandard[Zstandard(first).Length + 9] ^= 0xff;
        foreach ((string packing, byte[] packed) in (IEnumerable<(string, byte[])>)[("gz", gzip), ("zst", zstandard)])
        {
            File.WriteAllBytes(folder["a.jsonl." + packing], packed);
            (List<string> texts, ReadingReport report) = ReadTexts(Source.Open(folder["a.jsonl." + packing]));
            Assert.Equal(["one", "two"], texts.Take(2));
            Assert.Equal(1, report.BadFiles);
        }
    }

    [Fact]
    public void A_file_in_utf16_is_named()
    {
        using TemporaryFolder folder = new();
        File.WriteAllText(folder["a.jsonl"], "{\"text\": \"one\"}", Encoding.Unicode);
        ReadingReport report = ReadTexts(Source.Open(folder["a.jsonl"])).Report;
        Assert.Contains("UTF-16", Assert.Single(report.Problems).Reason, StringComparison.Ordinal);
        Assert.Contains("UTF-16", Assert.Throws<InvalidDataException>(() => Source.Open(folder["a.jsonl"]).Columns()).Message, StringComparison.Ordinal);
    }

    [Fact]
    public void Counts_of_parts_add_up_and_the_first_problems_stay_in_order()
    {
        using TemporaryFolder folder = new();
        Write(folder["a.jsonl"], string.Concat(Enumerable.Range(1, 90).Select(i => i % 3 == 0 ? "broken\n" : $"{{\"text\": \"{i}\"}}\n")));
        Source source = Source.Open(folder["a.jsonl"], new() { ShardBytes = 40 });
        ReadingReport total = new();
        foreach (Shard shard in source.Shards()) total.Add(Count(shard));
        Assert.Equal((60, 30), (total.Records, total.Bad));
        Assert.Equal(Enumerable.Range(1, ReadingReport.KeptProblems).Select(i => i * 3L), total.Problems.Select(p => p.Row!.Value));
        ReadingReport copy = JsonSerializer.Deserialize<ReadingReport>(JsonSerializer.Serialize(total))!;
        Assert.Equal(total.ToString(), copy.ToString());
        Assert.Equal(new FileInfo(folder["a.jsonl"]).Length, copy.Bytes);
    }

    private static ReadingReport Count(Shard shard)
    {
        ReadingReport report = new();
        _ = shard.Texts(new() { Text = "text" }, report).Count();
        return report;
    }
}
