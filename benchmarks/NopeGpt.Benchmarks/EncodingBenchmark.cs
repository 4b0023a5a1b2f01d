using System.Diagnostics;
using System.Text;
using System.Text.RegularExpressions;
using Microsoft.ML.Tokenizers;
using Tokenizer = NopeGpt.Data.Tokenization.Tokenizer;

namespace NopeGpt.Benchmarks;

/// <summary>The encoder beside Microsoft.ML.Tokenizers', on prose, in alternation; on one thread and on two. MB/s by the clock, and for a second of
/// processor time, which other programs on the machine disturb less.</summary>
internal static class EncodingBenchmark
{
    private const long Bytes = 70_000_000, LibraryBytes = 8_000_000;
    private const int Rounds = 5;
    private const string Gpt2Pattern = @"'(?:[sdmt]|ll|ve|re)| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+";

    public static void Run()
    {
        if (Prose.DataFolder is not { } data)
        {
            Console.WriteLine("encoding: the shared data is not here (set NOPEGPT_TEST_DATA to its folder)");
            return;
        }
        List<byte[]> documents = Prose.Documents(data, Bytes);
        long bytes = documents.Sum(document => (long)document.Length);
        List<string> few = [];
        for (long left = LibraryBytes; left > 0; left -= few[^1].Length) few.Add(Encoding.UTF8.GetString(documents[few.Count]));
        long fewBytes = few.Sum(text => (long)Encoding.UTF8.GetByteCount(text));
        Console.WriteLine($"{documents.Count} documents, {bytes / 1e6:0.0} MB; for the library {fewBytes / 1e6:0.0} MB");
        foreach (string name in (string[])["r50k_base", "cl100k_base", "o200k_base"])
        {
            long start = Stopwatch.GetTimestamp();
            Tokenizer tokenizer = Tokenizer.Load(name, [Path.Combine(data, "tokenizers")]);
            Console.WriteLine($"{name}: loaded in {Stopwatch.GetElapsedTime(start).TotalMilliseconds:0} ms");
            TiktokenTokenizer library = Library(name, data);
            Report("first pass", bytes, () => Encode(tokenizer, documents));
            for (int round = 0; round < Rounds; round++)
            {
                double one = Report("one thread", bytes, () => Encode(tokenizer, documents));
                double two = Report("two threads", bytes, () => Encode(tokenizer, documents, workers: 2));
                Report("the library", fewBytes, () => { foreach (string text in few) library.EncodeToIds(text); });
                Console.WriteLine($"    two threads are {two / one:0.00} of one");
            }
            long before = GC.GetAllocatedBytesForCurrentThread();
            long tokens = Encode(tokenizer, documents);
            Console.WriteLine($"  {(GC.GetAllocatedBytesForCurrentThread() - before) / (double)tokens:0.0000} bytes allocated a token, {bytes / (double)tokens:0.00} bytes of text a token");
        }
    }

    private static long Encode(Tokenizer tokenizer, List<byte[]> documents)
    {
        List<int> ids = new(1 << 20);
        long tokens = 0;
        foreach (byte[] document in documents)
        {
            ids.Clear();
            tokenizer.Encode(document, ids);
            tokens += ids.Count;
        }
        return tokens;
    }

    /// <summary>Encodes every document once, on threads that take the next one in turn.</summary>
    internal static void Encode(Tokenizer tokenizer, List<byte[]> documents, int workers)
    {
        int next = -1;
        Thread[] threads = [.. Enumerable.Range(0, workers).Select(_ => new Thread(() =>
        {
            List<int> ids = new(1 << 20);
            for (int i; (i = Interlocked.Increment(ref next)) < documents.Count;)
            {
                ids.Clear();
                tokenizer.Encode(documents[i], ids);
            }
        }))];
        foreach (Thread thread in threads) thread.Start();
        foreach (Thread thread in threads) thread.Join();
    }

    /// <returns>MB/s by the clock.</returns>
    private static double Report(string what, long bytes, Action work)
    {
        TimeSpan processor = Environment.CpuUsage.TotalTime;
        long start = Stopwatch.GetTimestamp();
        work();
        double wall = Stopwatch.GetElapsedTime(start).TotalSeconds, used = (Environment.CpuUsage.TotalTime - processor).TotalSeconds;
        Console.WriteLine($"  {what,-12} {bytes / 1e6 / wall,7:0.0} MB/s, {bytes / 1e6 / used,7:0.0} MB for a processor second");
        return bytes / wall;
    }

    private static TiktokenTokenizer Library(string name, string data)
    {
        if (name != "r50k_base") return TiktokenTokenizer.CreateForEncoding(name);
        using Stream ranks = File.OpenRead(Path.Combine(data, "tokenizers", $"{name}.tiktoken"));
        return TiktokenTokenizer.Create(ranks, new RegexPreTokenizer(new Regex(Gpt2Pattern, RegexOptions.Compiled), null), null, null);
    }
}
