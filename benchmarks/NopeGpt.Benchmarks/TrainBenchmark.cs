using System.Diagnostics;
using NopeGpt.Model;
using NopeGpt.Model.Optimizers;
using TorchSharp;
using static TorchSharp.torch;

namespace NopeGpt.Benchmarks;

/// <summary>Whole optimizer steps (forward, backward, clipping, AdamW), ours and in TorchSharp's plain form, in alternation.</summary>
internal static class TrainBenchmark
{
    private const int Rows = 8, Length = 256, Rounds = 9;

    public static void Run()
    {
        Compare("quickstart model, 2.4M", new ModelConfig { VocabularySize = 4096, EmbeddingDimensions = 192, NumQHeads = 6, NumKvHeads = 2, NumDecoderLayers = 4 }, stepsARound: 4);
        Compare("12.6M", new ModelConfig { VocabularySize = 8192, EmbeddingDimensions = 384, NumQHeads = 6, NumKvHeads = 2, NumDecoderLayers = 6 }, stepsARound: 1);
    }

    private static void Compare(string name, ModelConfig config, int stepsARound)
    {
        random.manual_seed(1);
        using Decoder ours = new(config, 1);
        using AdamW adam = new(ours.Parameters(), new AdamWOptions());
        using PlainDecoder plain = new(config);
        using var plainAdam = optim.AdamW(plain.parameters(), 1e-3, weight_decay: 0.1);
        using Tensor tokens_BT = randint(0, config.VocabularySize, [Rows, Length]), targets_BT = randint(0, config.VocabularySize, [Rows, Length]);

        void Ours()
        {
            using DisposeScope scope = NewDisposeScope();
            ours.Loss(tokens_BT, targets_BT).backward();
            GradientNorm.Clip(ours.Parameters().Select(p => p.Parameter), 1);
            adam.Step(1e-3);
            adam.ZeroGrad();
        }

        void Plain()
        {
            using DisposeScope scope = NewDisposeScope();
            plain.Loss(tokens_BT, targets_BT).backward();
            nn.utils.clip_grad_norm_(plain.parameters(), 1);
            plainAdam.step();
            plainAdam.zero_grad();
        }

        Seconds(Ours, 2);
        Seconds(Plain, 2);
        List<double> rates = [], plainRates = [];
        for (int round = 0; round < Rounds; round++)
        {
            rates.Add(stepsARound * Rows * Length / Seconds(Ours, stepsARound));
            plainRates.Add(stepsARound * Rows * Length / Seconds(Plain, stepsARound));
        }
        double mine = Median(rates), theirs = Median(plainRates);
        Console.WriteLine($"training, {name}: ours {mine:N0} tokens/s, plain {theirs:N0} tokens/s, ratio {mine / theirs:0.00} ({theirs * config.FlopsPerToken(Length) / 1e9:N0} and {mine * config.FlopsPerToken(Length) / 1e9:N0} GFLOP/s)");
    }

    private static double Seconds(Action step, int times)
    {
        long start = Stopwatch.GetTimestamp();
        for (int i = 0; i < times; i++) step();
        return Stopwatch.GetElapsedTime(start).TotalSeconds;
    }

    private static double Median(List<double> values) => values.Order().ElementAt(values.Count / 2);
}
