using System.Text;
using System.Text.Json;
using NopeGpt.Data.Documents;
using NopeGpt.Tests;
using Sylvan.Data.Csv;
using static NopeGpt.Data.Tests.SourceFiles;
using Record = NopeGpt.Data.Documents.Record;

namespace NopeGpt.Data.Tests;

public sealed class SourceTests
{
    private static readonly string[] _texts = ["one", "two\nlines, \"quoted\"; and\ttabs", "été 😀", "{\"not\": \"json\"} [1, 2]", "ends in a backslash \\"];

    private static readonly JsonSerializerOptions _pretty = new() { WriteIndented = true };

    public static TheoryData<string> Endings
    {
        get
        {
            TheoryData<string> all = [];
            foreach (string ending in new[] { "txt", "jsonl", "ndjson", "json", "csv", "tsv" })
                foreach (string packing in new[] { "", ".gz", ".zst" }) all.Add(ending + packing);
            return all;
        }
    }

    [Theory]
    [MemberData(nameof(Endings))]
    public void Documents_come_back_as_written_from_every_format_plain_and_packed(string ending)
    {
        using TemporaryFolder folder = new();
        Source source = Source.Open(Write(folder["a." + ending], Format(ending, _texts)));
        (List<string> texts, ReadingReport report) = ReadTexts(source);
        Assert.Equal(_texts, texts);
        Assert.Equal(_texts.Length, report.Records);
        Assert.False(report.HasProblems, report.ToString());
        Assert.Contains("text", source.Columns());
    }

    [Theory]
    [MemberData(nameof(Endings))]
    public void Byte_order_marks_and_carriage_returns_do_not_matter(string ending)
    {
        using TemporaryFolder folder = new();
        string[] texts = ["one", "two", "three é"];
        Source source = Source.Open(Write(folder["a." + ending], "\ufeff" + Format(ending, texts).Replace("\n", "\r\n", StringComparison.Ordinal)));
        Assert.Equal(texts, ReadTexts(source).Texts);
    }

    [Fact]
    public void A_gz_file_of_several_members_is_read_to_its_end()
    {
        using TemporaryFolder folder = new();
        File.WriteAllBytes(folder["a.jsonl.gz"], Gzip("{\"text\": \"one\"}\n{\"te"u8.ToArray(), "xt\": \"two\"}\n"u8.ToArray(), "{\"text\": \"three\"}"u8.ToArray()));
        Assert.Equal(["one", "two", "three"], ReadTexts(Source.Open(folder["a.jsonl.gz"])).Texts);
    }

    [Fact]
    public void A_zst_file_of_several_frames_is_read_to_its_end()
    {
        using TemporaryFolder folder = new();
        File.WriteAllBytes(folder["a.jsonl.zst"], [.. Zstandard("{\"text\": \"one\"}\n{\"te"u8.ToArray()), .. Zstandard("xt\": \"two\"}\n"u8.ToArray())]);
        Assert.Equal(["one", "two"], ReadTexts(Source.Open(folder["a.jsonl.zst"])).Texts);
    }

    [Fact]
    public void What_a_file_is_packed_with_shows_in_its_bytes_whatever_its_name()
    {
        using TemporaryFolder folder = new();
        File.WriteAllBytes(folder["a.jsonl"], Gzip("{\"text\": \"one\"}"u8.ToArray()));
        File.WriteAllText(folder["b.jsonl.gz"], "{\"text\": \"two\"}");
        Assert.Equal(["one", "two"], ReadTexts(Source.Open(folder.Path)).Texts);
    }

    [Fact]
    public void A_folder_means_all_its_files_in_the_order_of_their_paths_but_not_hidden_ones()
    {
        using TemporaryFolder folder = new();
        Directory.CreateDirectory(folder["sub/deep"]);
        Directory.CreateDirectory(folder[".git"]);
        Write(folder["b.txt"], "b");
        Write(folder["sub/c.jsonl"], "{\"text\": \"c\"}");
        Write(folder["sub/deep/d.csv"], "text\nd\n");
        Write(folder["a.json.gz"], "[{\"text\": \"a\"}]");
        Write(folder["README.md"], "not data");
        Write(folder[".hidden.txt"], "hidden");
        Write(folder[".git/e.txt"], "hidden");
        File.CreateSymbolicLink(folder["z.txt"], folder["b.txt"]);
        Directory.CreateSymbolicLink(folder["circle"], folder.Path);
        Assert.Equal(["a", "b", "c", "d", "b"], ReadTexts(Source.Open(folder.Path)).Texts);
    }

