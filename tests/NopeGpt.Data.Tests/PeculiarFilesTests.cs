using System.Text;
using NopeGpt.Data.Documents;
using NopeGpt.Tests;
using ZstdSharp;
using static NopeGpt.Data.Tests.SourceFiles;
using Record = NopeGpt.Data.Documents.Record;

namespace NopeGpt.Data.Tests;

/// <summary>Files as other programs write them, a little off the usual form.</summary>
public sealed class PeculiarFilesTests : IDisposable
{
    private const string Rows = """[{"text": "one", "more": [{"role": "x"}]}, {"text": "two ]}"}, {"text": "three"}]""";
    private readonly TemporaryFolder _folder = new();

    public void Dispose() => _folder.Dispose();

    [Theory]
    [InlineData("""{"data": @}""")]
    [InlineData("""{"articles": @}""")]
    [InlineData("""{"version": "1.1 \" [{", "data": @, "count": 3, "tags": ["a", "b"]}""")]
    [InlineData("""{"meta": {"data": [{"text": "not this"}]}, "Rows": @ } """)]
    public void A_json_file_may_be_an_object_around_a_list_of_records(string file)
    {
        foreach (string ending in (string[])["json", "json.gz", "json.zst"])
        {
            string path = Write(_folder["a." + ending], "\ufeff \n" + file.Replace("@", Rows, StringComparison.Ordinal));
            foreach (int shard in (int[])[1, 1 << 20])
            {
                Source source = Source.Open(path, new() { ShardBytes = shard });
                (List<Record> records, ReadingReport report) = Read(source);
                Assert.Equal(["one", "two ]}", "three"], records.Select(record => record.Text("text")));
                Assert.Equal([1, 2, 3], records.Select(record => record.Row));
                Assert.False(report.HasProblems, report.ToString());
                Assert.Equal(["text", "more"], source.Columns());
                ShardPosition second = source.Shards().First().End;
                Assert.Equal(shard == 1 ? ["two ]}", "three"] : [], source.Shards(second).SelectMany(part => part.Texts(new() { Text = "text" }, new())));
            }
        }
    }

    [Theory]
    [InlineData("""{"messages": [{"role": "user", "content": "a"}]}""", 1)]
    [InlineData("""{"data": [{"from": "human", "value": "a"}]}""", 1)]
    [InlineData("""{"text": "one", "entities": [{"start": 0}]}""", 1)]
    [InlineData("""{"train": [{"text": "a"}], "test": [{"text": "b"}]}""", 1)]
    [InlineData("""{"data": [1, 2]}""", 1)]
    [InlineData("""{"data": []}""", 1)]
    [InlineData("{\"data\": [{\"text\": \"a\"}]}\n{\"data\": [{\"text\": \"b\"}]}", 2)]
    public void Other_objects_are_records_themselves(string file, int records)
    {
        (List<Record> read, ReadingReport report) = Read(Source.Open(Write(_folder["a.json"], file)));
        Assert.Equal(records, read.Count);
        Assert.DoesNotContain("start", read[0].Names);
        Assert.False(report.HasProblems, report.ToString());
    }

    [Fact]
    public void An_object_around_records_that_ends_early_keeps_those_that_are_whole()
    {
        string file = $"{{\"data\": {Rows}, \"count\": 3}}";
        File.WriteAllText(_folder["a.json"], file[..file.IndexOf("three", StringComparison.Ordinal)]);
        (List<Record> records, ReadingReport report) = Read(Source.Open(_folder["a.json"]));
        Assert.Equal(["one", "two ]}"], records.Select(record => record.Text("text")));
        Assert.Equal((1, 1), (report.Bad, report.BadFiles));
        // The end of the packed data, which its checksum is in, lies behind the list.
        byte[] packed = Gzip(Encoding.UTF8.GetBytes(file));
        packed[^6] ^= 1;
        File.WriteAllBytes(_folder["b.json.gz"], packed);
        (records, report) = Read(Source.Open(_folder["b.json.gz"]));
        Assert.Equal((3, 1), (records.Count, report.BadFiles));
    }

