using NopeGpt.Model.Native;
using NopeGpt.Model.Optimizers;
using NopeGpt.Model.Replicas;
using NopeGpt.Model.Storage;
using TorchSharp;
using static TorchSharp.torch;

namespace NopeGpt.Model.Tests;

/// <summary>Muon works on whole matrices, so replicas divide tensors among them.</summary>
public sealed class MuonReplicaTests
{
    private const int StepsEach = 50;

    private static readonly Lazy<List<StepResult>> Alone = new(() =>
    {
        using ReplicaGroup one = ReplicaRun.Group(1, Sharding.None, new MuonOptions());
        return one.Steps(0, StepsEach);
    });

    public MuonReplicaTests() => TorchRuntime.Load();

    public static TheoryData<int, Sharding> Groups()
    {
        TheoryData<int, Sharding> data = [];
        foreach (int count in (int[])[2, 4])
            foreach (Sharding sharding in Enum.GetValues<Sharding>()) data.Add(count, sharding);
        return data;
    }

    [Theory]
    [MemberData(nameof(Groups))]
    public void Replicas_have_the_losses_of_one_with_the_same_global_batch(int count, Sharding sharding)
    {
        using ReplicaGroup group = ReplicaRun.Group(count, sharding, new MuonOptions());
        List<StepResult> found = group.Steps(0, StepsEach);
        for (int i = 0; i < StepsEach; i++)
            Assert.True(Math.Abs(Alone.Value[i].Loss - found[i].Loss) < 1e-5, $"step {i}: loss {found[i].Loss}, expected {Alone.Value[i].Loss}");
        Assert.NotEqual(Alone.Value[0].Loss, Alone.Value[^1].Loss);
    }

    [Theory]
    [MemberData(nameof(Groups))]
    public void A_state_is_that_of_one_optimizer_and_goes_on_in_a_group_of_any_form(int count, Sharding sharding)
    {
        using ReplicaGroup group = ReplicaRun.Group(count, sharding, new MuonOptions()), one = ReplicaRun.Group(1, Sharding.None, new MuonOptions()), adam = ReplicaRun.Group(count, sharding, new AdamWOptions());
        group.Steps(0, 3);
        using TrainingState state = group.Capture(), plain = one.Capture(), moments = adam.Capture();
        Assert.Equal(Names(plain.Optimizer), Names(state.Optimizer));
        one.RestoreParameters(state.Parameters.ToDictionary());
        one.RestoreOptimizer(state.Optimizer.ToDictionary());
        Assert.Equal(group.Numbers(), one.Numbers());
        Assert.Equal(3, one.StepCount);
        Assert.All(group.Steps(3, 6).Zip(one.Steps(3, 6)), p => Assert.Equal(p.First.Loss, p.Second.Loss, 1e-5));
        group.RestoreParameters(state.Parameters.ToDictionary());
        group.RestoreOptimizer(state.Optimizer.ToDictionary());
        using TrainingState again = group.Capture();
        foreach (((string name, Tensor a), (_, Tensor b)) in state.Optimizer.Zip(again.Optimizer)) Assert.True(a.equal(b).all().item<bool>(), name);
        Assert.Throws<InvalidDataException>(() => group.RestoreOptimizer(moments.Optimizer.ToDictionary()));
        Assert.Contains("that of Muon", Assert.Throws<InvalidDataException>(() => adam.RestoreOptimizer(state.Optimizer.ToDictionary())).Message, StringComparison.Ordinal);

        static IEnumerable<string> Names(IEnumerable<(string Name, Tensor Tensor)> tensors) => tensors.Select(t => $"{t.Name} [{string.Join(", ", t.Tensor.shape)}]").Order(StringComparer.Ordinal);
    }

    [Theory]
    [InlineData(2)]
    [InlineData(4)]
    public void What_is_split_is_held_once(int count)
    {
        using ReplicaGroup group = ReplicaRun.Group(count, Sharding.Gradients, new MuonOptions()), one = ReplicaRun.Group(1, Sharding.None, new MuonOptions());
        group.Step(0);
        Assert.Equal(one.HeldBytes(0).OptimizerState, Enumerable.Range(0, count).Sum(r => group.HeldBytes(r).OptimizerState));
        Assert.Equal(one.OptimizerStateBytes, group.OptimizerStateBytes);
    }
}