    [Theory]
    [InlineData("*.txt", "a,b")]
    [InlineData("*", "a,b")]
    [InlineData("?.txt", "a,b")]
    [InlineData("**/*.txt", "a,b,w,x,y")]
    [InlineData("one/*.txt", "x,y")]
    [InlineData("*/*.txt", "x,y")]
    [InlineData("**/deep/*", "w")]
    [InlineData("one/[x]*.txt", "x")]
    public void A_pattern_means_the_files_that_match(string pattern, string expected)
    {
        using TemporaryFolder folder = new();
        Directory.CreateDirectory(folder["one/deep"]);
        foreach (string name in new[] { "a", "b", "one/x", "one/y", "one/deep/w" }) Write(folder[name + ".txt"], Path.GetFileName(name));
        if (pattern.Contains('[', StringComparison.Ordinal)) Write(folder["one/[x]1.txt"], "x");
        Assert.Equal(expected.Split(','), ReadTexts(Source.Open(folder[pattern])).Texts);
    }

    [Fact]
    public void What_is_not_there_is_named()
    {
        using TemporaryFolder folder = new();
        Write(folder["a.md"], "x");
        Assert.Contains("none.txt does not exist", Assert.Throws<FileNotFoundException>(() => Source.Open(folder["none.txt"])).Message, StringComparison.Ordinal);
        Assert.Contains("holds no file that ends in .txt", Assert.Throws<FileNotFoundException>(() => Source.Open(folder.Path)).Message, StringComparison.Ordinal);
        Assert.Contains("No file matches", Assert.Throws<FileNotFoundException>(() => Source.Open(folder["*.jsonl"])).Message, StringComparison.Ordinal);
        Assert.Contains("must end in .txt", Assert.Throws<ArgumentException>(() => Source.Open(folder["a.md"])).Message, StringComparison.Ordinal);
    }

    [Fact]
    public void Json_keeps_every_kind_of_value_and_columns_that_nobody_asked_for_are_not_parsed()
    {
        using TemporaryFolder folder = new();
        Write(folder["a.jsonl"], "{\"n\": 5, \"x\": 1.5, \"big\": 123456789012345678901234567890, \"t\": true, \"none\": null, \"list\": [1, \"a\", {\"k\": []}], \"s\": \"a\\u00e9\\n\"}");
        Record record = Assert.Single(Read(Source.Open(folder["a.jsonl"])).Records);
        Assert.Equal((5L, 1.5, true), (record["n"].AsWhole, record["x"].AsNumber, record["t"].AsBoolean));
        Assert.Equal(123456789012345678901234567890.0, record["big"].AsNumber);
        Assert.True(record["none"].IsNull && record["absent"].IsNull);
        Assert.Equal("[1, a, {k: []}]", record["list"].ToString());
        Assert.Equal("aé\n", record.Text("s"));
        Record two = Assert.Single(Read(Source.Open(folder["a.jsonl"], new() { Columns = ["s", "n"] })).Records);
        Assert.Equal(["s", "n"], two.Names);
        Assert.Equal(record["s"], two["s"]);
    }

    [Fact]
    public void Json_arrays_may_be_pretty_or_dense_and_records_may_follow_each_other_without_one()
    {
        using TemporaryFolder folder = new();
        object[] rows = [.. _texts.Select(t => new { text = t, more = new { list = new[] { 1, 2 }, t } })];
        Write(folder["dense.json"], JsonSerializer.Serialize(rows));
        Write(folder["pretty.json"], "\n" + JsonSerializer.Serialize(rows, _pretty) + "\n\n");
        Write(folder["one.json"], JsonSerializer.Serialize(rows[0]));
        Write(folder["several.json"], string.Join("\n", rows.Select(r => JsonSerializer.Serialize(r, _pretty))));
        Write(folder["empty.json"], " [ ] ");
        foreach (string name in new[] { "dense", "pretty", "several" })
        {
            (List<Record> records, ReadingReport report) = Read(Source.Open(folder[name + ".json"]));
            Assert.Equal(_texts, records.Select(r => r.Text("text")));
            Assert.Equal([1, 2, 3, 4, 5], records.Select(r => r.Row));
            Assert.False(report.HasProblems, report.ToString());
        }
        Assert.Equal("one", Assert.Single(Read(Source.Open(folder["one.json"])).Records).Text("text"));
        Assert.Empty(Read(Source.Open(folder["empty.json"])).Records);
    }

