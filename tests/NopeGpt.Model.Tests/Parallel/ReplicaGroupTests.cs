using NopeGpt.Model.Native;
using NopeGpt.Model.Optimizers;
using NopeGpt.Model.Replicas;
using NopeGpt.Model.Storage;
using TorchSharp;
using static TorchSharp.torch;

namespace NopeGpt.Model.Tests;

public sealed class ReplicaGroupTests
{
    private const int StepsEach = 50;

    private static readonly Lazy<List<StepResult>> Adam = new(() => Alone(new AdamWOptions())), Factored = new(() => Alone(new AdafactorOptions()));

    public ReplicaGroupTests() => TorchRuntime.Load();

    public static TheoryData<int, Sharding, bool> Groups()
    {
        TheoryData<int, Sharding, bool> data = [];
        foreach (int count in (int[])[2, 4])
            foreach (Sharding sharding in Enum.GetValues<Sharding>())
                foreach (bool adafactor in (bool[])[false, true]) data.Add(count, sharding, adafactor);
        return data;
    }

    [Theory]
    [MemberData(nameof(Groups))]
    public void Replicas_have_the_losses_of_one_with_the_same_global_batch(int count, Sharding sharding, bool adafactor)
    {
        using ReplicaGroup group = ReplicaRun.Group(count, sharding, adafactor ? new AdafactorOptions() : new AdamWOptions());
        Assert.Equal(count, group.Count);
        AssertClose((adafactor ? Factored : Adam).Value, group.Steps(0, StepsEach));
        Assert.Equal(StepsEach, group.StepCount);
    }

    [Theory]
    [InlineData(1, Sharding.None)]
    [InlineData(2, Sharding.None)]
    [InlineData(2, Sharding.Gradients)]
    [InlineData(2, Sharding.Parameters)]
    public void Micro_batches_give_the_losses_of_one_batch_of_all_of_them(int count, Sharding sharding)
    {
        using ReplicaGroup group = ReplicaRun.Group(count, sharding, new AdamWOptions());
        AssertClose(Adam.Value[..20], group.Steps(0, 20, micros: 2));
    }

    [Fact]
    public void A_group_of_one_does_what_the_plain_loop_does_to_the_bit()
    {
        using DisposeScope scope = NewDisposeScope();
        using ReplicaGroup group = ReplicaRun.Group(1, Sharding.Parameters, new AdamWOptions(), Dropping);
        using Decoder model = new(Dropping, 3);
        using Optimizer optimizer = new AdamWOptions().Create(model.Parameters());
        for (int step = 0; step < 5; step++)
        {
            MicroBatch batch = ReplicaRun.Batch(7, step, 1, 1, 0, 0);
            StepResult result = group.Step(step);
            Tensor loss = model.Loss(tensor(batch.Tokens, [batch.Rows, batch.Length]), tensor(batch.Targets, [batch.Rows, batch.Length]));
            loss.backward();
            Tensor norm = GradientNorm.Clip(model.Parameters().Select(p => p.Parameter), 0.5);
            optimizer.Step(3e-3);
            optimizer.ZeroGrad();
            Assert.Equal(loss.item<float>(), result.Loss);
            Assert.Equal(norm.item<float>(), result.GradientNorm);
        }
        foreach (((string name, Tensor expected), (_, Tensor found)) in model.Parameters().Zip(group.Model.Parameters()))
            Assert.True(expected.equal(found).all().item<bool>(), name);
    }

    [Theory]
    [InlineData(Sharding.None, false)]
    [InlineData(Sharding.Gradients, false)]
    [InlineData(Sharding.Parameters, true)]
    public void The_same_run_gives_the_same_bits_and_every_replica_has_them(Sharding sharding, bool adafactor)
    {
        OptimizerOptions options = adafactor ? new AdafactorOptions() : new AdamWOptions();
        using ReplicaGroup one = ReplicaRun.Group(4, sharding, options, Dropping), other = ReplicaRun.Group(4, sharding, options, Dropping);
        Assert.Equal(one.Steps(0, 8).Select(r => (r.Loss, r.GradientNorm)), other.Steps(0, 8).Select(r => (r.Loss, r.GradientNorm)));
        Assert.True(one.Numbers().AsSpan().SequenceEqual(other.Numbers()));
        using DisposeScope scope = NewDisposeScope();
        using IDisposable quiet = no_grad();
        foreach (Decoder model in one.Models) model.eval();
        Tensor tokens_BT = tensor(ReplicaRun.Batch(7, 99, 1, 1, 0, 0).Tokens, [ReplicaRun.Rows, ReplicaRun.Length]);
        Tensor[] logits = [.. one.Models.Select(m => m.Forward(tokens_BT))];
        Assert.All(logits[1..], l => Assert.True(l.equal(logits[0]).all().item<bool>()));
    }

