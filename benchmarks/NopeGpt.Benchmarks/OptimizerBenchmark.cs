using System.Diagnostics;
using NopeGpt.Model;
using NopeGpt.Model.Optimizers;
using TorchSharp;
using static TorchSharp.torch;
using Optimizer = NopeGpt.Model.Optimizers.Optimizer;
using Parameter = TorchSharp.Modules.Parameter;

namespace NopeGpt.Benchmarks;

/// <summary>One optimizer step over the tensors of a 26M decoder: our forms and those that one writes in plain TorchSharp, in alternation,
/// each with weights and gradients of its own, so that none finds its numbers in the cache.</summary>
internal static class OptimizerBenchmark
{
    private const int Rounds = 15;

    private sealed record Contender(string Name, Action Step, List<double> Milliseconds);

    public static void Run()
    {
        using DisposeScope scope = NewDisposeScope();
        ModelConfig config = new() { VocabularySize = 8192, EmbeddingDimensions = 512, NumQHeads = 8, NumKvHeads = 2, NumDecoderLayers = 8 };
        long[][] shapes;
        using (Decoder model = new(config, 1)) shapes = [.. model.Parameters().Select(p => p.Parameter.shape)];

        List<Contender> contenders =
        [
            Ours("AdamW, libtorch's fused kernel", shapes, new AdamWOptions()),
            Ours("Adafactor, our CPU kernel", shapes, new AdafactorOptions()),
            Ours("Adafactor, foreach", shapes, new AdafactorOptions { Fused = false }),
            Ours("Adafactor, low memory", shapes, new AdafactorOptions { Fused = false, LowMemory = true }),
            PlainAdamW(shapes),
            PlainAdafactor(shapes),
        ];
        foreach (Contender contender in contenders) for (int i = 0; i < 3; i++) contender.Step();
        for (int round = 0; round < Rounds; round++)
        {
            foreach (Contender contender in contenders)
            {
                long start = Stopwatch.GetTimestamp();
                contender.Step();
                contender.Milliseconds.Add(Stopwatch.GetElapsedTime(start).TotalMilliseconds);
            }
        }
        Console.WriteLine($"optimizer step, {config.ParameterCount:N0} parameters, {shapes.Length} tensors, {get_num_threads()} threads, median of {Rounds}");
        double fused = Median(contenders[0]);
        foreach (Contender contender in contenders)
            Console.WriteLine($"  {contender.Name,-40} {Median(contender),8:0.0} ms  best {contender.Milliseconds.Min(),8:0.0} ms  {Median(contender) / fused,6:0.00} x fused AdamW");
    }

    private static Contender Ours(string name, long[][] shapes, OptimizerOptions options)
    {
        Parameter[] parameters = Parameters(shapes);
        Optimizer optimizer = options.Create([.. parameters.Select((p, i) => ($"p{i}", (Tensor)p))]);
        return new Contender($"{name} ({optimizer.StateBytes / 1e6:0.0} MB of state)", () => optimizer.Step(1e-4), []);
    }

    private static Contender PlainAdamW(long[][] shapes)
    {
        optim.Optimizer optimizer = optim.AdamW(Parameters(shapes), 1e-4, weight_decay: 0.1);
        return new Contender("AdamW, TorchSharp's own", () => optimizer.step(), []);
    }

    private static Contender PlainAdafactor(long[][] shapes)
    {
        Parameter[] parameters = Parameters(shapes);
        (Tensor Row, Tensor Column)[] means = [.. shapes.Select(s => s.Length > 1 ? (zeros(s[0], 1), zeros(1, s[1])) : (zeros(s), zeros(0)))];
        int step = 0;
        return new Contender("Adafactor, plain TorchSharp operators", () =>
        {
            step++;
            for (int i = 0; i < parameters.Length; i++) PlainStep(parameters[i], means[i].Row, means[i].Column, step, 1e-4);
        }, []);
    }

    // As the formula stands: every mean, product and root a tensor of its own.
    private static void PlainStep(Parameter weight, Tensor row, Tensor column, int step, double rate)
    {
        using DisposeScope scope = NewDisposeScope();
        using IDisposable quiet = no_grad();
        double share = Math.Pow(step, -0.8);
        Tensor gradient = weight.grad!, squares = gradient * gradient, variance;
        double alpha = Math.Max(1e-3, (weight * weight).mean().sqrt().item<float>()) * Math.Min(rate, 1 / Math.Sqrt(step));
        if (weight.dim() > 1)
        {
            row.mul_(1 - share).add_(squares.mean([1], keepdim: true) * share);
            column.mul_(1 - share).add_(squares.mean([0], keepdim: true) * share);
            variance = row.matmul(column) / row.mean().clamp(min: 1.1920929e-7);
        }
        else variance = row.mul_(1 - share).add_(squares * share);
        Tensor update = gradient / variance.clamp(min: 1.1920929e-7 * 1.1920929e-7).sqrt();
        double cut = Math.Max(1, (update * update).mean().sqrt().item<float>());
        weight.sub_(update * (alpha / cut));
    }

    private static Parameter[] Parameters(long[][] shapes)
    {
        using Generator generator = new(1);
        return [.. shapes.Select(shape => new Parameter(randn(shape, generator: generator).mul_(0.02)) { grad = randn(shape, generator: generator).mul_(1e-3) })];
    }

    private static double Median(Contender contender) => contender.Milliseconds.Order().ElementAt(Rounds / 2);
}
