using System.Diagnostics;
using NopeGpt.Model;
using NopeGpt.Model.Optimizers;
using TorchSharp;
using static TorchSharp.torch;

namespace NopeGpt.Benchmarks;

/// <summary>A step that trains an adapter beside one that trains everything, on the same base, in alternation.</summary>
internal static class LoraBenchmark
{
    private const int Rows = 8, Length = 256, Rank = 8;

    private sealed record Contender(string Name, Decoder Model, Adapter? Adapter, AdamW Adam) : IDisposable
    {
        public Tensor[] Trained { get; } = [.. Model.TrainedParameters().Select(p => p.Parameter)];

        public void Dispose()
        {
            Adam.Dispose();
            Model.Dispose();
            Adapter?.Dispose();
        }
    }

    public static void Run(bool quick)
    {
        int rounds = quick ? 3 : 11;
        ModelConfig config = Models.Nope;
        using Contender all = Create("all parameters", config, null);
        using Contender adapted = Create($"rank {Rank}, embedding too", config, new LoraConfig { Rank = Rank });
        using Contender frozen = Create($"rank {Rank}, embedding frozen", config, new LoraConfig { Rank = Rank, FreezeTokenEmbeddings = true });
        Contender[] contenders = [all, adapted, frozen];
        using Tensor tokens_BT = randint(0, config.VocabularySize, [Rows, Length]), targets_BT = randint(0, config.VocabularySize, [Rows, Length]);
        Func<double[]>[] steps = [.. contenders.Select(c => (Func<double[]>)(() => Step(c, tokens_BT, targets_BT)))];
        foreach (Func<double[]> step in steps) step();
        double[][] medians = Alternation.Medians(rounds, steps);
        Console.WriteLine($"LoRA, NoPE {Models.Size(config)}, batch {Rows} x {Length}, {get_num_threads()} threads, medians of {rounds} rounds");
        for (int i = 0; i < contenders.Length; i++)
        {
            double[] m = medians[i];
            Console.WriteLine($"  {contenders[i].Name,-26} {contenders[i].Trained.Sum(t => t.numel()),11:N0} trained   forward {m[0],7:0.0}   backward {m[1],7:0.0}   clipping and AdamW {m[2],6:0.0}   step {m[3],7:0.0} ms   {m[3] / medians[0][3]:P0} of the full step");
        }
    }

    private static Contender Create(string name, ModelConfig config, LoraConfig? lora)
    {
        Decoder model = new(config, 1);
        Adapter? adapter = lora is null ? null : Adapter.Create(model, lora, 1);
        if (adapter is not null) model.Attach(adapter);
        return new(name, model, adapter, new AdamW(model.TrainedParameters(), new AdamWOptions()));
    }

    private static double[] Step(Contender contender, Tensor tokens_BT, Tensor targets_BT)
    {
        using DisposeScope scope = NewDisposeScope();
        long clock = Stopwatch.GetTimestamp();
        Tensor loss = contender.Model.Loss(tokens_BT, targets_BT);
        double forward = Alternation.Lap(ref clock);
        loss.backward();
        double backward = Alternation.Lap(ref clock);
        GradientNorm.Clip(contender.Trained, 1);
        contender.Adam.Step(1e-4);
        contender.Adam.ZeroGrad();
        double update = Alternation.Lap(ref clock);
        return [forward, backward, update, forward + backward + update];
    }
}
