using NopeGpt.Model.Native;
using NopeGpt.Model.Optimizers;
using NopeGpt.Model.Replicas;
using NopeGpt.Model.Storage;
using NopeGpt.Tests;
using TorchSharp;
using static TorchSharp.torch;

namespace NopeGpt.Model.Tests;

/// <summary>A group that trains only adapters, saved as an adapter's files.</summary>
public sealed class ReplicaFineTuningTests : IDisposable
{
    private static readonly ModelConfig Base = ReplicaRun.Config with { Dropout = 0.1, ResidualDropout = 0.1, VocabularyMultipleOf = 16 };

    private readonly TemporaryFolder _folder = new();

    public ReplicaFineTuningTests() => TorchRuntime.Load();

    public void Dispose() => _folder.Dispose();

    public static TheoryData<int, Sharding, bool, bool> Groups() => new()
    {
        { 1, Sharding.None, false, false }, { 1, Sharding.None, true, true },
        { 2, Sharding.None, true, true }, { 2, Sharding.Gradients, false, true }, { 2, Sharding.Parameters, false, true }, { 2, Sharding.Parameters, true, false },
    };

    [Theory]
    [MemberData(nameof(Groups))]
    public void A_fine_tuning_that_goes_on_from_its_files_is_the_uninterrupted_one_to_the_bit(int count, Sharding sharding, bool frozen, bool adafactor)
    {
        LoraConfig lora = new() { Rank = 3, Dropout = 0.2, FreezeTokenEmbeddings = frozen };
        using ReplicaGroup whole = New(model => Adapter.Create(model, lora, 5, Base.VocabularySize + 3)), first = New(model => Adapter.Create(model, lora, 5, Base.VocabularySize + 3));
        StepResult[] expected = Steps(whole, 0, 6), found = Steps(first, 0, 3);
        using TrainingState state = first.Capture();
        first.Model.Adapters[0].Adapter.Save(_folder["adapter"], state.Parameters.ToDictionary());
        SafetensorsFile.Save(_folder["optimizer.safetensors"], state.Optimizer);

        using ReplicaGroup resumed = New(model => Adapter.Load(_folder["adapter"], model));
        using (SafetensorsFile optimizer = SafetensorsFile.Open(_folder["optimizer.safetensors"]))
        using (NewDisposeScope())
            resumed.RestoreOptimizer(optimizer.Names.ToDictionary(n => n, n => optimizer.Load(n)));
        resumed.Generators = state.Generators;
        found = [.. found, .. Steps(resumed, 3, 6)];
        Assert.Equal(expected.Select(r => (r.Loss, r.GradientNorm)), found.Select(r => (r.Loss, r.GradientNorm)));
        Assert.True(whole.Numbers().AsSpan().SequenceEqual(resumed.Numbers()));
        Assert.NotEqual(expected[0].Loss, expected[^1].Loss);

        ReplicaGroup New(Func<Decoder, Adapter> adapter)
        {
            // As the next process does: the base is read again, which never changes.
            Decoder model = new(Base, 3) { ActivationCheckpointing = true };
            model.Attach(adapter(model));
            return new(model, adafactor ? new AdafactorOptions() : new AdamWOptions(), new() { Devices = [.. Enumerable.Repeat(CPU, count)], Sharding = sharding, Seed = 11 });
        }
    }

    [Fact]
    public void The_files_of_a_split_adapter_are_those_of_a_whole_one_and_its_own_tensors_are_refused()
    {
        (int, Sharding)[] forms = [(1, Sharding.None), (3, Sharding.Parameters)];
        byte[][] written = [.. forms.Select(form =>
        {
            Decoder model = new(Base, 3);
            model.Attach(Adapter.Create(model, new() { Rank = 3 }, 5));
            using ReplicaGroup group = new(model, new AdamWOptions(), new() { Devices = [.. Enumerable.Repeat(CPU, form.Item1)], Sharding = form.Item2 });
            using TrainingState state = group.Capture();
            Adapter adapter = group.Model.Adapters[0].Adapter;
            if (form.Item2 == Sharding.Parameters)
                Assert.Contains("split", Assert.Throws<InvalidOperationException>(() => adapter.Save(_folder["split"])).Message, StringComparison.Ordinal);
            Dictionary<string, Tensor> tensors = state.Parameters.ToDictionary();
            adapter.Save(_folder["adapter"], tensors);
            tensors.Remove(tensors.Keys.First());
            Assert.Contains("is missing", Assert.Throws<ArgumentException>(() => adapter.Save(_folder["less"], tensors)).Message, StringComparison.Ordinal);
            Assert.False(Directory.Exists(_folder["split"]) || Directory.Exists(_folder["less"]));
            return File.ReadAllBytes(Path.Combine(_folder["adapter"], "adapter.safetensors"));
        })];
        Assert.Equal(written[0], written[1]);
    }

    private static StepResult[] Steps(ReplicaGroup group, int from, int to) =>
        [.. Enumerable.Range(from, to - from).Select(step => group.Step((replica, micro) => ReplicaRun.Batch(7 + replica, step, 1, 2, 0, micro), 2, 1e-2, 0.5))];
}
