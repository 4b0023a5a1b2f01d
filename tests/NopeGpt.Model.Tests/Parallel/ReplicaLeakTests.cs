using NopeGpt.Model.Native;
using NopeGpt.Model.Optimizers;
using NopeGpt.Model.Replicas;
using TorchSharp;
using static TorchSharp.torch;

namespace NopeGpt.Model.Tests;

[Collection(nameof(Alone))]
public sealed class ReplicaLeakTests
{
    private static readonly ModelConfig Config = ReplicaRun.Config with { Dropout = 0.1 };

    public ReplicaLeakTests() => TorchRuntime.Load();

    [Fact]
    public void Live_tensors_of_all_threads_stay_level_over_steps_and_go_with_the_group()
    {
        CollectWhatOtherTestsLeft();
        // TorchSharp counts a tensor that became a parameter's for ever.
        long before = Tensor.TotalCount;
        new Decoder(Config, 1).Dispose();
        long each = Tensor.TotalCount - before;
        foreach (int count in (int[])[1, 2])
        {
            foreach (Sharding sharding in Enum.GetValues<Sharding>())
            {
                before = Tensor.TotalCount;
                ReplicaGroup group = ReplicaRun.Group(count, sharding, new AdamWOptions(), Config);
                Work(group);
                long level = Tensor.TotalCount;
                for (int i = 0; i < 3; i++) Work(group);
                Assert.Equal(level, Tensor.TotalCount);
                group.Dispose();
                group.Dispose();
                Assert.Throws<ObjectDisposedException>(() => group.Step(0));
                Assert.Equal(before + (count * each), Tensor.TotalCount);
            }
        }
    }

    /// <summary>The count is of the process: finalizers of tensors that earlier tests dropped would lower it half-way.</summary>
    private static void CollectWhatOtherTestsLeft()
    {
        for (int i = 0; i < 2; i++)
        {
            GC.Collect();
            GC.WaitForPendingFinalizers();
        }
    }

    private static void Work(ReplicaGroup group)
    {
        group.Steps(0, 2, micros: 2);
        group.Capture().Dispose();
        Assert.ThrowsAny<Exception>(() => group.Step((_, _) => new(1, 2, [1, 1000], [1, 1]), 1, 1, 1));
        using (NewDisposeScope())
        using (no_grad()) group.Model.Loss(ones([1, 4], ScalarType.Int64), ones([1, 4], ScalarType.Int64));
    }
}
