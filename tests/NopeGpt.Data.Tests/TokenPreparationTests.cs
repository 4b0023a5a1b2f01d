using System.Text;
using System.Text.Json;
using NopeGpt.Data.Documents;
using NopeGpt.Data.Tokenization;
using NopeGpt.Tests;
using Xunit.Abstractions;

namespace NopeGpt.Data.Tests;

public sealed class TokenPreparationTests(ITestOutputHelper output)
{
    private static readonly ColumnMapping _mapping = new() { Text = "text" };
    private static readonly Tokenizer _tokenizer = BytePairTrainer.Train(["the cat sat on the mat and the dog sat on the cat"], 280);

    [Theory]
    [InlineData(EndOfText.After)]
    [InlineData(EndOfText.Before)]
    [InlineData(EndOfText.None)]
    public void Any_number_of_workers_makes_the_file_that_one_document_after_the_other_makes(EndOfText endOfText)
    {
        using TemporaryFolder folder = new();
        Random random = Seeded();
        string[] documents = WriteDocuments(folder["a.jsonl"], random, 300);
        byte[] expected = Plainly(folder, documents, endOfText);
        foreach (int workers in (int[])[1, 2, 3, 8])
        {
            string path = folder[$"{workers}.bin"];
            PreparationResult result = new TokenPreparation(_tokenizer, endOfText, workers).Run(path, Open(folder["a.jsonl"], random.Next(1, 3000)), _mapping);
            Assert.Equal(expected, File.ReadAllBytes(path));
            Assert.False(Directory.Exists(path + ".parts"));
            using TokenFile file = TokenFile.Open(path);
            file.Verify();
            Assert.Equal(endOfText, file.EndOfText);
            Assert.Equal((file.DocumentCount, file.TextBytes, file.Count, 0), (result.Documents, result.TextBytes, result.Tokens, result.ResumedDocuments));
            Assert.Equal((documents.Length, documents.Sum(Encoding.UTF8.GetByteCount)), (result.Documents, result.TextBytes));
            Assert.Equal(JsonSerializer.Serialize(TokenStatistics.Of(file)), JsonSerializer.Serialize(result.Statistics));
        }
    }

    [Fact]
    public void End_of_text_stands_where_it_was_asked_for()
    {
        using TemporaryFolder folder = new();
        WriteDocuments(folder["a.jsonl"], Seeded(), 20);
        foreach (EndOfText place in Enum.GetValues<EndOfText>())
        {
            new TokenPreparation(_tokenizer, place, 1).Run(folder["a.bin"], Open(folder["a.jsonl"], 100), _mapping);
            using TokenFile file = TokenFile.Open(folder["a.bin"]);
            for (long i = 0; i < file.DocumentCount; i++)
            {
                (long start, int length) = file.Document(i);
                int[] ids = new int[length];
                file.Read(start, ids);
                Assert.Equal(place == EndOfText.None ? 0 : 1, ids.Count(id => id == _tokenizer.EndOfTextId));
                if (place != EndOfText.None) Assert.Equal(_tokenizer.EndOfTextId, place == EndOfText.Before ? ids[0] : ids[^1]);
            }
        }
    }

    [Fact]
    public void Stopped_again_and_again_at_any_place_it_makes_the_same_file_and_goes_on_where_it_was()
    {
        using TemporaryFolder folder = new();
        Random random = Seeded();
        WriteDocuments(folder["a.jsonl"], random, 400);
        // A report that counts shows that nothing is counted twice or forgotten.
        File.AppendAllText(folder["a.jsonl"], "{\"text\": 5}\n{\"text\": \"\"}\nno json\n");
        PreparationResult straight = new TokenPreparation(_tokenizer, workers: 2).Run(folder["straight.bin"], Open(folder["a.jsonl"], 500), _mapping);
        for (int round = 0; round < 8; round++)
        {
            string path = folder[$"{round}.bin"];
            PreparationResult? result = null;
            long before = 0;
            for (int stops = 0; result is null; stops++)
            {
                using CancellationTokenSource stop = new();
                int left = random.Next(1, 30);
                long last = 0;
                try
                {
                    result = new TokenPreparation(_tokenizer, workers: random.Next(1, 4)).Run(path, Open(folder["a.jsonl"], random.Next(100, 1000)), _mapping, progress =>
                    {
                        Assert.True(progress.Documents >= before);
                        last = progress.Documents;
                        if (--left == 0) stop.Cancel();
                    }, stop.Token);
                    Assert.Equal(before, result.ResumedDocuments);
                }
                catch (OperationCanceledException) { Assert.False(File.Exists(path)); }
                before = last;
                Assert.InRange(stops, 0, 400);
            }
            Assert.Equal(File.ReadAllBytes(folder["straight.bin"]), File.ReadAllBytes(path));
            Assert.Equal((straight.Report.Records, straight.Report.Bad, straight.Report.Empty), (result.Report.Records, result.Report.Bad, result.Report.Empty));
            Assert.Equal(straight.Report.Problems, result.Report.Problems);
            Assert.Equal(JsonSerializer.Serialize(straight.Statistics), JsonSerializer.Serialize(result.Statistics));
        }
        Assert.Equal((2, 1), (straight.Report.Bad, straight.Report.Empty));
    }