    [Fact]
    public void A_line_that_is_a_list_is_a_record_with_messages_and_one_that_is_a_text_is_a_document()
    {
        using TemporaryFolder folder = new();
        Write(folder["a.jsonl"], "[{\"role\": \"user\", \"content\": \"hi\"}]\n\"just text\"\n");
        List<Record> records = Read(Source.Open(folder["a.jsonl"])).Records;
        Assert.Equal("hi", records[0]["messages"].AsList![0].AsRecord!.Text("content"));
        Assert.Equal("just text", records[1].Text("text"));
    }

    [Fact]
    public void Csv_is_read_as_another_library_reads_it()
    {
        const int seed = 5;
        Random random = new(seed);
        using TemporaryFolder folder = new();
        for (int round = 0; round < 60; round++)
        {
            char separator = ",;\t|"[round % 4];
            string[][] rows = [.. Enumerable.Range(0, 40).Select(_ => (string[])[.. Enumerable.Range(0, 3).Select(_ => Cell(random, separator))])];
            string path = Write(folder["a.csv"], string.Join(round % 2 == 0 ? "\n" : "\r\n", rows.Prepend(["id", "text", "other"]).Select(r => string.Join(separator, r.Select(c => Quote(c, separator))))) + (round % 3 == 0 ? "\n" : ""));
            using StreamReader reader = new(path);
            using CsvDataReader oracle = CsvDataReader.Create(reader, new CsvDataReaderOptions { Delimiter = separator, BufferSize = 1 << 20 });
            List<string> expected = [];
            while (oracle.Read()) expected.AddRange([oracle.GetString(0), oracle.GetString(1), oracle.GetString(2)]);
            (List<Record> records, ReadingReport report) = Read(Source.Open(path, new() { ShardBytes = 50 }));
            Assert.Equal(expected, records.SelectMany(r => r.Values.Select(v => v.AsText!)));
            Assert.Equal(rows.SelectMany(r => r), records.SelectMany(r => r.Values.Select(v => v.AsText!)));
            Assert.False(report.HasProblems, $"seed {seed}, round {round}: {report}");
        }
    }

    [Theory]
    [InlineData("jsonl")]
    [InlineData("jsonl.gz")]
    [InlineData("json")]
    [InlineData("csv")]
    [InlineData("txt")]
    [InlineData("txt.zst")]
    public void Reading_goes_on_at_the_end_of_any_shard_and_shards_do_not_depend_on_it(string ending)
    {
        using TemporaryFolder folder = new();
        Random random = new(3);
        string[] texts = [.. Enumerable.Range(0, 300).Select(i => $"{i} " + new string('x', random.Next(200)) + (i % 9 == 0 ? "\nanother line" : ""))];
        Write(folder["a." + ending], Format(ending, texts[..200]));
        Write(folder["b." + ending], Format(ending, texts[200..]));
        Source source = Source.Open(folder.Path, new() { ShardBytes = 700 });
        List<Shard> shards = [.. source.Shards()];
        Assert.InRange(shards.Count, 30, 100);
        Assert.Equal(Enumerable.Range(1, shards.Count).Select(i => (long)i), shards.Select(s => s.End.Shard));
        Assert.True(shards.Zip(shards.Skip(1)).All(p => p.First.Fraction <= p.Second.Fraction && p.First.End.Shard == p.Second.Start.Shard));
        for (int from = 0; from < shards.Count; from += 7)
        {
            List<Shard> rest = [.. source.Shards(shards[from].End)];
            Assert.Equal(shards.Skip(from + 1).Select(s => (s.Start, s.End)), rest.Select(s => (s.Start, s.End)));
            Assert.Equal(Rows(shards.Skip(from + 1)), Rows(rest));
        }
        Assert.Equal(texts, shards.SelectMany(s => s.Texts(new() { Text = "text" }, new())));
    }

