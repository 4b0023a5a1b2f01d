using System.Diagnostics;
using NopeGpt.Model;
using NopeGpt.Model.Optimizers;
using TorchSharp;
using static TorchSharp.torch;

namespace NopeGpt.Benchmarks;

/// <summary>Optimizer steps and their parts (forward with the loss, backward, clipping with AdamW), ours and in TorchSharp's plain form, in alternation.</summary>
internal static class TrainBenchmark
{
    private const int Rows = 8, Length = 256;

    private static readonly string[] Parts = ["forward and loss (ours: with the head's gradient)", "backward", "clipping and AdamW", "step", "forward, logits, no gradients"];

    public static void Run(bool quick)
    {
        Console.WriteLine($"training, batch {Rows} x {Length}, {get_num_threads()} threads, medians of {Rounds(quick)} rounds");
        foreach ((string name, ModelConfig config) in Models.All) Compare(name, config, Rounds(quick));
    }

    private static int Rounds(bool quick) => quick ? 3 : 11;

    private static void Compare(string name, ModelConfig config, int rounds)
    {
        random.manual_seed(1);
        using Decoder ours = new(config, 1);
        using PlainDecoder plain = new(ours);
        using AdamW adam = new(ours.Parameters(), new AdamWOptions());
        using var plainAdam = optim.AdamW(plain.parameters(), 1e-4, weight_decay: 0.1);
        using Tensor tokens_BT = randint(0, config.VocabularySize, [Rows, Length]), targets_BT = randint(0, config.VocabularySize, [Rows, Length]);
        CheckSame(ours, plain, tokens_BT, targets_BT);

        double[] Ours() => Step(() => ours.Loss(tokens_BT, targets_BT), () => ours.Forward(tokens_BT), () =>
        {
            GradientNorm.Clip(ours.Parameters().Select(p => p.Parameter), 1);
            adam.Step(1e-4);
            adam.ZeroGrad();
        });

        double[] Plain() => Step(() => plain.Loss(tokens_BT, targets_BT), () => plain.call(tokens_BT), () =>
        {
            nn.utils.clip_grad_norm_(plain.parameters(), 1);
            plainAdam.step();
            plainAdam.zero_grad();
        });

        Ours();
        Plain();
        double[][] medians = Alternation.Medians(rounds, Ours, Plain);
        Console.WriteLine($"  {name}, {Models.Size(config)}");
        for (int i = 0; i < Parts.Length; i++)
            Console.WriteLine($"    {Parts[i],-50} ours {medians[0][i],8:0.0} ms   plain {medians[1][i],8:0.0} ms   ratio {medians[1][i] / medians[0][i]:0.00}");
        double rate = Rows * Length / medians[0][3] * 1000, plainRate = Rows * Length / medians[1][3] * 1000, flops = config.FlopsPerToken(Length) / 1e9;
        Console.WriteLine($"    {"tokens/s",-50} ours {rate,8:N0}      plain {plainRate,8:N0}      ({rate * flops:0} and {plainRate * flops:0} GFLOP/s)");
    }

    private static double[] Step(Func<Tensor> lossOf, Func<Tensor> logitsOf, Action update)
    {
        double[] parts = Alternation.Step(lossOf, update);
        using DisposeScope scope = NewDisposeScope();
        long clock = Stopwatch.GetTimestamp();
        using (no_grad()) logitsOf().Dispose();
        return [.. parts, parts.Sum(), Alternation.Lap(ref clock)];
    }

    private static void CheckSame(Decoder ours, PlainDecoder plain, Tensor tokens_BT, Tensor targets_BT)
    {
        using DisposeScope scope = NewDisposeScope();
        using var quiet = no_grad();
        double logits = (ours.Forward(tokens_BT) - plain.call(tokens_BT)).abs().max().item<float>();
        double loss = Math.Abs(ours.Loss(tokens_BT, targets_BT).item<float>() - plain.Loss(tokens_BT, targets_BT).item<float>());
        if (!(logits < 1e-3 && loss < 1e-4)) throw new InvalidOperationException($"the two forms do not compute the same: logits differ by {logits}, losses by {loss}");
    }
}
