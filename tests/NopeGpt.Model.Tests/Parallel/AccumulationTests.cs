using NopeGpt.Model.Replicas;

namespace NopeGpt.Model.Tests;

public sealed class AccumulationTests
{
    [Theory]
    [InlineData(128, 1, 128)]
    [InlineData(128, 8, 16)]
    [InlineData(3, 3, 1)]
    public void Micro_batches_are_divided_by_the_devices(int steps, int devices, int each) => Assert.Equal(new Accumulation(each, null, null), Accumulation.Over(steps, devices));

    [Theory]
    [InlineData(128, 3, 42, "gradient_accumulation_steps = 128 does not divide evenly among 3 devices: each takes 42, so that a step has 126 micro-batches")]
    [InlineData(7, 4, 1, "gradient_accumulation_steps = 7 does not divide evenly among 4 devices: each takes 1, so that a step has 4 micro-batches")]
    public void An_uneven_division_is_warned_of(int steps, int devices, int each, string warning) => Assert.Equal(new Accumulation(each, warning, null), Accumulation.Over(steps, devices));

    [Theory]
    [InlineData(3, 4, "gradient_accumulation_steps = 3: leaves nothing for each of 4 devices: choose 4 or a multiple of it, or fewer devices")]
    [InlineData(0, 1, "gradient_accumulation_steps = 0: choose 1 or more")]
    [InlineData(-5, 2, "gradient_accumulation_steps = -5: leaves nothing for each of 2 devices: choose 2 or a multiple of it, or fewer devices")]
    public void Where_nothing_is_left_the_run_is_refused(int steps, int devices, string refusal)
    {
        Accumulation none = Accumulation.Over(steps, devices);
        Assert.Equal((0, null, refusal), (none.PerDevice, none.Warning, none.Refusal!.ToString()));
    }
}