    [Fact]
    public void Numbers_that_Python_writes_and_JSON_does_not_have_are_nothing()
    {
        Write(_folder["a.jsonl"], "{\"a\": NaN, \"text\": \"NaN \\\" -Infinity\", \"b\": [Infinity, -Infinity, 1]}\n{\"text\": NaNa}\n");
        (List<Record> records, ReadingReport report) = Read(Source.Open(_folder["a.jsonl"]));
        Record record = Assert.Single(records);
        Assert.Equal("NaN \" -Infinity", record.Text("text"));
        Assert.True(record["a"].IsNull);
        Assert.Equal("[null, null, 1]", record["b"].ToString());
        Assert.Equal(1, report.Bad);
    }

    [Fact]
    public void Zstandard_may_begin_with_a_frame_to_skip_and_have_a_large_window()
    {
        byte[] frame = Zstandard("{\"text\": \"one\"}\n"u8.ToArray());
        File.WriteAllBytes(_folder["a.jsonl.zst"], [0x5d, 0x2a, 0x4d, 0x18, 3, 0, 0, 0, 1, 2, 3, .. frame]);
        using MemoryStream streamed = new();
        using (CompressionStream compression = new(streamed, leaveOpen: true)) compression.Write("{\"text\": \"two\"}\n"u8);
        byte[] large = streamed.ToArray();
        // RFC 8878, 3.1.1.1: without a size in the header the fifth byte is the window, here of 2^30 bytes.
        Assert.Equal(0, large[4] & 0x20);
        large[5] = (30 - 10) << 3;
        File.WriteAllBytes(_folder["b.jsonl.zst"], large);
        (List<string> texts, ReadingReport report) = ReadTexts(Source.Open(_folder.Path));
        Assert.Equal(["one", "two"], texts);
        Assert.False(report.HasProblems, report.ToString());
    }

    [Theory]
    [InlineData("jsonl", "{\"title\": \"a\", \"txet\": \"b\"}\n{\"text\": null}\n{\"text\": \"c\"}\n[1]\n", "row 1: there is no column \"text\" but \"title\", \"txet\"; change")]
    [InlineData("jsonl", "{\"Texts\": \"a\"}\n\"c\"\n", "row 1: there is no column \"text\" but \"Texts\"; did you mean \"Texts\"?")]
    [InlineData("csv", "id,test\n1,b\n", "there is no column \"text\" but \"id\", \"test\"; did you mean \"test\"?")]
    public void A_wrong_column_is_named_with_those_that_are_there_and_the_nearest(string ending, string file, string problem)
    {
        (List<string> texts, ReadingReport report) = ReadTexts(Source.Open(Write(_folder["a." + ending], file)));
        Assert.Equal(ending == "csv" ? [] : ["c"], texts);
        Assert.Contains(problem, report.Problems[0].ToString(), StringComparison.Ordinal);
        Assert.Equal(ending == "csv" ? (0, 1) : file.Contains("null", StringComparison.Ordinal) ? (3, 0) : (1, 0), (report.Bad, report.BadFiles));
    }

    [Fact]
    public void Links_to_folders_are_followed_and_those_that_lead_in_a_circle_are_not()
    {
        using TemporaryFolder other = new();
        Directory.CreateDirectory(other["deep"]);
        Write(other["deep/b.txt"], "b");
        Directory.CreateSymbolicLink(other["deep/up"], other.Path);
        Directory.CreateDirectory(_folder["sub"]);
        Write(_folder["a.txt"], "a");
        Directory.CreateSymbolicLink(_folder["other"], other.Path);
        Directory.CreateSymbolicLink(_folder["sub/circle"], _folder.Path);
        Directory.CreateSymbolicLink(_folder["sub/broken"], _folder["nothing"]);
        Assert.Equal(["a", "b"], ReadTexts(Source.Open(_folder.Path)).Texts);
        Assert.Equal(["b"], ReadTexts(Source.Open(_folder["other/*/*.txt"])).Texts);
    }
}
