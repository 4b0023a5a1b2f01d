using NopeGpt.Model.Native;
using NopeGpt.Model.Optimizers;
using NopeGpt.Model.Replicas;

namespace NopeGpt.Model.Tests;

/// <summary>What is promised of each device's memory before training, against what replicas hold at most.</summary>
public sealed class DeviceMemoryTests
{
    public DeviceMemoryTests() => TorchRuntime.Load();

    public static TheoryData<string, int, bool> Forms()
    {
        TheoryData<string, int, bool> data = [];
        foreach (string preset in (string[])["nope-gpt-tiny", "light-gpt-tiny", "lil-lm-tiny", "gpt2-tiny"])
            foreach (int count in (int[])[1, 2, 4]) foreach (bool adafactor in (bool[])[false, true]) data.Add(preset, count, adafactor);
        return data;
    }

    [Theory]
    [MemberData(nameof(Forms))]
    public void Estimates_are_within_15_percent_of_what_replicas_hold_at_most(string preset, int count, bool adafactor)
    {
        foreach (bool tied in (bool[])[true, false])
        {
            ModelConfig config = ModelPresets.Find(preset).Config with { NumDecoderLayers = 6, TiedHead = tied };
            foreach (Sharding sharding in Enum.GetValues<Sharding>())
            {
                using ReplicaGroup group = ReplicaRun.Group(count, sharding, adafactor ? new AdafactorOptions() : new AdamWOptions(), config);
                group.Step(0);
                DeviceShare estimate = ModelMemory.PerDevice(config, count, sharding, adafactor ? ModelMemory.Of(config).AdafactorState : ModelMemory.Of(config).AdamWState);
                HeldBytes[] peaks = [.. Enumerable.Range(0, count).Select(group.PeakBytes)];
                string what = $"{preset}, {count}, {sharding}, tied {tied}";
                AssertNear(estimate.Weights, peaks.Max(p => p.Parameters), what + ": weights");
                // A single replica drops its gradients after each step.
                if (count > 1) AssertNear(estimate.Gradients, peaks.Max(p => p.Gradients), what + ": gradients");
                // Whole tensors are dealt out by the size of the gradients, not of the state.
                if (!adafactor || sharding == Sharding.None) AssertNear(estimate.Optimizer, peaks.Max(p => p.OptimizerState), what + ": optimizer");
            }
        }
    }

    private static void AssertNear(long estimated, long measured, string what) =>
        Assert.True(Math.Abs(estimated - measured) <= 0.15 * measured, $"{what}: estimated {estimated}, measured {measured}");
}