    [Fact]
    public async Task Shards_of_parquet_are_row_groups_and_several_threads_read_them_at_once()
    {
        using TemporaryFolder folder = new();
        string[] texts = [.. Enumerable.Range(0, 3000).Select(i => $"text {i} " + new string('y', i % 100))];
        await TextsAsync(folder["a.parquet"], texts[..2000], 100);
        await TextsAsync(folder["b.parquet"], texts[2000..], 100);
        Source source = Source.Open(folder.Path, new() { ShardBytes = 20_000 });
        List<Shard> shards = [.. source.Shards()];
        Assert.InRange(shards.Count, 8, 29);
        ReadingReport[] reports = [.. shards.Select(_ => new ReadingReport())];
        string[][] read = [.. shards.AsParallel().AsOrdered().WithDegreeOfParallelism(4).Select((s, i) => s.Texts(new() { Text = "text" }, reports[i]).ToArray())];
        Assert.Equal(texts, read.SelectMany(t => t));
        ReadingReport total = new();
        foreach (ReadingReport report in reports) total.Add(report);
        Assert.Equal(3000, total.Records);
        Assert.Equal(texts[2000..], source.Shards(shards.Last(s => s.End.File == 0).End).SelectMany(s => s.Texts(new() { Text = "text" }, new())));
    }

    [Fact]
    public void The_fingerprint_changes_when_a_file_does()
    {
        using TemporaryFolder folder = new();
        Write(folder["a.txt"], "one");
        string before = Source.Open(folder.Path).Fingerprint;
        Assert.Equal(before, Source.Open(folder.Path).Fingerprint);
        File.SetLastWriteTimeUtc(Write(folder["a.txt"], "two"), DateTime.UtcNow.AddSeconds(5));
        Assert.NotEqual(before, Source.Open(folder.Path).Fingerprint);
    }

    [NeedsTheory(Needs.SharedData)]
    [InlineData("instruct/alpaca-1k.json", 999, DatasetKind.Chat, "prompt=instruction,input=input,completion=output")]
    [InlineData("instruct/identity-conversations.jsonl", 996, DatasetKind.Chat, "messages=messages")]
    [InlineData("instruct/schema-guided-dialogue-train.jsonl.gz", 12174, DatasetKind.Chat, "messages=messages")]
    [InlineData("instruct/hh-rlhf-harmless-base-test.jsonl.gz", 2312, DatasetKind.Preference, "chosen=chosen,rejected=rejected")]
    [InlineData("instruct/instruction-preference-1k.json", 1100, DatasetKind.Preference, "prompt=instruction,input=input,chosen=chosen,rejected=rejected")]
    [InlineData("instruct/preference-300.json", 300, DatasetKind.Preference, "messages=conversations,chosen=chosen,rejected=rejected")]
    [InlineData("pretrain/openstax-ccby.jsonl.gz", 1382, DatasetKind.Text, "text=text")]
    public void Real_files_are_read_whole_and_their_columns_are_recognised(string file, int records, DatasetKind kind, string columns)
    {
        Source source = Source.Open(Needs.Data(file));
        ColumnMapping mapping = ColumnMapping.Guess(source.Columns());
        Assert.Equal((kind, columns), (mapping.Kind, mapping.ToString()));
        (List<Record> read, ReadingReport report) = Read(source.Select(mapping));
        Assert.Equal(records, read.Count);
        Assert.False(report.HasProblems, report.ToString());
        Assert.All(read, r => Assert.Contains(r.Values, v => !v.IsNull));
    }

    private static string Format(string ending, IReadOnlyList<string> texts) => ending.Split('.')[0] switch
    {
        "txt" => string.Join("\n<|endoftext|>\n", texts) + "\n",
        "json" => "[\n" + string.Join(",\n", texts.Select(t => "  " + JsonSerializer.Serialize(new { id = 1, text = t }))) + "\n]\n",
        "csv" => "id,text\n" + string.Concat(texts.Select((t, i) => $"{i},{Quote(t, ',')}\n")),
        "tsv" => "id\ttext\n" + string.Concat(texts.Select((t, i) => $"{i}\t{Quote(t, '\t')}\n")),
        _ => string.Concat(texts.Select(t => JsonSerializer.Serialize(new { id = 1, text = t }) + "\n")),
    };

    private static string Quote(string cell, char separator) =>
        cell.AsSpan().ContainsAny(['"', '\n', '\r', separator]) ? $"\"{cell.Replace("\"", "\"\"", StringComparison.Ordinal)}\"" : cell;

    private static string Cell(Random random, char separator)
    {
        StringBuilder cell = new("x");
        for (int parts = random.Next(6); parts > 0; parts--)
            cell.Append(random.Next(8) switch { 0 => "\"", 1 => "\n", 2 => "\r\n", 3 => separator.ToString(), 4 => "é😀", 5 => " ", _ => "word" });
        return cell.ToString();
    }

    private static List<(string, long, string)> Rows(IEnumerable<Shard> shards) => [.. shards.SelectMany(s => s.Records(new())).Select(r => (r.File, r.Row, r.ToString() + r["text"]))];
}
