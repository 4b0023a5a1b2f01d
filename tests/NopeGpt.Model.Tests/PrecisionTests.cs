using NopeGpt.Model.Native;
using NopeGpt.Model.Optimizers;
using NopeGpt.Model.Replicas;
using TorchSharp;
using Xunit.Abstractions;
using static TorchSharp.torch;

namespace NopeGpt.Model.Tests;

/// <summary>Training in narrow types against training in float32.</summary>
public sealed class PrecisionTests : IDisposable
{
    private static readonly ModelConfig Dropping = ReplicaRun.Config with { Dropout = 0.1, AttentionDropout = 0.1, ResidualDropout = 0.1 };

    private readonly DisposeScope _scope;
    private readonly Random _random;

    public PrecisionTests(ITestOutputHelper output)
    {
        int seed = Random.Shared.Next();
        output.WriteLine($"seed {seed}");
        _random = new(seed);
        TorchRuntime.Load();
        _scope = NewDisposeScope();
    }

    public static TheoryData<string> Names => ArchitectureTests.Names;

    public void Dispose() => _scope.Dispose();

    [Theory]
    [MemberData(nameof(Names))]
    public void Gradients_are_float32_and_those_of_float32_but_for_rounding(string option)
    {
        foreach ((Precision precision, double error) in (ReadOnlySpan<(Precision, double)>)[(Precision.Bfloat16, 0.03), (Precision.Float16, 0.005)])
        {
            ModelConfig config = ArchitectureTests.Options[option] with { Dropout = 0.1, AttentionDropout = 0.1, ResidualDropout = 0.1 };
            ulong seed = (ulong)_random.Next();
            using Decoder plain = new(config, seed), narrow = new(config, seed) { Precision = precision };
            (Tensor tokens_BT, Tensor targets_BT) = Batch(3, 17);
            Tensor expected = plain.Loss(tokens_BT, targets_BT), found = narrow.Loss(tokens_BT, targets_BT);
            Assert.Equal(ScalarType.Float32, found.dtype);
            Assert.Equal(expected.item<float>(), found.item<float>(), error * expected.item<float>());
            expected.backward();
            found.backward();
            Assert.Equal(plain.DropoutState, narrow.DropoutState);
            AssertNear(plain.Parameters(), narrow.Parameters(), error);
            Assert.Contains(plain.Parameters().Zip(narrow.Parameters()), p => !p.First.Parameter.grad!.equal(p.Second.Parameter.grad!).all().item<bool>());
        }
    }

    [Theory]
    [InlineData("nope")]
    [InlineData("rope")]
    [InlineData("gpt2")]
    [InlineData("lil-lm")]
    [InlineData("light-gpt")]
    [InlineData("padded vocabulary, own head")]
    public void Losses_of_50_steps_are_near_those_of_float32(string option)
    {
        ModelConfig config = ArchitectureTests.Options[option] with { VocabularySize = ReplicaRun.Config.VocabularySize };
        using ReplicaGroup plain = ReplicaRun.Group(1, Sharding.None, new AdamWOptions(), config);
        List<StepResult> expected = Memorise(plain);
        Assert.True(expected[^1].Loss < 0.7 * expected[0].Loss, $"from {expected[0].Loss} to {expected[^1].Loss}");
        foreach ((Precision precision, double error) in (ReadOnlySpan<(Precision, double)>)[(Precision.Bfloat16, 0.03), (Precision.Float16, 0.01)])
        {
            using ReplicaGroup narrow = Group(precision, 1, Sharding.None, config);
            List<StepResult> found = Memorise(narrow);
            for (int i = 0; i < 50; i++) Assert.True(Math.Abs(found[i].Loss - expected[i].Loss) < error, $"{precision}, step {i}: {found[i].Loss}, expected {expected[i].Loss}");
        }
    }

