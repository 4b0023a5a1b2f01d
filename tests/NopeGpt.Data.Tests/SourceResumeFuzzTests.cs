using System.Text;
using NopeGpt.Data.Documents;
using NopeGpt.Tests;
using Xunit.Abstractions;
using static NopeGpt.Data.Tests.SourceFiles;
using Record = NopeGpt.Data.Documents.Record;

namespace NopeGpt.Data.Tests;

/// <summary>Files of every text format, whole and damaged, plain and packed: wherever reading is taken up again, the rest is the same, its counts included.</summary>
public sealed class SourceResumeFuzzTests(ITestOutputHelper output)
{
    private const int Files = 1500;
    private static readonly string[] _endings = ["jsonl", "json", "csv", "tsv", "txt"];
    private static readonly string[] _parts = ["a", "bb", "ünï", "😀", "\\\"", "{", "}", "[", "]", ",", "text", " ", "\\n", "'"];

    [Fact]
    public void Reading_goes_on_at_any_shard_of_any_file_with_the_same_records_and_counts()
    {
        int first = Environment.TickCount & 0xffffff;
        output.WriteLine($"seeds from {first}");
        using TemporaryFolder folder = TemporaryFolder.InMemory();
        // These began with a place behind a damaged end, with a header alone, and with more white space than a record may have.
        foreach (int seed in (int[])[5, 143, 9995, 14252, .. Enumerable.Range(first, Files)])
        {
            Random random = new(seed);
            string ending = _endings[random.Next(_endings.Length)];
            Source source = Damaged(random, folder, ending);
            List<(ShardPosition Start, ShardPosition End, string Content)> shards = [.. source.Shards().Select(Shown)];
            for (int i = 0; i < shards.Count; i++)
            {
                Assert.True(i == 0 || shards[i].Start == shards[i - 1].End, $"seed {seed} ({ending}): shard {i} does not follow the one before");
                Assert.True(shards.Skip(i).SequenceEqual(source.Shards(shards[i].Start).Select(Shown)), $"seed {seed} ({ending}): going on at shard {i} of {shards.Count} differs");
            }
            if (shards.Count > 0) Assert.False(source.Shards(shards[^1].End).Any(), $"seed {seed} ({ending}): there is more behind the last shard");
        }
    }

    [Fact]
    public void The_size_of_shards_changes_no_record_and_no_count()
    {
        int first = Environment.TickCount & 0xffffff;
        output.WriteLine($"seeds from {first}");
        using TemporaryFolder folder = TemporaryFolder.InMemory();
        foreach (int seed in Enumerable.Range(first, Files))
        {
            Random random = new(seed);
            string ending = _endings[random.Next(_endings.Length)];
            Source small = Damaged(random, folder, ending, out SourceOptions options), whole = new(small.Name, small.Files, options with { ShardBytes = 1 << 20 });
            (List<Record> records, ReadingReport report) = Read(small);
            (List<Record> expected, ReadingReport counts) = Read(whole);
            Assert.True(expected.Select(Shown).SequenceEqual(records.Select(Shown)), $"seed {seed} ({ending}): other records");
            Assert.True(counts.ToString() == report.ToString(), $"seed {seed} ({ending}): {report} instead of {counts}");
        }
    }

    private static (ShardPosition Start, ShardPosition End, string Content) Shown(Shard shard)
    {
        ReadingReport report = new();
        string records = string.Join(';', shard.Records(report).Select(Shown));
        return (shard.Start, shard.End, $"{records} {report} {report.Bytes}");
    }

    private static string Shown(Record record) => $"{record.Row}: {string.Join('|', record.Values)}";

    private static Source Damaged(Random random, TemporaryFolder folder, string ending) => Damaged(random, folder, ending, out _);

