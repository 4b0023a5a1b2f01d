using System.Text.Json.Nodes;
using NopeGpt.Model.Native;
using NopeGpt.Model.Optimizers;
using NopeGpt.Model.Replicas;
using NopeGpt.Model.Storage;
using NopeGpt.Tests;
using TorchSharp;
using static TorchSharp.torch;

namespace NopeGpt.Model.Tests;

public sealed class ReplicaStateTests : IDisposable
{
    private static readonly ModelConfig Dropping = ReplicaRun.Config with { Dropout = 0.1, ResidualDropout = 0.1, VocabularyMultipleOf = 16 };

    private readonly TemporaryFolder _folder = new();

    public ReplicaStateTests() => TorchRuntime.Load();

    public void Dispose() => _folder.Dispose();

    public static TheoryData<int, Sharding, bool> Groups()
    {
        TheoryData<int, Sharding, bool> data = new() { { 1, Sharding.None, false }, { 1, Sharding.None, true } };
        foreach (Sharding sharding in Enum.GetValues<Sharding>()) foreach (bool adafactor in (bool[])[false, true]) data.Add(3, sharding, adafactor);
        return data;
    }

    [Theory]
    [MemberData(nameof(Groups))]
    public void A_run_that_goes_on_from_a_checkpoint_is_the_uninterrupted_one_to_the_bit(int count, Sharding sharding, bool adafactor)
    {
        using ReplicaGroup whole = New(), first = New();
        StepResult[] expected = [.. Steps(whole, 0, 6)], found = [.. Steps(first, 0, 3)];
        Save(first);
        using ReplicaGroup resumed = Load(count, sharding, adafactor);
        using (TrainingState state = first.Capture()) resumed.Generators = state.Generators;
        Assert.Equal(3, resumed.StepCount);
        found = [.. found, .. Steps(resumed, 3, 6)];
        Assert.Equal(expected.Select(r => (r.Loss, r.GradientNorm)), found.Select(r => (r.Loss, r.GradientNorm)));
        Assert.True(whole.Numbers().AsSpan().SequenceEqual(resumed.Numbers()));

        ReplicaGroup New() => ReplicaRun.Group(count, sharding, Options(adafactor), Dropping);
    }

    [Theory]
    [InlineData(false)]
    [InlineData(true)]
    public void What_any_group_saved_any_other_goes_on_from(bool adafactor)
    {
        (int Count, Sharding Sharding)[] groups = [(1, Sharding.None), (2, Sharding.None), (2, Sharding.Gradients), (4, Sharding.Parameters)];
        using ReplicaGroup whole = ReplicaRun.Group(1, Sharding.None, Options(adafactor));
        whole.Steps(0, 4);
        List<StepResult> expected = whole.Steps(4, 7);
        foreach ((int count, Sharding sharding) in groups)
        {
            using ReplicaGroup group = ReplicaRun.Group(count, sharding, Options(adafactor));
            group.Steps(0, 4);
            float[] saved = group.Numbers();
            Save(group);
            foreach ((int others, Sharding another) in groups)
            {
                using ReplicaGroup other = Load(others, another, adafactor);
                Assert.True(saved.AsSpan().SequenceEqual(other.Numbers()), $"{count} {sharding} to {others} {another}");
                Assert.All(expected.Zip(other.Steps(4, 7)), p => Assert.Equal(p.First.Loss, p.Second.Loss, 1e-5));
            }
        }
    }

    [Theory]
    [InlineData(1, Sharding.None)]
    [InlineData(2, Sharding.Gradients)]
    [InlineData(2, Sharding.Parameters)]
    public void A_captured_state_can_be_taken_back(int count, Sharding sharding)
    {
        using ReplicaGroup group = ReplicaRun.Group(count, sharding, new AdamWOptions(), Dropping);
        group.Step(0);
        using TrainingState state = group.Capture();
        (double, double)[] first = [.. Steps(group, 1, 3).Select(r => (r.Loss, r.GradientNorm))];
        group.RestoreParameters(state.Parameters.ToDictionary());
        group.RestoreOptimizer(state.Optimizer.ToDictionary());
        group.Generators = state.Generators;
        Assert.Equal(first, Steps(group, 1, 3).Select(r => (r.Loss, r.GradientNorm)));
    }

    [Fact]
    public void The_state_is_that_of_one_optimizer_and_one_model()
    {
        using ReplicaGroup one = ReplicaRun.Group(1, Sharding.None, new AdamWOptions());
        using TrainingState expected = one.Capture();
        foreach ((int count, Sharding sharding) in ((int, Sharding)[])[(2, Sharding.None), (3, Sharding.Gradients), (3, Sharding.Parameters)])
        {
            using ReplicaGroup group = ReplicaRun.Group(count, sharding, new AdamWOptions());
            using TrainingState state = group.Capture();
            Assert.Equal(Names(expected.Parameters), Names(state.Parameters));
            Assert.Equal(Names(expected.Optimizer).Order(), Names(state.Optimizer).Order());
            Assert.Equal(count, state.Generators.Count);
            Assert.All(expected.Parameters.Zip(state.Parameters), p => Assert.True(p.First.Tensor.equal(p.Second.Tensor).all().item<bool>(), p.First.Name));
        }

        static IEnumerable<string> Names(IEnumerable<(string Name, Tensor Tensor)> tensors) => tensors.Select(t => $"{t.Name} {t.Tensor.dtype} [{string.Join(", ", t.Tensor.shape)}]");
    }

