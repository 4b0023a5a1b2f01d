using NopeGpt.Model.Optimizers;

namespace NopeGpt.Model.Tests;

public sealed class LearningRateTests
{
    [Theory]
    // schedule, step, steps, warm-up, minimum ratio, decay fraction, expected at peak 2
    [InlineData(LearningRateSchedule.Constant, 0, 100, 0, 0, 0.1, 2)]
    [InlineData(LearningRateSchedule.Constant, 500, 100, 0, 0.5, 0.1, 2)]
    [InlineData(LearningRateSchedule.Constant, 0, 100, 4, 0, 0.1, 0.5)]
    [InlineData(LearningRateSchedule.Constant, 3, 100, 4, 0, 0.1, 2)]
    [InlineData(LearningRateSchedule.Linear, 0, 5, 0, 0, 0.1, 2)]
    [InlineData(LearningRateSchedule.Linear, 1, 5, 0, 0, 0.1, 1.6)]
    [InlineData(LearningRateSchedule.Linear, 4, 5, 0, 0, 0.1, 0.4)]
    [InlineData(LearningRateSchedule.Linear, 5, 5, 0, 0, 0.1, 0)]
    [InlineData(LearningRateSchedule.Linear, 60, 110, 10, 0.5, 0.1, 1.5)]
    [InlineData(LearningRateSchedule.Cosine, 9, 110, 10, 0.1, 0.1, 2)]
    [InlineData(LearningRateSchedule.Cosine, 10, 110, 10, 0.1, 0.1, 2)]
    [InlineData(LearningRateSchedule.Cosine, 35, 110, 10, 0, 0.1, 1.7071067811865475)]
    [InlineData(LearningRateSchedule.Cosine, 60, 110, 10, 0.1, 0.1, 1.1)]
    [InlineData(LearningRateSchedule.Cosine, 110, 110, 10, 0.1, 0.1, 0.2)]
    [InlineData(LearningRateSchedule.Cosine, 9999, 110, 10, 0.1, 0.1, 0.2)]
    [InlineData(LearningRateSchedule.WarmupStableDecay, 4, 100, 10, 0, 0.2, 1)]
    [InlineData(LearningRateSchedule.WarmupStableDecay, 80, 100, 10, 0, 0.2, 2)]
    [InlineData(LearningRateSchedule.WarmupStableDecay, 90, 100, 10, 0, 0.2, 1)]
    [InlineData(LearningRateSchedule.WarmupStableDecay, 90, 100, 10, 0.5, 0.2, 1.5)]
    [InlineData(LearningRateSchedule.WarmupStableDecay, 100, 100, 10, 0, 0.2, 0)]
    // A decay that would begin within the warm-up begins after it.
    [InlineData(LearningRateSchedule.WarmupStableDecay, 75, 100, 50, 0, 1, 1)]
    // A run that is all warm-up never divides by nothing.
    [InlineData(LearningRateSchedule.Cosine, 99, 100, 100, 0, 0.1, 2)]
    [InlineData(LearningRateSchedule.Cosine, 100, 100, 100, 0, 0.1, 0)]
    public void The_rate_follows_the_table(LearningRateSchedule schedule, long step, long steps, long warmup, double minimum, double decay, double expected) =>
        Assert.Equal(expected, LearningRate.At(schedule, 2, step, steps, warmup, minimum, decay), 12);

    [Fact]
    public void No_schedule_rises_after_its_warm_up_or_leaves_its_bounds()
    {
        foreach (LearningRateSchedule schedule in Enum.GetValues<LearningRateSchedule>())
        {
            double before = double.PositiveInfinity;
            for (long step = 7; step < 130; step++)
            {
                double rate = LearningRate.At(schedule, 3e-4, step, 120, 7, 0.1, 0.25);
                Assert.InRange(rate, 3e-5 - 1e-15, Math.Min(3e-4, before) + 1e-15);
                before = rate;
            }
        }
    }

    [Theory]
    [InlineData(double.NaN, 0, 10, 0, 0, 0.1)]
    [InlineData(-1, 0, 10, 0, 0, 0.1)]
    [InlineData(1, -1, 10, 0, 0, 0.1)]
    [InlineData(1, 0, 0, 0, 0, 0.1)]
    [InlineData(1, 0, 10, -1, 0, 0.1)]
    [InlineData(1, 0, 10, 0, 1.5, 0.1)]
    [InlineData(1, 0, 10, 0, double.NaN, 0.1)]
    [InlineData(1, 0, 10, 0, 0, 0)]
    public void Values_without_sense_are_refused(double peak, long step, long steps, long warmup, double minimum, double decay) =>
        Assert.Throws<ArgumentOutOfRangeException>(() => LearningRate.At(LearningRateSchedule.Cosine, peak, step, steps, warmup, minimum, decay));

    [Fact]
    public void An_unknown_schedule_is_refused() =>
        Assert.Throws<ArgumentOutOfRangeException>(() => LearningRate.At((LearningRateSchedule)99, 1, 5, 10));
}