    /// <summary>A file of which every third or so is damaged in some bytes or cut.</summary>
    private static Source Damaged(Random random, TemporaryFolder folder, string ending, out SourceOptions options)
    {
        byte[] data = Encoding.UTF8.GetBytes(Content(random, ending));
        int packing = random.Next(3), half = random.Next(3) == 0 ? random.Next(data.Length + 1) : data.Length;
        byte[] stored = packing switch { 1 => Gzip(data[..half], data[half..]), 2 => [.. Zstandard(data[..half]), .. half < data.Length ? Zstandard(data[half..]) : []], _ => data };
        if (random.Next(4) == 0)
            for (int n = random.Next(1, 4); n > 0 && stored.Length > 0; n--) stored[random.Next(stored.Length)] = (byte)random.Next(256);
        if (random.Next(6) == 0) stored = stored[..random.Next(stored.Length + 1)];
        string path = folder[$"a.{ending}{(packing == 1 ? ".gz" : packing == 2 ? ".zst" : "")}"];
        File.WriteAllBytes(path, stored);
        options = new()
        {
            MaximumRecordBytes = random.Next(3) == 0 ? random.Next(1, 60) : 1 << 16,
            ShardBytes = random.Next(3) == 0 ? 1 : random.Next(1, 400),
            Columns = random.Next(3) == 0 ? ["text"] : null,
        };
        return Source.Open(path, options);
    }

    private static string Content(Random random, string ending)
    {
        StringBuilder text = new(random.Next(8) == 0 ? "\ufeff" : "");
        string line = random.Next(3) == 0 ? "\r\n" : "\n";
        int count = random.Next(9);
        switch (ending)
        {
            case "jsonl":
                for (int i = 0; i < count; i++) text.Append(random.Next(8) == 0 ? " " : "").Append(Json(random)).Append(line).Append(random.Next(6) == 0 ? line : "");
                break;
            case "json":
                bool array = random.Next(3) > 0;
                text.Append(random.Next(8) == 0 ? "      " : "").Append(array ? "[" + line : "");
                for (int i = 0; i < count; i++) text.Append("   "[..random.Next(3)]).Append(Json(random)).Append(array && i < count - 1 ? "," : "").Append(random.Next(3) == 0 ? " " : line);
                text.Append(array ? "]" : "").Append(random.Next(2) == 0 ? line : "");
                break;
            case "txt":
                for (int i = 0; i < count; i++) text.Append(random.Next(5) == 0 ? "" : Words(random) + line + Words(random)).Append(random.Next(6) == 0 ? "" : line).Append("<|endoftext|>").Append(random.Next(8) == 0 ? "x" : "").Append(line);
                text.Append(random.Next(2) == 0 ? "" : Words(random));
                break;
            default:
                char separator = ending == "tsv" ? '\t' : ",;"[random.Next(2)];
                text.Append($"id{separator}text{separator}more{line}");
                for (int i = 0; i < count; i++) text.Append(string.Join(separator, Enumerable.Range(0, random.Next(12) == 0 ? 2 : 3).Select(_ => Field(random, separator, line)))).Append(i < count - 1 || random.Next(2) == 0 ? line : "");
                break;
        }
        return text.ToString();
    }

    private static string Json(Random random) => random.Next(10) switch
    {
        0 => $"[\"{Words(random)}\", {{\"role\": \"x\"}}]",
        1 => $"\"{Words(random)}\"",
        2 => "12",
        _ => $"{{\"id\": {random.Next(100)}, \"text\": \"{Words(random)}\", \"list\": [1, {{\"q\": \"]\"}}]}}",
    };

    private static string Field(Random random, char separator, string line) => random.Next(4) switch
    {
        0 => $"\"a {separator} \"\"q\"\" {(random.Next(2) == 0 ? line : "")}b\"",
        1 => "",
        2 => "x\"y",
        _ => $"w{random.Next(99)}",
    };

    private static string Words(Random random) => string.Concat(Enumerable.Range(0, random.Next(12)).Select(_ => _parts[random.Next(_parts.Length)]));
}