    [Fact]
    public void It_ends_with_the_document_that_reaches_the_tokens_asked_for()
    {
        using TemporaryFolder folder = new();
        Random random = Seeded();
        string[] documents = WriteDocuments(folder["a.jsonl"], random, 60);
        File.AppendAllText(folder["a.jsonl"], "no json\n");
        int[] lengths = [.. documents.Select(d => _tokenizer.Encode(d).Count + 1)];
        int total = lengths.Sum();
        foreach (int maximum in (int[])[1, lengths[0], lengths[0] + 1, random.Next(1, total), random.Next(1, total), total - 1, total, total + 1])
        {
            int kept = 0;
            for (int sum = 0; kept < documents.Length && sum < maximum; kept++) sum += lengths[kept];
            byte[] expected = Plainly(folder, documents[..kept], EndOfText.After);
            foreach (int workers in (int[])[1, 2, 7])
            {
                PreparationResult result = new TokenPreparation(_tokenizer, workers: workers, maximumTokens: maximum).Run(folder["b.bin"], Open(folder["a.jsonl"], random.Next(100, 3000)), _mapping);
                Assert.Equal(expected, File.ReadAllBytes(folder["b.bin"]));
                // What lies behind the last document counts for nothing.
                Assert.Equal((kept, kept, maximum > total ? 1 : 0), (result.Documents, result.Report.Records, result.Report.Bad));
            }
            StopAfter(new TokenPreparation(_tokenizer, workers: 2, maximumTokens: total), folder["c.bin"], folder["a.jsonl"], 3);
            new TokenPreparation(_tokenizer, workers: 3, maximumTokens: total).Run(folder["c.bin"], Open(folder["a.jsonl"], random.Next(1, 3000)), _mapping);
            Assert.Equal(Plainly(folder, documents, EndOfText.After), File.ReadAllBytes(folder["c.bin"]));
        }
    }

    [Fact]
    public void A_compressed_source_tells_how_far_it_is()
    {
        using TemporaryFolder folder = new();
        WriteDocuments(folder["a.jsonl"], Seeded(), 1000);
        File.WriteAllBytes(folder["a.jsonl.gz"], SourceFiles.Gzip(File.ReadAllBytes(folder["a.jsonl"])));
        File.WriteAllBytes(folder["a.jsonl.zst"], SourceFiles.Zstandard(File.ReadAllBytes(folder["a.jsonl"])));
        foreach (string ending in (string[])["jsonl.gz", "jsonl.zst"])
        {
            double[] fractions = [.. Open(folder[$"a.{ending}"], 10_000).Shards().Select(s => s.Fraction)];
            Assert.Equal(fractions.Order(), fractions);
            Assert.Equal(1, fractions[^1]);
            Assert.All(fractions, f => Assert.InRange(f, 0.001, 1));
        }
    }

