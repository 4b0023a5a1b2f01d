using System.Diagnostics;
using NopeGpt.Model;
using TorchSharp;
using static TorchSharp.torch;

namespace NopeGpt.Benchmarks;

/// <summary>Tokens a second of greedy decoding, cache, decoder and the choice of the token: ours beside the plain form with a cache that grows by
/// `cat` and keys and values repeated for every query head, in alternation.</summary>
internal static class DecodeBenchmark
{
    private static readonly ModelConfig Config = Models.Nope;

    public static void Run(bool quick)
    {
        using Decoder ours = new(Config, 1);
        ours.eval();
        using PlainDecoder plain = new(ours);
        plain.eval();
        foreach (int threads in quick ? new[] { Environment.ProcessorCount } : [1, Environment.ProcessorCount])
        {
            set_num_threads(threads);
            Console.WriteLine($"decoding, NoPE {Models.Size(Config)}, {threads} thread(s), tokens/s, medians of {Rounds(quick)} rounds");
            foreach (int context in new[] { 128, 2048 })
            {
                double alone = 0;
                foreach (int rows in quick && context > 128 ? new[] { 1, 8 } : [1, 8, 16, 32]) Compare(ours, plain, context, rows, quick, ref alone);
            }
            FirstToken(ours, plain, Rounds(quick));
        }
        Sampling(ours, Rounds(quick));
    }

    private static int Rounds(bool quick) => quick ? 3 : 9;

    private static void Compare(Decoder ours, PlainDecoder plain, int context, int rows, bool quick, ref double alone)
    {
        // Fewer where each costs more; the last of them sees the whole context.
        int tokens = Math.Clamp((quick ? 1 << 13 : 1 << 15) / (context * rows), 4, 32);
        using DisposeScope scope = NewDisposeScope();
        using var quiet = no_grad();
        using Generator generator = new(1);
        Tensor prompt_BT = randint(0, Config.VocabularySize, [rows, context - tokens], generator: generator), first_B1 = prompt_BT.narrow(1, 0, 1);
        using KeyValueCache cache = new(Config, rows, context);
        using PlainCache plainCache = new(Config.NumDecoderLayers);
        CheckSame(ours.Forward(prompt_BT, cache), plain.Next(prompt_BT, plainCache));
        CheckSame(ours.Forward(first_B1, cache), plain.Next(first_B1, plainCache));

        double[] Ours()
        {
            cache.Truncate(context - tokens);
            return Write(tokens, rows, first_B1, next_B1 => ours.Forward(next_B1, cache));
        }

        double[] Plain()
        {
            plainCache.Truncate(context - tokens);
            return Write(tokens, rows, first_B1, next_B1 => plain.Next(next_B1, plainCache));
        }

        double[][] medians = Alternation.Medians(Rounds(quick), Ours, Plain);
        (double rate, double plainRate) = (medians[0][0], medians[1][0]);
        if (rows == 1) alone = rate;
        Console.WriteLine($"  context {context,5}, batch {rows,2}: ours {rate,7:N0}   plain {plainRate,7:N0}   ratio {rate / plainRate:0.00}   {rate / alone:0.0} times batch 1");
    }

    /// <summary>Tokens a second over all rows.</summary>
    private static double[] Write(int tokens, int rows, Tensor first_B1, Func<Tensor, Tensor> logitsOf)
    {
        long[] next = first_B1.cpu().data<long>().ToArray();
        long start = Stopwatch.GetTimestamp();
        for (int i = 0; i < tokens; i++)
        {
            using DisposeScope scope = NewDisposeScope();
            logitsOf(tensor(next, [rows, 1])).argmax(-1).data<long>().CopyTo(next.AsSpan());
        }
        return [tokens * rows / Stopwatch.GetElapsedTime(start).TotalSeconds];
    }

    private static void FirstToken(Decoder ours, PlainDecoder plain, int rounds)
    {
        const int prompt = 100;
        using DisposeScope scope = NewDisposeScope();
        using var quiet = no_grad();
        Tensor prompt_BT = randint(0, Config.VocabularySize, [1, prompt]);

        double[] Ours()
        {
            long clock = Stopwatch.GetTimestamp();
            using KeyValueCache cache = new(Config, 1, 1024);
            ours.Forward(prompt_BT, cache).Dispose();
            return [Alternation.Lap(ref clock)];
        }

        double[] Plain()
        {
            long clock = Stopwatch.GetTimestamp();
            using PlainCache cache = new(Config.NumDecoderLayers);
            plain.Next(prompt_BT, cache).Dispose();
            return [Alternation.Lap(ref clock)];
        }

        double[][] medians = Alternation.Medians(rounds, Ours, Plain);
        Console.WriteLine($"  first token of a prompt of {prompt}: ours {medians[0][0]:0.0} ms   plain {medians[1][0]:0.0} ms   ratio {medians[1][0] / medians[0][0]:0.00}");
    }

    private static void Sampling(Decoder ours, int rounds)
    {
        const int draws = 50;
        using DisposeScope scope = NewDisposeScope();
        using KeyValueCache cache = new(Config, 1, 1024);
        Tensor logits_V = ours.Forward(zeros(1, 1, dtype: ScalarType.Int64), cache)[0];
        Sampler sampler = new(new SamplingOptions(), 1);
        double[][] medians = Alternation.Medians(rounds, () =>
        {
            List<int> written = [];
            long clock = Stopwatch.GetTimestamp();
            for (int i = 0; i < draws; i++) written.Add(sampler.Next(logits_V, written).Id);
            return [Alternation.Lap(ref clock) * 1000 / draws];
        });
        Console.WriteLine($"  a draw with the default options of {Config.VocabularySize:N0} tokens: {medians[0][0]:0} us");
    }

    private static void CheckSame(Tensor ours_BV, Tensor plain_BV)
    {
        double difference = (ours_BV - plain_BV).abs().max().item<float>();
        if (!(difference < 1e-3)) throw new InvalidOperationException($"the two forms do not compute the same: logits differ by {difference}");
    }
}
