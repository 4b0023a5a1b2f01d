using System.Diagnostics;
using System.Globalization;
using System.IO.Compression;
using NopeGpt.Data;
using NopeGpt.Data.Documents;
using NopeGpt.Data.Tokenization;

namespace NopeGpt.Benchmarks;

/// <summary>What preparation costs beside encoding: the text of a corpus encoded from memory, and the whole way from its files to a token file, in
/// alternation, on one thread and on two. MB/s of text by the clock, and the part of the encoder's speed that is left.</summary>
internal static class PrepareBenchmark
{
    private static readonly ColumnMapping _mapping = new() { Text = "text" };

    public static void Run(bool quick)
    {
        if (Prose.DataFolder is not { } data)
        {
            Console.WriteLine("prepare: the shared data is not here (set NOPEGPT_TEST_DATA to its folder)");
            return;
        }
        string folder = Directory.CreateTempSubdirectory("nopegpt-benchmark-").FullName;
        try
        {
            string packed = Path.Combine(data, "pretrain", "standardebooks.jsonl.gz"), plain = Path.Combine(folder, "standardebooks.jsonl"), text = Path.Combine(folder, "standardebooks.txt");
            using (GZipStream gzip = new(File.OpenRead(packed), CompressionMode.Decompress))
            using (FileStream unpacked = File.Create(plain)) gzip.CopyTo(unpacked);
            List<byte[]> documents = Prose.Documents(packed);
            WriteText(text, documents);
            Tokenizer tokenizer = Tokenizer.Load("r50k_base", [Path.Combine(data, "tokenizers")]);
            Measure(tokenizer, documents, [("jsonl", plain), ("jsonl.gz", packed), ("txt", text)], Path.Combine(folder, "tokens.bin"), quick ? 1 : 5);
        }
        finally { Directory.Delete(folder, recursive: true); }
    }

    private static void Measure(Tokenizer tokenizer, List<byte[]> documents, (string Name, string Path)[] sources, string tokens, int rounds)
    {
        double megabytes = documents.Sum(document => (long)document.Length) / 1e6;
        Console.WriteLine($"{documents.Count} documents, {megabytes:0.0} MB of text, {tokenizer.VocabularySize} tokens");
        foreach (int workers in (int[])[1, 2])
        {
            List<Func<double[]>> contenders = [() => Timed(() => EncodingBenchmark.Encode(tokenizer, documents, workers))];
            foreach ((_, string path) in sources)
                contenders.Add(() => Timed(() => new TokenPreparation(tokenizer, workers: workers).Run(tokens, Source.Open(path, new SourceOptions { ShardBytes = TokenPreparation.ShardBytes }), _mapping)));
            double[][] medians = Alternation.Medians(rounds, [.. contenders]);
            foreach ((string name, double[] median) in sources.Select(s => s.Name).Prepend("encoding alone").Zip(medians))
            {
                Console.WriteLine(string.Create(CultureInfo.InvariantCulture,
                    $"  {workers} worker{(workers > 1 ? "s" : " ")} {name,-15} {megabytes / median[0],6:0.0} MB/s ({medians[0][0] / median[0],4:0.00} of encoding alone), {megabytes / median[1],6:0.0} MB for a processor second ({medians[0][1] / median[1],4:0.00})"));
            }
        }
    }

    /// <returns>Seconds by the clock and of the processors.</returns>
    private static double[] Timed(Action work)
    {
        TimeSpan processor = Environment.CpuUsage.TotalTime;
        long start = Stopwatch.GetTimestamp();
        work();
        return [Stopwatch.GetElapsedTime(start).TotalSeconds, (Environment.CpuUsage.TotalTime - processor).TotalSeconds];
    }

    private static void WriteText(string path, List<byte[]> documents)
    {
        using FileStream file = File.Create(path);
        foreach (byte[] document in documents)
        {
            file.Write(document);
            file.Write("\n<|endoftext|>\n"u8);
        }
    }
}
