using System.Diagnostics;
using System.Reflection;
using NopeGpt.Model.Native;
using NopeGpt.Model.Optimizers;
using NopeGpt.Tests;
using TorchSharp;
using static TorchSharp.torch;

namespace NopeGpt.Model.Tests;

/// <summary>TorchSharp frees what nothing refers to while libtorch still reads it (docs/experiments.md).</summary>
public sealed class ScalarTests
{
    private static readonly ModelConfig Config = new()
    {
        VocabularySize = 40, EmbeddingDimensions = 8, NumQHeads = 2, NumKvHeads = 1, NumDecoderLayers = 1, ContextLength = 32,
        Positions = Positions.Rope, Mlp = Mlp.Swiglu, Dropout = 0.1, AttentionDropout = 0.1, ResidualDropout = 0.1, TiedHead = true,
    };

    public ScalarTests() => TorchRuntime.Load();

    [Fact]
    public void Nothing_makes_a_scalar_that_can_be_freed_during_its_call() =>
        Assert.Empty(UnkeptScalars.In(typeof(Decoder).Assembly, owner: typeof(Scalars)));

    [Fact]
    public void The_search_finds_what_the_compilers_ban_lets_through()
    {
        string[] found = [.. UnkeptScalars.In(Assembly.GetExecutingAssembly(), owner: typeof(Scalars)).Where(f => f.Contains(nameof(Sinner), StringComparison.Ordinal))];
        Assert.Equal(["op_Addition", "op_Implicit", "square"], found.Select(f => f.Split("calls ")[1].Split('(')[0].Split('.', ' ')[^1]).Order());
    }

    [Fact]
    public void Whole_training_steps_and_texts_are_the_same_bits_while_memory_is_collected_all_the_time()
    {
        // Only code that the runtime has optimised lets go of its objects early, so the quiet part goes on for a while.
        float[][] quiet = Work();
        for (long start = Stopwatch.GetTimestamp(); Stopwatch.GetElapsedTime(start).TotalSeconds < 1;) Check(quiet, "a quiet run");
        UnderCollections(3, () => Check(quiet, "a run under collections"));
    }

    [Fact]
    public void A_number_lives_as_long_as_its_call()
    {
        using Tensor x = arange(64, ScalarType.Float32);
        double factor = 1;
        UnderCollections(1.5, () =>
        {
            using DisposeScope scope = NewDisposeScope();
            factor = factor < 1000 ? factor + 1 : 1;
            Tensor y = x.mul(Scalars.Of(factor)).add(x, Scalars.Of(0.5 * factor)).add_(Scalars.One, Scalars.Of((long)factor));
            Assert.Equal(2.5 * factor, y[1].item<float>());
        });
    }

    [Fact]
    public void A_step_of_training_and_of_a_text_makes_no_tensor_outside_a_scope()
    {
        using Decoder model = new(Config, 3);
        using Optimizer optimizer = new AdamWOptions().Create(model.Parameters());
        using Tensor tokens_BT = Tokens();
        using KeyValueCache cache = new(Config, 2, 32);
        using (model.Forward(tokens_BT, cache)) { }
        long before = DisposeScopeManager.Statistics.TensorStatistics.CreatedOutsideScopeCount;
        using (Tensor loss = model.Loss(tokens_BT, tokens_BT)) loss.backward();
        using (GradientNorm.Clip(model.Parameters().Select(p => p.Parameter), 1)) { }
        optimizer.Step(1e-3);
        optimizer.ZeroGrad();
        cache.Truncate(4);
        using (model.Forward(tokens_BT, cache)) { }
        Assert.Equal(before, DisposeScopeManager.Statistics.TensorStatistics.CreatedOutsideScopeCount);
    }

    private static void UnderCollections(double seconds, Action work)
    {
        using CancellationTokenSource end = new();
        Thread collector = new(() =>
        {
            while (!end.IsCancellationRequested)
            {
                GC.Collect(0);
                GC.WaitForPendingFinalizers();
            }
        });
        collector.Start();
        try
        {
            for (long start = Stopwatch.GetTimestamp(); Stopwatch.GetElapsedTime(start).TotalSeconds < seconds;) work();
        }
        finally
        {
            end.Cancel();
            collector.Join();
        }
    }

    private static void Check(float[][] expected, string what)
    {
        float[][] found = Work();
        Assert.Equal(expected.Length, found.Length);
        for (int i = 0; i < found.Length; i++) Assert.True(expected[i].AsSpan().SequenceEqual(found[i]), $"result {i} of {what} differs");
    }

    /// <summary>A few steps with each optimizer, then texts of different options, from one seed.</summary>
    private static float[][] Work()
    {
        List<float[]> results = [];
        foreach (OptimizerOptions options in (OptimizerOptions[])[new AdamWOptions(), new AdafactorOptions { Fused = false }])
        {
            using Decoder model = new(Config, 3);
            using Optimizer optimizer = options.Create(model.Parameters());
            for (int step = 0; step < 4; step++)
            {
                using DisposeScope scope = NewDisposeScope();
                Tensor tokens_BT = Tokens(), loss = model.Loss(tokens_BT, tokens_BT.roll(-1, 1));
                loss.backward();
                Tensor norm = GradientNorm.Clip(model.Parameters().Select(p => p.Parameter), 0.5);
                results.Add([loss.item<float>(), norm.item<float>()]);
                optimizer.Step(0.01);
                optimizer.ZeroGrad();
            }
            results.AddRange(model.Parameters().Select(p => p.Parameter.data<float>().ToArray()));
            model.eval();
            TextRequest[] requests =
            [
                new([1, 2, 3], new SamplingOptions { TopK = 20, TopP = 0.9, RepeatPenalty = 0.1 }, 5, 12, []),
                new([4], new SamplingOptions { Temperature = 0.7, TopK = 0 }, 6, 12, []),
            ];
            results.AddRange(BatchGeneration.Run(model, requests, 32).Select(t => t.Tokens.SelectMany(k => (float[])[k.Id, k.Probability]).ToArray()));
            results.AddRange(BeamSearch.Run(model, [1, 2], new() { NumCandidates = 2, BeamWidth = 3, MaxTokens = 5 }, [0]).Select(c => (float[])[(float)c.Score, .. c.Tokens]));
        }
        return [.. results];
    }

    private static Tensor Tokens()
    {
        using Generator generator = new(4);
        return randint(0, Config.VocabularySize, [2, 16], generator: generator);
    }

    private static class Sinner
    {
        public static Tensor Grow(Tensor x)
        {
            x += x.square();
            return x.mul(0.5);
        }
    }
}
