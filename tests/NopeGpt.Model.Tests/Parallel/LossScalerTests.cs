using NopeGpt.Model.Native;
using NopeGpt.Model.Optimizers;
using NopeGpt.Model.Replicas;
using static TorchSharp.torch;

namespace NopeGpt.Model.Tests;

public sealed class LossScalerTests
{
    // Gradients of this tiny model leave float16's range there, and not some halvings below.
    private const double TooHigh = 1 << 24;

    public LossScalerTests() => TorchRuntime.Load();

    [Theory]
    [InlineData(1, Sharding.None)]
    [InlineData(2, Sharding.None)]
    [InlineData(2, Sharding.Gradients)]
    [InlineData(2, Sharding.Parameters)]
    public void An_overflow_halves_the_scale_and_the_step_is_computed_again(int count, Sharding sharding)
    {
        ModelConfig config = ReplicaRun.Config with { Dropout = 0.1, ResidualDropout = 0.1 };
        using ReplicaGroup group = PrecisionTests.Group(Precision.Float16, count, sharding, config), settled = PrecisionTests.Group(Precision.Float16, count, sharding, config);
        group.LossScale = LossScaler.Dynamic(TooHigh);
        StepResult first = group.Step(0);
        Assert.InRange(first.Overflows, 1, 23);
        Assert.Equal(TooHigh / Math.Pow(2, first.Overflows), first.LossScale);
        Assert.Equal((first.LossScale, 1), (group.LossScale.Scale, group.LossScale.GoodSteps));
        // As if that had been the scale from the beginning: masks of dropout too.
        settled.LossScale = LossScaler.Fixed(first.LossScale);
        StepResult expected = settled.Step(0);
        Assert.Equal((expected.Loss, expected.GradientNorm), (first.Loss, first.GradientNorm));
        Assert.True(settled.Numbers().AsSpan().SequenceEqual(group.Numbers()));
        Assert.Equal(settled.Generators, group.Generators);
        Assert.Equal(1, group.StepCount);
    }

    [Fact]
    public void Enough_good_steps_double_the_scale()
    {
        using ReplicaGroup group = PrecisionTests.Group(Precision.Float16, 1, Sharding.None);
        group.LossScale = LossScaler.Dynamic(8, stepsToGrow: 3);
        Assert.Equal([8, 8, 8, 16, 16, 16, 32], group.Steps(0, 7).Select(s => s.LossScale));
        Assert.Equal((32, 1), (group.LossScale.Scale, group.LossScale.GoodSteps));
    }

    [Fact]
    public void The_scale_stays_in_its_bounds()
    {
        LossScaler scaler = LossScaler.Dynamic(TooHigh, stepsToGrow: 1);
        scaler.Succeeded();
        Assert.Equal(TooHigh, scaler.Scale);
        for (int i = 0; i < 24; i++) Assert.True(scaler.Overflowed());
        Assert.Equal(1, scaler.Scale);
        Assert.False(scaler.Overflowed());
        Assert.Equal(1, scaler.Scale);
        Assert.Equal((65536, 0), (LossScaler.Dynamic().Scale, LossScaler.Dynamic().GoodSteps));
        LossScaler fixedOne = LossScaler.Fixed(0.5);
        fixedOne.Succeeded();
        Assert.False(fixedOne.Overflowed());
        Assert.Equal((0.5, 0), (fixedOne.Scale, fixedOne.GoodSteps));
    }

    [Theory]
    [InlineData(0.5, 0)]
    [InlineData(1L << 25, 0)]
    [InlineData(double.NaN, 0)]
    [InlineData(8, -1)]
    [InlineData(8, 2000)]
    public void A_state_that_can_never_have_been_is_refused(double scale, int goodSteps)
    {
        LossScaler scaler = LossScaler.Dynamic();
        Assert.Throws<ArgumentOutOfRangeException>(() => scaler.Restore(scale, goodSteps));
        Assert.Equal((65536, 0), (scaler.Scale, scaler.GoodSteps));
    }

    [Fact]
    public void Gradients_that_no_scale_makes_finite_end_the_step_and_change_nothing()
    {
        using ReplicaGroup group = PrecisionTests.Group(Precision.Float16, 2, Sharding.Gradients, ReplicaRun.Config with { Dropout = 0.1 });
        group.Step(0);
        // The MLP is silent, and its gradient a product of large numbers.
        Fill(group, "decoder.layers.0.norm2.weight", 1e4f);
        Fill(group, "decoder.layers.0.stage2.linear1.weight", 0);
        Fill(group, "decoder.layers.0.stage2.linear2.weight", 6e4f);
        group.LossScale = LossScaler.Dynamic(16);
        group.LossScale.Restore(16, 5);
        (float[] before, IReadOnlyList<byte[]> generators) = (group.Numbers(), group.Generators);
        int passes = 0;
        NonFiniteStepException error = Assert.Throws<NonFiniteStepException>(() =>
            group.Step((replica, micro) => ReplicaRun.Batch(7, 1, 2, 1, replica, micro), 1, 1e-3, 1, started: _ => passes++));
        Assert.True(double.IsFinite(error.Loss));
        // At 16, 8, 4, 2 and 1.
        Assert.Equal(5, passes);
        Assert.Equal((16, 5), (group.LossScale.Scale, group.LossScale.GoodSteps));
        Assert.True(before.AsSpan().SequenceEqual(group.Numbers()));
        Assert.Equal(generators, group.Generators);
    }

    [Fact]
    public void A_loss_that_is_not_finite_is_not_computed_again()
    {
        using ReplicaGroup group = PrecisionTests.Group(Precision.Float16, 1, Sharding.None);
        Fill(group, "token_embeddings.weight", float.NaN);
        int passes = 0;
        Assert.Throws<NonFiniteStepException>(() => group.Step((replica, micro) => ReplicaRun.Batch(7, 1, 1, 1, replica, micro), 1, 1e-3, 1, started: _ => passes++));
        Assert.Equal((1, 65536), (passes, group.LossScale.Scale));
    }

    [Fact]
    public void Small_gradients_survive_float16_by_the_scale()
    {
        // A scale of 1e-5 makes of this batch's gradients those of a hundred thousand times as many tokens.
        using ReplicaGroup plain = PrecisionTests.Group(Precision.Float32, 1, Sharding.None), scaled = PrecisionTests.Group(Precision.Float16, 1, Sharding.None), bare = PrecisionTests.Group(Precision.Float16, 1, Sharding.None);
        bare.LossScale = LossScaler.Fixed(1e-5);
        double expected = plain.Step(0).GradientNorm;
        double with = Math.Abs(scaled.Step(0).GradientNorm - expected), without = Math.Abs(bare.Step(0).GradientNorm - expected);
        Assert.True(with < 0.01 * expected && without > 5 * with, $"off by {with} and {without} of {expected}");
    }

    private static void Fill(ReplicaGroup group, string name, float value)
    {
        using IDisposable quiet = no_grad();
        foreach (Decoder model in group.Models) model.Parameters().First(p => p.Name == name).Parameter.fill_(Scalars.Of(value));
    }
}