    [Theory]
    [InlineData(2, Sharding.None)]
    [InlineData(2, Sharding.Gradients)]
    [InlineData(2, Sharding.Parameters)]
    [InlineData(4, Sharding.Parameters)]
    public void Blocks_that_are_computed_again_give_the_same_bits_also_where_their_parameters_are_gathered_again(int count, Sharding sharding)
    {
        foreach (ModelConfig config in (ModelConfig[])[Dropping, Dropping with { Positions = Positions.Rope, Mlp = Mlp.Swiglu, TiedHead = false, NumDecoderLayers = 3 }])
        {
            using ReplicaGroup plain = New(false), again = New(true);
            for (int step = 0; step < 4; step++)
            {
                (StepResult expected, StepResult found) = (Step(plain), Step(again));
                Assert.Equal((expected.Loss, expected.GradientNorm), (found.Loss, found.GradientNorm));

                StepResult Step(ReplicaGroup group) => group.Step((r, m) => ReplicaRun.Batch(7 + r, step, 1, 2, 0, m), 2, 3e-3, 0.5);
            }
            Assert.True(plain.Numbers().AsSpan().SequenceEqual(again.Numbers()));

            ReplicaGroup New(bool recomputing) => new(new Decoder(config, 3) { ActivationCheckpointing = recomputing }, new AdamWOptions(),
                new() { Devices = [.. Enumerable.Repeat(CPU, count)], Sharding = sharding, Seed = 5 });
        }
    }

    [Fact]
    public void Every_replica_draws_a_dropout_of_its_own()
    {
        using ReplicaGroup group = ReplicaRun.Group(4, Sharding.None, new AdamWOptions(), Dropping);
        Assert.Equal(4, group.Generators.Select(Convert.ToHexString).Distinct().Count());
        IReadOnlyList<byte[]> before = group.Generators;
        group.Step(0);
        Assert.All(before.Zip(group.Generators), pair => Assert.False(pair.First.AsSpan().SequenceEqual(pair.Second)));
    }

    public static TheoryData<string, ModelConfig> Architectures() => new()
    {
        { "RoPE, SwiGLU, untied head", ReplicaRun.Config with { Positions = Positions.Rope, Mlp = Mlp.Swiglu, TiedHead = false } },
        { "GPT-2", ReplicaRun.Config with { Positions = Positions.Learned, Norm = Norm.LayerNorm, NormBias = true, Mlp = Mlp.Gelu, LinearBias = true, VocabularyMultipleOf = 64 } },
        { "one block", ReplicaRun.Config with { NumDecoderLayers = 1 } },
        { "one block, untied head", ReplicaRun.Config with { NumDecoderLayers = 1, TiedHead = false } },
    };

    [Theory]
    [MemberData(nameof(Architectures))]
    public void Every_architecture_trains_alike_at_every_level(string name, ModelConfig config)
    {
        foreach (OptimizerOptions options in (OptimizerOptions[])[new AdamWOptions(), new AdafactorOptions()])
        {
            using ReplicaGroup one = ReplicaRun.Group(1, Sharding.None, options, config);
            List<StepResult> expected = one.Steps(0, 10);
            Assert.NotEqual(expected[0].Loss, expected[^1].Loss);
            foreach (Sharding sharding in Enum.GetValues<Sharding>())
            {
                using ReplicaGroup group = ReplicaRun.Group(2, sharding, options, config);
                AssertClose(expected, group.Steps(0, 10), $"{name}, {sharding}");
            }
        }
    }

    [Theory]
    [InlineData(Sharding.None)]
    [InlineData(Sharding.Gradients)]
    [InlineData(Sharding.Parameters)]
    public void Adapters_train_alike_and_their_frozen_base_is_split_with_the_parameters(Sharding sharding)
    {
        using ReplicaGroup one = WithAdapter(1, Sharding.None), group = WithAdapter(2, sharding);
        long whole = one.HeldBytes(0).Parameters;
        AssertClose(one.Steps(0, 10), group.Steps(0, 10));
        using TrainingState state = one.Capture(), same = group.Capture();
        Assert.Equal(state.Parameters.Select(p => p.Name), same.Parameters.Select(p => p.Name));
        Assert.All(state.Parameters.Zip(same.Parameters), p => Assert.True(p.First.Tensor.allclose(p.Second.Tensor, rtol: 1e-3, atol: 1e-4), p.First.Name));
        if (sharding == Sharding.Parameters) Assert.InRange(group.HeldBytes(1).Parameters, whole / 2, (whole / 2) + 4096);

        static ReplicaGroup WithAdapter(int count, Sharding sharding)
        {
            Decoder model = new(ReplicaRun.Config, 3);
            model.Attach(Adapter.Create(model, new() { Rank = 2, FreezeTokenEmbeddings = true }, 5));
            return new(model, new AdamWOptions(), new() { Devices = [.. Enumerable.Repeat(CPU, count)], Sharding = sharding });
        }
    }

