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

    [Theory]
    // lilLM: warm-up 2,000, cosine from 6e-4 to 6e-5 at 600,000. A quarter, a half and three quarters of the way: 1 + cos 45°, 90° and 135°.
    [InlineData(2000, 600_000, 0, 3e-7)]
    [InlineData(2000, 600_000, 999, 3e-4)]
    [InlineData(2000, 600_000, 1999, 6e-4)]
    [InlineData(2000, 600_000, 2000, 6e-4)]
    [InlineData(2000, 600_000, 151_500, 5.209188309203679e-4)]
    [InlineData(2000, 600_000, 301_000, 3.3e-4)]
    [InlineData(2000, 600_000, 600_000, 6e-5)]
    // Lightning nano-GPT
    [InlineData(200, 2000, 99, 3e-4)]
    [InlineData(200, 2000, 199, 6e-4)]
    [InlineData(200, 2000, 200, 6e-4)]
    [InlineData(200, 2000, 650, 5.209188309203679e-4)]
    [InlineData(200, 2000, 1550, 1.390811690796321e-4)]
    [InlineData(200, 2000, 2001, 6e-5)]
    // miniGPT2
    [InlineData(715, 19_073, 0, 8.391608391608392e-7)]
    [InlineData(715, 19_073, 714, 6e-4)]
    [InlineData(715, 19_073, 9894, 3.3e-4)]
    [InlineData(715, 19_073, 19_073, 6e-5)]
    public void Warm_up_and_cosine_have_the_rates_of_the_reference_systems(long warmup, long steps, long step, double expected) =>
        Assert.Equal(expected, LearningRate.At(LearningRateSchedule.Cosine, 6e-4, step, steps, warmup, 0.1), 1e-15);

    [Theory]
    [InlineData(0, 1e-2)]
    [InlineData(5000, 7.5e-3)]
    [InlineData(19_999, 5e-7)]
    [InlineData(20_000, 0)]
    [InlineData(30_000, 0)]
    public void Linear_decay_ends_at_zero_after_the_last_step(long step, double expected) =>
        Assert.Equal(expected, LearningRate.At(LearningRateSchedule.Linear, 1e-2, step, 20_000), 1e-15);

    [Fact]
    public void LilLMs_warm_up_is_lower_by_at_most_one_step_and_the_same_after_it()
    {
        for (long step = 0; step < 2010; step++)
        {
            double theirs = step < 2000 ? 6e-4 * (step + 1) / 2001 : 6e-5 + (5.4e-4 * 0.5 * (1 + Math.Cos(Math.PI * (step - 2000) / 598_000)));
            double difference = LearningRate.At(LearningRateSchedule.Cosine, 6e-4, step, 600_000, 2000, 0.1) - theirs;
            Assert.InRange(difference, -1e-15, step < 2000 ? (6e-4 / 2001) + 1e-15 : 1e-15);
        }
    }

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
