using NopeGpt.Model.Native;
using NopeGpt.Model.Optimizers;
using NopeGpt.Model.Replicas;
using TorchSharp;
using static TorchSharp.torch;

namespace NopeGpt.Model.Tests;

public sealed class ReplicaGroupTests
{
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
        OptimizerOptions options = adafactor ? new AdafactorOptions() : new AdamWOptions();
        using ReplicaGroup one = ReplicaRun.Group(1, Sharding.None, options), several = ReplicaRun.Group(count, sharding, options);
        List<StepResult> expected = one.Steps(0, 50), found = several.Steps(0, 50);
        for (int i = 0; i < 50; i++)
        {
            Assert.Equal(expected[i].Loss, found[i].Loss, 1e-5);
            Assert.Equal(expected[i].GradientNorm, found[i].GradientNorm, 1e-5);
            Assert.Equal(expected[i].Labelled, found[i].Labelled);
        }
    }
}