    [Fact]
    public void Rows_of_several_sequences_are_read_as_by_one_replica()
    {
        using ReplicaGroup one = ReplicaRun.Group(1, Sharding.None, new AdamWOptions()), two = ReplicaRun.Group(2, Sharding.None, new AdamWOptions());
        for (int step = 0; step < 3; step++)
        {
            StepResult expected = one.Step((r, m) => Packed(step, 1, r), 1, 1e-3, 1), found = two.Step((r, m) => Packed(step, 2, r), 1, 1e-3, 1);
            Assert.Equal(expected.Loss, found.Loss, 1e-5);
            Assert.NotEqual(expected.Loss, one.Step((r, m) => Packed(step, 1, r) with { Sequences = null }, 1, 0, 1).Loss, 1e-5);
            two.Step((r, m) => Packed(step, 2, r) with { Sequences = null }, 1, 0, 1);
        }

        static MicroBatch Packed(int step, int replicas, int replica) => ReplicaRun.Batch(7, step, replicas, 1, replica, 0) with
        {
            Sequences = [.. Enumerable.Range(0, ReplicaRun.Rows / replicas).SelectMany(_ => (int[])[0, 0, 0, 1, 1, 1, 1, -1])],
        };
    }

    [Fact]
    public void A_batch_without_labels_has_no_loss_and_no_gradient()
    {
        using ReplicaGroup group = ReplicaRun.Group(2, Sharding.Gradients, new AdamWOptions());
        StepResult result = group.Step((r, m) => ReplicaRun.Batch(7, 0, 2, 1, r, m) is var batch
            ? batch with { Targets = [.. batch.Targets.Select(_ => (long)Decoder.IgnoredTarget)] } : batch, 1, 1e-3, 1);
        Assert.Equal((0, 0, 0), (result.Loss, result.GradientNorm, result.Labelled));
    }

    [Fact]
    public void A_scale_of_the_loss_is_in_no_result()
    {
        using ReplicaGroup plain = ReplicaRun.Group(2, Sharding.None, new AdamWOptions()), scaled = ReplicaRun.Group(2, Sharding.None, new AdamWOptions());
        scaled.LossScale = LossScaler.Fixed(1024);
        Assert.Equal(plain.Steps(0, 5).Select(r => (r.Loss, r.GradientNorm)), scaled.Steps(0, 5).Select(r => (r.Loss, r.GradientNorm)));
        Assert.True(plain.Numbers().AsSpan().SequenceEqual(scaled.Numbers()));
    }

    [Fact]
    public void What_does_not_fit_is_refused()
    {
        using Decoder model = new(ReplicaRun.Config, 1);
        Assert.Contains("choose 0", Assert.Throws<ArgumentException>(() => new ReplicaGroup(model, new AdamWOptions(), new() { Sharding = (Sharding)1 })).Message);
        Assert.Contains("must be the first", Assert.Throws<ArgumentException>(() => new ReplicaGroup(model, new AdamWOptions(), new() { Devices = [META] })).Message);
        Assert.Contains("beta1", Assert.Throws<ArgumentException>(() => new ReplicaGroup(model, new AdamWOptions { Beta1 = 2 }, new() { Devices = [CPU, CPU] })).Message);
        using ReplicaGroup group = ReplicaRun.Group(1, Sharding.None, new AdamWOptions());
        Assert.Throws<ArgumentOutOfRangeException>(() => group.Step(0, micros: 0));
        Assert.Throws<ArgumentOutOfRangeException>(() => group.Step(0, maxNorm: 0));
        Assert.Throws<ArgumentOutOfRangeException>(() => group.Step(0, rate: double.NaN));
        Assert.Contains("needs 8 tokens", Assert.Throws<ArgumentException>(() => group.Step((_, _) => new(2, 4, new long[8], new long[7]), 1, 1, 1)).Message);
    }

    private static ModelConfig Dropping => ReplicaRun.Config with { Dropout = 0.1, AttentionDropout = 0.1, ResidualDropout = 0.1 };

    private static List<StepResult> Alone(OptimizerOptions options)
    {
        using ReplicaGroup one = ReplicaRun.Group(1, Sharding.None, options);
        return one.Steps(0, StepsEach);
    }

    private static void AssertClose(List<StepResult> expected, List<StepResult> found, string what = "")
    {
        for (int i = 0; i < expected.Count; i++)
        {
            Assert.True(Math.Abs(expected[i].Loss - found[i].Loss) < 1e-5, $"{what} step {i}: loss {found[i].Loss}, expected {expected[i].Loss}");
            Assert.True(Math.Abs(expected[i].GradientNorm - found[i].GradientNorm) < 1e-3 * expected[i].GradientNorm, $"{what} step {i}: norm {found[i].GradientNorm}, expected {expected[i].GradientNorm}");
            Assert.Equal(expected[i].Labelled, found[i].Labelled);
        }
    }
}