    [Theory]
    [InlineData(Sharding.None, false)]
    [InlineData(Sharding.Gradients, false)]
    [InlineData(Sharding.Parameters, false)]
    [InlineData(Sharding.Parameters, true)]
    public void Replicas_have_the_losses_of_one_and_hold_no_more_than_in_float32(Sharding sharding, bool again)
    {
        using ReplicaGroup one = Group(Precision.Bfloat16, 1, Sharding.None), two = Group(Precision.Bfloat16, 2, sharding, again: again), plain = ReplicaRun.Group(2, sharding, new AdamWOptions());
        Assert.All(two.Models, m => Assert.Equal((Precision.Bfloat16, again), (m.Precision, m.ActivationCheckpointing)));
        List<StepResult> expected = one.Steps(0, 50), found = two.Steps(0, 50);
        plain.Steps(0, 1);
        for (int i = 0; i < 50; i++) Assert.True(Math.Abs(found[i].Loss - expected[i].Loss) < 0.01, $"step {i}: {found[i].Loss}, expected {expected[i].Loss}");
        Assert.All([0, 1], rank => Assert.Equal(plain.HeldBytes(rank), two.HeldBytes(rank)));
    }

    [Theory]
    [InlineData(Precision.Bfloat16)]
    [InlineData(Precision.Float16)]
    public void Blocks_that_are_computed_again_give_the_same_bits(Precision precision)
    {
        using ReplicaGroup plain = Group(precision, 1, Sharding.None, Dropping), again = Group(precision, 1, Sharding.None, Dropping, again: true);
        Assert.Equal(plain.Steps(0, 5).Select(s => (s.Loss, s.GradientNorm)), again.Steps(0, 5).Select(s => (s.Loss, s.GradientNorm)));
        Assert.True(plain.Numbers().AsSpan().SequenceEqual(again.Numbers()));
    }

    [Fact]
    public void Micro_batches_are_added_up_in_float32()
    {
        using ReplicaGroup one = Group(Precision.Bfloat16, 1, Sharding.None), many = Group(Precision.Bfloat16, 1, Sharding.None);
        List<StepResult> expected = one.Steps(0, 20), found = many.Steps(0, 20, micros: 4);
        Assert.All(expected.Zip(found), p => Assert.Equal(p.First.Loss, p.Second.Loss, 0.01));
    }

    [Theory]
    [InlineData(1, 1)]
    [InlineData(2, 40)]
    public void Packed_rows_and_any_number_of_tokens_train(int rows, int length)
    {
        ModelConfig config = ReplicaRun.Config with { Positions = Positions.Rope };
        using Decoder plain = new(config, 3), narrow = new(config, 3) { Precision = Precision.Bfloat16 };
        (Tensor tokens_BT, Tensor targets_BT) = Batch(rows, length);
        Packing packing = new([.. Enumerable.Range(0, rows * length).Select(i => i % length < 5 ? 0 : 1)], rows, length);
        foreach (Decoder model in (Decoder[])[plain, narrow]) model.Loss(tokens_BT, targets_BT, packing).backward();
        AssertNear(plain.Parameters(), narrow.Parameters(), 0.03);
    }

    [Theory]
    [InlineData(Precision.Bfloat16, 0.2)]
    [InlineData(Precision.Float16, 0.02)]
    public void Adapters_train_in_narrow_types(Precision precision, double error)
    {
        using Decoder plain = new(ReplicaRun.Config, 3), narrow = new(ReplicaRun.Config, 3) { Precision = precision };
        Adapter[] adapters = [.. new[] { plain, narrow }.Select(m => Adapter.Create(m, new() { Rank = 4, Dropout = 0.2 }, 5, vocabularySize: 70))];
        (Tensor tokens_BT, Tensor targets_BT) = Batch(3, 12);
        foreach ((Decoder model, Adapter adapter) in new[] { plain, narrow }.Zip(adapters))
        {
            model.Attach(adapter);
            // B is zero at first, and A would get no gradient.
            using (no_grad())
            {
                using Generator generator = new(9);
                foreach ((_, Tensor tensor) in model.TrainedParameters()) tensor.add_(empty(tensor.shape).normal_(0, 0.02, generator), Scalars.One);
            }
            model.Loss(tokens_BT, targets_BT).backward();
        }
        AssertNear(plain.TrainedParameters(), narrow.TrainedParameters(), error);
        foreach ((Decoder model, Adapter adapter) in new[] { plain, narrow }.Zip(adapters)) model.Detach(adapter);
        foreach (Adapter adapter in adapters) adapter.Dispose();
    }

