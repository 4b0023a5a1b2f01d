using System.Diagnostics;
using System.Text;
using NopeGpt.Data.Documents;
using NopeGpt.Tests;
using Parquet;
using static NopeGpt.Data.Tests.SourceFiles;

namespace NopeGpt.Data.Tests;

/// <summary>Damaged files give records or counted problems; never another exception, a hang or a large allocation.</summary>
public sealed class SourceFuzzTests
{
    private const int Seed = 20_261;
    private const long MostAllocated = 64 << 20;
    private static readonly TimeSpan _longest = TimeSpan.FromSeconds(5);

    [Fact]
    public void Ten_thousand_mutated_jsonl_files() => Mutate(10_000, "jsonl", [Encoding.UTF8.GetBytes(string.Concat(Enumerable.Range(0, 12).Select(i => $"{{\"id\": {i}, \"text\": \"té\\u00e9xt \\ud83d\\ude00 {i}\", \"list\": [1, {{\"a\": null}}, true]}}\n"))), Forms()]);

    /// <summary>Lines with the text in every place and way in which JSON can have it.</summary>
    private static byte[] Forms() => Encoding.UTF8.GetBytes("""
        {"text":"plain", "n": -1.5e3}
         { "a" : { "text" : "inner" } , "text" : "tab\tquote\"slash\/back\\\u0041\ud83d\ude00\n" }
        {"text": "first", "text": "l\u00e4st"}
        {"\u0074ext": "named with an escape"}
        {"text": ["no text"], "b": "\u00"}
        {"text": "half \ud83d of one", "more": "\b\f\r"}
        {"text": "", "x": [[[1]]], "y": {}}
        ["text"]
        "text"
        {"text": 12}
        """ + "\n");

    [Fact]
    public void Mutated_files_of_the_other_text_formats()
    {
        Mutate(1500, "json", ["[\n {\"text\": \"one\", \"n\": [1, 2]},\n {\"text\": \"two\"},\n {\"text\": \"three \\\" x\"}\n]"u8.ToArray()]);
        Mutate(1500, "csv", ["id,text,more\n1,one,\n2,\"two\nlines\",x\n3,\"a \"\"b\"\"\",y\n"u8.ToArray()]);
        Mutate(1000, "txt", ["one\n<|endoftext|>\ntwo \r\n<|endoftext|>\r\nthree"u8.ToArray()]);
        Mutate(1000, "jsonl.gz", [Gzip("{\"text\": \"one\"}\n{\"text\": \"two\"}\n"u8.ToArray())]);
        Mutate(1000, "jsonl.zst", [Zstandard("{\"text\": \"one\"}\n{\"text\": \"two\"}\n"u8.ToArray())]);
    }

    [Fact]
    public async Task Ten_thousand_mutated_parquet_files()
    {
        using TemporaryFolder folder = TemporaryFolder.InMemory();
        string?[] texts = [.. Enumerable.Range(0, 60).Select(i => i % 9 == 0 ? null : i % 4 == 0 ? "again" : $"text number {i} " + new string('z', i))];
        List<byte[]> files = [];
        foreach ((CompressionMethod codec, EncodingHint hint) in new[] { (CompressionMethod.None, EncodingHint.Default), (CompressionMethod.None, EncodingHint.Dictionary), (CompressionMethod.Snappy, EncodingHint.Default), (CompressionMethod.Zstd, EncodingHint.Dictionary), (CompressionMethod.Gzip, EncodingHint.Default), (CompressionMethod.Lz4Raw, EncodingHint.Default) })
            files.Add(await File.ReadAllBytesAsync(await TextsAsync(folder["seed.parquet"], texts, 25, codec, encoding: hint)));
        ChatRow[] rows = [.. Enumerable.Range(0, 40).Select(i => new ChatRow { source = "s", id = i, score = i, messages = [.. Enumerable.Range(0, i % 4).Select(t => new ChatTurn { role = "user", content = $"turn {t}" })] })];
        files.Add(await File.ReadAllBytesAsync(await RowsAsync(folder["seed.parquet"], rows, 20, CompressionMethod.None)));
        files.Add(await File.ReadAllBytesAsync(await RowsAsync(folder["seed.parquet"], rows, 20)));
        Mutate(10_000, "parquet", files);
    }