    [Fact]
    public void Whatever_a_crash_leaves_it_makes_the_same_file()
    {
        using TemporaryFolder folder = new();
        Random random = Seeded();
        WriteDocuments(folder["a.jsonl"], random, 150);
        TokenPreparation preparation = new(_tokenizer, workers: 2);
        preparation.Run(folder["straight.bin"], Open(folder["a.jsonl"], 500), _mapping);
        for (int round = 0; round < 40; round++)
        {
            string path = folder[$"{round}.bin"], parts = path + ".parts";
            StopAfter(preparation, path, folder["a.jsonl"], random.Next(1, 15));
            // Lost ends, lost files, foreign bytes behind and changed bytes within: what a kill, a power cut and a bad disk leave.
            foreach (string file in Directory.GetFiles(parts))
            {
                byte[] bytes = File.ReadAllBytes(file);
                switch (random.Next(6))
                {
                    case 0: bytes = bytes[..random.Next(bytes.Length + 1)]; break;
                    case 1: bytes = [.. bytes, .. Enumerable.Range(0, random.Next(1, 300)).Select(_ => (byte)random.Next(256))]; break;
                    case 2: bytes[random.Next(bytes.Length)] ^= (byte)(1 << random.Next(8)); break;
                    case 3 when random.Next(4) == 0: File.Delete(file); continue;
                }
                File.WriteAllBytes(file, bytes);
            }
            preparation.Run(path, Open(folder["a.jsonl"], 500), _mapping);
            Assert.Equal(File.ReadAllBytes(folder["straight.bin"]), File.ReadAllBytes(path));
        }
    }

    [Fact]
    public void A_kill_between_the_last_rename_and_the_end_costs_nothing()
    {
        using TemporaryFolder folder = new();
        WriteDocuments(folder["a.jsonl"], Seeded(), 100);
        TokenPreparation preparation = new(_tokenizer, workers: 1);
        int shards = 0;
        preparation.Run(folder["straight.bin"], Open(folder["a.jsonl"], 500), _mapping, _ => shards++);
        string path = folder["a.bin"], kept = folder["kept"];
        preparation.Run(path, Open(folder["a.jsonl"], 500), _mapping, progress =>
        {
            if (progress.Fraction < 1) return;
            Directory.CreateDirectory(kept);
            foreach (string name in (string[])["index", "journal"]) File.Copy(Path.Combine(path + ".parts", name), Path.Combine(kept, name), overwrite: true);
        });
        byte[] made = File.ReadAllBytes(path);
        Copy(kept, path + ".parts");
        // In another way it is made anew, and until then what is there stays.
        using (CancellationTokenSource stop = new())
            Assert.ThrowsAny<OperationCanceledException>(() => new TokenPreparation(_tokenizer, EndOfText.Before).Run(path, Open(folder["a.jsonl"], 500), _mapping, _ => stop.Cancel(), stop.Token));
        Assert.Equal(made, File.ReadAllBytes(path));
        Directory.Delete(path + ".parts", recursive: true);
        Copy(kept, path + ".parts");
        PreparationResult result = preparation.Run(path, Open(folder["a.jsonl"], 500), _mapping);
        Assert.Equal((100, 100), (result.Documents, result.ResumedDocuments));
        Assert.Equal(File.ReadAllBytes(folder["straight.bin"]), File.ReadAllBytes(path));

        static void Copy(string from, string to)
        {
            Directory.CreateDirectory(to);
            foreach (string file in Directory.GetFiles(from)) File.Copy(file, Path.Combine(to, Path.GetFileName(file)));
        }
    }

    [Fact]
    public void What_was_made_of_another_source_or_in_another_way_is_not_gone_on_with()
    {
        using TemporaryFolder folder = new();
        Random random = Seeded();
        string path = folder["a.bin"];
        WriteDocuments(folder["a.jsonl"], random, 100);
        StopAfter(new TokenPreparation(_tokenizer), path, folder["a.jsonl"], 5);
        string[] documents = WriteDocuments(folder["a.jsonl"], random, 101);
        Assert.Equal(0, new TokenPreparation(_tokenizer).Run(path, Open(folder["a.jsonl"], 500), _mapping).ResumedDocuments);
        Assert.Equal(Plainly(folder, documents, EndOfText.After), File.ReadAllBytes(path));
        StopAfter(new TokenPreparation(_tokenizer), path, folder["a.jsonl"], 5);
        new TokenPreparation(_tokenizer, EndOfText.Before).Run(path, Open(folder["a.jsonl"], 500), _mapping);
        Assert.Equal(Plainly(folder, documents, EndOfText.Before), File.ReadAllBytes(path));
    }

