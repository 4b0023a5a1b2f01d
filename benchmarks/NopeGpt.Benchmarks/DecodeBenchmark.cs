using System.Diagnostics;
using NopeGpt.Model;
using TorchSharp;
using static TorchSharp.torch;

namespace NopeGpt.Benchmarks;

/// <summary>Tokens a second of one reply: cache, decoder and sampler.</summary>
internal static class DecodeBenchmark
{
    private const int Prompt = 100, Tokens = 200;

    public static void Run()
    {
        foreach (int threads in new[] { 1, Environment.ProcessorCount }.Distinct())
        {
            set_num_threads(threads);
            Measure("2.4M", new ModelConfig { VocabularySize = 4096, EmbeddingDimensions = 192, NumQHeads = 6, NumKvHeads = 2, NumDecoderLayers = 4 }, threads);
            Measure("12.6M", new ModelConfig { VocabularySize = 8192, EmbeddingDimensions = 384, NumQHeads = 6, NumKvHeads = 2, NumDecoderLayers = 6 }, threads);
        }
    }

    private static void Measure(string name, ModelConfig config, int threads)
    {
        using Decoder model = new(config, 1);
        model.eval();
        long[] prompt = [.. Enumerable.Range(0, Prompt).Select(i => (long)(i * 37 % config.VocabularySize))];
        double best = 0, first = double.PositiveInfinity;
        for (int round = 0; round < 5; round++)
        {
            using KeyValueCache cache = new(config, 1, 1024);
            Sampler sampler = new(new SamplingOptions(), (ulong)round);
            List<int> written = [];
            long start = Stopwatch.GetTimestamp(), afterFirst = start;
            long[] next = prompt;
            while (written.Count < Tokens)
            {
                using DisposeScope scope = NewDisposeScope();
                written.Add(sampler.Next(model.Forward(tensor(next, [1, next.Length]), cache)[0], written).Id);
                next = [written[^1]];
                if (written.Count == 1) afterFirst = Stopwatch.GetTimestamp();
            }
            first = Math.Min(first, Stopwatch.GetElapsedTime(start, afterFirst).TotalMilliseconds);
            best = Math.Max(best, (Tokens - 1) / Stopwatch.GetElapsedTime(afterFirst).TotalSeconds);
        }
        Console.WriteLine($"decoding, {name}, {threads} thread(s): {best:N0} tokens/s, first token of a {Prompt}-token prompt after {first:0} ms");
    }
}