    private static void Mutate(int count, string ending, List<byte[]> seeds)
    {
        using TemporaryFolder folder = TemporaryFolder.InMemory();
        string path = folder["a." + ending];
        int read = 0, damaged = 0;
        for (int i = 0; i < count; i++)
        {
            Random random = new(Seed + i);
            byte[] bytes = Mutated(random, seeds[i % seeds.Count]);
            File.WriteAllBytes(path, bytes);
            long before = GC.GetAllocatedBytesForCurrentThread(), began = Stopwatch.GetTimestamp();
            ReadingReport report = new();
            try
            {
                foreach (Shard shard in Source.Open(path, new() { ShardBytes = random.Next(2) == 0 ? 1 : 1 << 20, MaximumRecordBytes = 1 << 16, Columns = random.Next(3) == 0 ? ["text", "messages"] : null }).Shards())
                    foreach (Documents.Record record in shard.Records(report))
                        Assert.True(record.Row > 0 && record.Values.Count == record.Names.Count);
            }
            catch (Exception e)
            {
                Assert.Fail($"seed {Seed} + {i} of {ending}: {e}");
            }
            if (i % 2 == 0) TextsAreThoseOfTheRecords(path, $"seed {Seed} + {i} of {ending}");
            long allocated = GC.GetAllocatedBytesForCurrentThread() - before;
            TimeSpan took = Stopwatch.GetElapsedTime(began);
            Assert.True(allocated < MostAllocated, $"seed {Seed} + {i} of {ending}: {allocated} bytes allocated");
            Assert.True(took < _longest, $"seed {Seed} + {i} of {ending}: {took.TotalSeconds:0.0} s");
            if (report.Records > 0) read++;
            if (report.HasProblems) damaged++;
        }
        // The mutations reach both ways of ending.
        Assert.True(read > count / 20 && damaged > count / 20, $"{ending}: {read} with records, {damaged} with problems, of {count}");
    }

    /// <summary>The quick way to the documents gives what the records hold, and counts the same.</summary>
    private static void TextsAreThoseOfTheRecords(string path, string which)
    {
        ReadingReport expected = new(), found = new();
        List<string> texts = [];
        Source source = Source.Open(path, new() { MaximumRecordBytes = 1 << 16, Columns = ["text"] });
        foreach (Documents.Record record in source.Records(expected))
        {
            if (record.Text("text") is not { } text) expected.Bad++;
            else if (string.IsNullOrWhiteSpace(text)) expected.Empty++;
            else texts.Add(text);
        }
        Assert.True(texts.SequenceEqual(source.Texts(new() { Text = "text" }, found)), which);
        Assert.True((expected.Bad, expected.Empty, expected.Repaired, expected.BadFiles, expected.Bytes, texts.Count) == (found.Bad, found.Empty, found.Repaired, found.BadFiles, found.Bytes, found.Records), $"{which}: {expected} / {found}");
    }

    private static byte[] Mutated(Random random, byte[] seed)
    {
        byte[] bytes = [.. seed];
        switch (random.Next(8))
        {
            case 0:
                return bytes[..random.Next(bytes.Length)];
            case 1:
                int cut = random.Next(bytes.Length), length = random.Next(Math.Min(20, bytes.Length - cut));
                return [.. bytes[..cut], .. bytes[(cut + length)..]];
            case 2:
                int at = random.Next(bytes.Length), from = random.Next(bytes.Length);
                return [.. bytes[..at], .. bytes[from..Math.Min(bytes.Length, from + random.Next(30))], .. bytes[at..]];
            case 3:
                int start = random.Next(bytes.Length);
                bytes.AsSpan(start, Math.Min(random.Next(9), bytes.Length - start)).Fill((byte)(random.Next(2) * 255));
                return bytes;
            case 4:
                // The end of a parquet file says where everything is.
                for (int n = random.Next(1, 4); n > 0; n--) bytes[Math.Max(0, bytes.Length - 1 - random.Next(400))] = (byte)random.Next(256);
                return bytes;
            default:
                for (int n = random.Next(1, 5); n > 0; n--) bytes[random.Next(bytes.Length)] = (byte)(random.Next(3) == 0 ? random.Next(256) : bytes[random.Next(bytes.Length)] ^ (1 << random.Next(8)));
                return bytes;
        }
    }
}