    [Fact]
    public void Evaluation_and_generation_are_those_of_float32_to_the_bit()
    {
        using Decoder plain = new(ReplicaRun.Config, 3), narrow = new(ReplicaRun.Config, 3) { Precision = Precision.Bfloat16 };
        (Tensor tokens_BT, Tensor targets_BT) = Batch(2, 8);
        using IDisposable quiet = no_grad();
        using (KeyValueCache one = new(plain.Config, 2, 8), other = new(narrow.Config, 2, 8))
            AssertSame(plain.Forward(tokens_BT, one), narrow.Forward(tokens_BT, other));
        Assert.False(plain.Forward(tokens_BT).equal(narrow.Forward(tokens_BT)).all().item<bool>());
        Assert.Equal(ScalarType.Float32, narrow.Forward(tokens_BT).dtype);
        plain.eval();
        narrow.eval();
        AssertSame(plain.Forward(tokens_BT), narrow.Forward(tokens_BT));
        AssertSame(plain.LossPerToken(tokens_BT, targets_BT), narrow.LossPerToken(tokens_BT, targets_BT));
    }

    [Fact]
    public void Auto_is_no_type_of_a_model()
    {
        using Decoder model = new(ReplicaRun.Config, 3);
        Assert.Equal(Precision.Float32, model.Precision);
        Assert.Contains("auto is chosen", Assert.Throws<ArgumentException>(() => model.Precision = Precision.Auto).Message, StringComparison.Ordinal);
        Assert.Throws<ArgumentException>(() => model.Precision = (Precision)9);
        Assert.Equal(Precision.Float32, model.Precision);
    }

    [Fact]
    public void Steps_leave_no_tensors_behind()
    {
        using Decoder model = new(ReplicaRun.Config, 1) { Precision = Precision.Bfloat16 };
        (Tensor tokens_BT, Tensor targets_BT) = Batch(2, 16);
        List<long> live = [];
        for (int i = 0; i < 6; i++)
        {
            using (NewDisposeScope()) model.Loss(tokens_BT, targets_BT).backward();
            live.Add(DisposeScopeManager.Statistics.ThreadTotalLiveCount);
        }
        Assert.All(live.Skip(2), count => Assert.Equal(live[1], count));
    }

    internal static ReplicaGroup Group(Precision precision, int count, Sharding sharding, ModelConfig? config = null, bool again = false) => new(
        new Decoder(config ?? ReplicaRun.Config, 3) { Precision = precision, ActivationCheckpointing = again }, new AdamWOptions(),
        new() { Devices = [.. Enumerable.Repeat(CPU, count)], Sharding = sharding, Seed = 3 })
    { LossScale = precision == Precision.Float16 ? LossScaler.Dynamic() : LossScaler.Fixed(1) };

    // The same four rows again and again, so that the loss falls far.
    private static List<StepResult> Memorise(ReplicaGroup group) => [.. Enumerable.Range(0, 50).Select(_ => group.Step(0))];

    private (Tensor Tokens_BT, Tensor Targets_BT) Batch(int rows, int length)
    {
        long[] ids = [.. Enumerable.Range(0, rows * (length + 1)).Select(_ => _random.NextInt64(61))];
        return (tensor(ids[..(rows * length)], [rows, length]), tensor(ids[rows..], [rows, length]));
    }

    private static void AssertNear(IReadOnlyList<(string Name, Tensor Parameter)> expected, IReadOnlyList<(string Name, Tensor Parameter)> found, double error)
    {
        foreach (((string name, Tensor plain), (_, Tensor narrow)) in expected.Zip(found))
        {
            Assert.Equal((ScalarType.Float32, ScalarType.Float32), (narrow.dtype, narrow.grad!.dtype));
            double difference = narrow.grad.sub(plain.grad!).norm().item<float>(), size = plain.grad!.norm().item<float>();
            // The gradient of a key's bias is rounding alone: softmax does not see it.
            Assert.True(difference < error * (size + 0.01), $"{name}: the gradient is off by {difference} of {size}");
        }
    }

    private static void AssertSame(Tensor expected, Tensor found) => Assert.True(expected.equal(found).all().item<bool>());
}
