using System.Diagnostics;
using NopeGpt.Data;
using NopeGpt.Data.Documents;
using NopeGpt.Data.Tokenization;

namespace NopeGpt.Benchmarks;

/// <summary>Story corpus, tokenizer training, encoding, token file and batches, at the sizes of the quickstart.</summary>
internal static class DataBenchmark
{
    private const long CorpusBytes = 8_000_000;
    private const int Vocabulary = 4096;

    public static void Run()
    {
        string folder = Directory.CreateTempSubdirectory("nopegpt-benchmark-").FullName;
        try
        {
            string corpus = Path.Combine(folder, "stories.jsonl");
            Report("stories", "MB/s", Best(() => StoryGenerator.WriteCorpus(corpus, CorpusBytes, 1), seconds => CorpusBytes / 1e6 / seconds));
            string[] documents = [.. TextFiles.Documents(corpus)];
            Tokenizer tokenizer = BytePairTrainer.Train(documents, Vocabulary);
            double training = Best(() => BytePairTrainer.Train(TextFiles.Documents(corpus), Vocabulary), seconds => -seconds);
            Report($"BPE, {CorpusBytes / 1e6:0} MB to {Vocabulary} tokens", "s", -training);
            long bytes = documents.Sum(d => (long)System.Text.Encoding.UTF8.GetByteCount(d));
            Report("encoding, one thread", "MB/s", Best(() => { foreach (string d in documents) tokenizer.Encode(d); }, seconds => bytes / 1e6 / seconds));
            string tokens = Path.Combine(folder, "tokens.bin");
            using (TokenFileWriter writer = new(tokens, tokenizer.VocabularySize, tokenizer.Hash))
            {
                foreach (string d in documents) writer.Append([.. tokenizer.Encode(d), tokenizer.EndOfTextId], d.Length);
                writer.Complete();
            }
            foreach (int workers in (int[])[1, 2])
            {
                Source text = Source.Open(corpus, new SourceOptions { ShardBytes = TokenPreparation.ShardBytes });
                Report($"preparation, {workers} workers", "MB/s", Best(() => new TokenPreparation(tokenizer, workers: workers).Run(tokens, text, new ColumnMapping { Text = "text" }), seconds => bytes / 1e6 / seconds));
            }
            using TokenFile file = TokenFile.Open(tokens);
            BatchSource source = new(file, 16, 1024, 1, 16);
            int index = 0;
            Batch? used = null;
            Report("batch of 16 x 1,024, arrays used again", "ms", -Best(() => { for (int i = 0; i < 200; i++) used = source.Training(index++, used); }, seconds => -seconds * 1000 / 200));
            Report("batch of 16 x 1,024, warm", "ms", -Best(() => { for (int i = 0; i < 200; i++) source.Training(index++); }, seconds => -seconds * 1000 / 200));
        }
        finally { Directory.Delete(folder, recursive: true); }
    }

    /// <summary>The best of five, which other programs disturb least.</summary>
    private static double Best(Action work, Func<double, double> figure)
    {
        double best = double.NegativeInfinity;
        for (int i = 0; i < 5; i++)
        {
            long start = Stopwatch.GetTimestamp();
            work();
            best = Math.Max(best, figure(Stopwatch.GetElapsedTime(start).TotalSeconds));
        }
        return best;
    }

    private static void Report(string what, string unit, double value) => Console.WriteLine($"{what,-40} {value,10:0.###} {unit}");
}