    [Theory]
    [InlineData(1, Sharding.None)]
    [InlineData(2, Sharding.Gradients)]
    [InlineData(2, Sharding.Parameters)]
    public void A_state_that_does_not_fit_is_refused_and_changes_nothing(int count, Sharding sharding)
    {
        using DisposeScope scope = NewDisposeScope();
        using ReplicaGroup group = ReplicaRun.Group(count, sharding, new AdamWOptions()), factored = ReplicaRun.Group(count, sharding, new AdafactorOptions());
        using ReplicaGroup wide = ReplicaRun.Group(1, Sharding.None, new AdamWOptions(), ReplicaRun.Config with { VocabularySize = 70 });
        float[] before = group.Numbers();
        using TrainingState state = group.Capture(), other = factored.Capture(), wider = wide.Capture();
        Refuse(other.Optimizer.ToDictionary(), "Adafactor");
        Refuse(wider.Optimizer.ToDictionary(), "[70, 32], the model needs Float32 [61, 32]");
        Refuse(Without("exp_avg_sq.token_embeddings.weight"), "has no exp_avg_sq.token_embeddings.weight");
        Refuse(Without("step"), "no usable step");
        Refuse(state.Optimizer.Append(("exp_avg.more", zeros(2))).ToDictionary(), "exp_avg.more");
        Assert.Contains("[70, 32]", Assert.Throws<InvalidDataException>(() => group.RestoreParameters(wider.Parameters.ToDictionary())).Message);
        Assert.Contains("more", Assert.Throws<InvalidDataException>(() => group.RestoreParameters(state.Parameters.Append(("more", zeros(2))).ToDictionary())).Message);
        Assert.Contains("no token_classifier.norm.weight", Assert.Throws<InvalidDataException>(() => group.RestoreParameters(
            state.Parameters.Where(p => p.Name != "token_classifier.norm.weight").ToDictionary())).Message);
        Assert.True(before.AsSpan().SequenceEqual(group.Numbers()));

        void Refuse(Dictionary<string, Tensor> saved, string reason) => Assert.Contains(reason, Assert.Throws<InvalidDataException>(() => group.RestoreOptimizer(saved)).Message);

        Dictionary<string, Tensor> Without(string name) => state.Optimizer.Where(o => o.Name != name).ToDictionary();
    }

    [Theory]
    [InlineData(Sharding.Gradients)]
    [InlineData(Sharding.Parameters)]
    public void The_first_replica_evaluates_between_steps(Sharding sharding)
    {
        using DisposeScope scope = NewDisposeScope();
        using ReplicaGroup group = ReplicaRun.Group(3, sharding, new AdamWOptions());
        for (int step = 0; step < 2; step++)
        {
            group.Step(step, seed: 3);
            Save(group);
            using Decoder saved = Checkpoint.LoadModel(_folder["step"]);
            MicroBatch batch = ReplicaRun.Batch(7, 5, 1, 1, 0, 0);
            Tensor tokens_BT = tensor(batch.Tokens, [batch.Rows, batch.Length]), targets_BT = tensor(batch.Targets, [batch.Rows, batch.Length]);
            using (no_grad())
            {
                Assert.True(saved.LossPerToken(tokens_BT, targets_BT).equal(group.Model.LossPerToken(tokens_BT, targets_BT)).all().item<bool>());
                Assert.Equal(saved.Loss(tokens_BT, targets_BT).item<float>(), group.Models[2].Loss(tokens_BT, targets_BT).item<float>());
            }
            TextRequest[] requests = [new([1, 2, 3], new SamplingOptions { Temperature = 0.7 }, 5, 6, [])];
            Assert.Equal(BatchGeneration.Run(saved, requests, 8)[0].Tokens.Select(t => t.Id), BatchGeneration.Run(group.Model, requests, 8)[0].Tokens.Select(t => t.Id));
            if (sharding != Sharding.Parameters) continue;
            // What would read memory that is given back says so.
            foreach (Action action in (Action[])[() => group.Model.Loss(tokens_BT, targets_BT), () => group.Model.WeightsHash(), () => group.Model.Merge(),
                () => group.Model.ResizeVocabulary(80, 1), () => Checkpoint.SaveModel(_folder["model"], group.Model)])
                Assert.Contains("split", Assert.Throws<InvalidOperationException>(action).Message, StringComparison.Ordinal);
        }
    }

    private static List<StepResult> Steps(ReplicaGroup group, int from, int to) =>
        [.. Enumerable.Range(from, to - from).Select(step => group.Step((replica, micro) => ReplicaRun.Batch(7 + replica, step, 1, 2, 0, micro), 2, 3e-3, 0.5))];

    private static OptimizerOptions Options(bool adafactor) => adafactor ? new AdafactorOptions() : new AdamWOptions();

    private void Save(ReplicaGroup group)
    {
        File.WriteAllText(_folder["tokenizer.json"], "{}");
        using TrainingState state = group.Capture();
        Checkpoint.Save(_folder["step"], state, _folder["tokenizer.json"], []);
    }

    private ReplicaGroup Load(int count, Sharding sharding, bool adafactor)
    {
        ReplicaGroup group = new(Checkpoint.LoadModel(_folder["step"]), Options(adafactor), new() { Devices = [.. Enumerable.Repeat(CPU, count)], Sharding = sharding });
        Checkpoint.LoadOptimizer(_folder["step"], group.RestoreOptimizer);
        return group;
    }
}