    [Fact]
    public void A_source_without_text_gives_an_empty_file_and_says_why()
    {
        using TemporaryFolder folder = new();
        File.WriteAllText(folder["a.jsonl"], "{\"other\": \"a\"}\n");
        PreparationResult result = new TokenPreparation(_tokenizer).Run(folder["a.bin"], Open(folder["a.jsonl"], 500), _mapping);
        Assert.Equal((0, 0, 1), (result.Documents, result.Tokens, result.Report.Bad));
        using TokenFile file = TokenFile.Open(folder["a.bin"]);
        file.Verify();
    }

    [Fact]
    public void An_error_while_reading_or_reporting_ends_it_and_the_finished_shards_stay()
    {
        using TemporaryFolder folder = new();
        WriteDocuments(folder["a.jsonl"], Seeded(), 100);
        TokenPreparation preparation = new(_tokenizer, workers: 3);
        Assert.Throws<ArgumentException>(() => preparation.Run(folder["a.bin"], Open(folder["a.jsonl"], 500), new ColumnMapping { Messages = "text" }));
        long documents = 0;
        Assert.Throws<InvalidOperationException>(() => preparation.Run(folder["a.bin"], Open(folder["a.jsonl"], 500), _mapping, progress =>
        {
            documents = progress.Documents;
            throw new InvalidOperationException("no more");
        }));
        Assert.True(documents > 0);
        Assert.Equal(documents, preparation.Run(folder["a.bin"], Open(folder["a.jsonl"], 500), _mapping).ResumedDocuments);
    }

    [Fact]
    public void Progress_tells_speed_and_expected_end()
    {
        using TemporaryFolder folder = new();
        WriteDocuments(folder["a.jsonl"], Seeded(), 100);
        List<PreparationProgress> told = [];
        new TokenPreparation(_tokenizer, workers: 2).Run(folder["a.bin"], Open(folder["a.jsonl"], 500), _mapping, told.Add);
        Assert.Equal(told.Select(p => p.Fraction).Order(), told.Select(p => p.Fraction));
        Assert.Equal(1, told[^1].Fraction, 1e-9);
        Assert.All(told, p => Assert.True(p.BytesPerSecond > 0 && p.Remaining >= TimeSpan.Zero));
        Assert.Equal(TimeSpan.Zero, told[^1].Remaining);
    }

    private static void StopAfter(TokenPreparation preparation, string path, string source, int shards)
    {
        using CancellationTokenSource stop = new();
        Assert.Throws<OperationCanceledException>(() => preparation.Run(path, Open(source, 500), _mapping, _ =>
        {
            if (--shards == 0) stop.Cancel();
        }, stop.Token));
    }

    private static Source Open(string path, int shardBytes) => Source.Open(path, new SourceOptions { ShardBytes = shardBytes });

    private static string[] WriteDocuments(string path, Random random, int count)
    {
        string[] words = ["the", "cat", "sat", "on", "mat", "dog", "änd", "猫", "🙂", "\n"];
        string[] documents = [.. Enumerable.Range(0, count).Select(i => $"{i} " + string.Join(' ', Enumerable.Range(0, random.Next(60)).Select(_ => words[random.Next(words.Length)])))];
        File.WriteAllLines(path, documents.Select(document => JsonSerializer.Serialize(new { text = document })));
        return documents;
    }

    private static byte[] Plainly(TemporaryFolder folder, string[] documents, EndOfText endOfText)
    {
        using (TokenFileWriter writer = new(folder["plain.bin"], _tokenizer.VocabularySize, _tokenizer.Hash, endOfText))
        {
            foreach (string document in documents)
            {
                List<int> ids = _tokenizer.Encode(document);
                if (endOfText == EndOfText.Before) ids.Insert(0, _tokenizer.EndOfTextId);
                if (endOfText == EndOfText.After) ids.Add(_tokenizer.EndOfTextId);
                writer.Append([.. ids], Encoding.UTF8.GetByteCount(document));
            }
            writer.Complete();
        }
        return File.ReadAllBytes(folder["plain.bin"]);
    }

    private Random Seeded()
    {
        int seed = Environment.TickCount;
        output.WriteLine($"seed {seed}");
        return new Random(seed);
    }
}
