using NopeGpt.Model.Native;
using NopeGpt.Model.Optimizers;
using NopeGpt.Model.Replicas;
using TorchSharp;
using static TorchSharp.torch;

namespace NopeGpt.Model.Tests;

/// <summary>Bytes of replicas, counted from the storages of live tensors.</summary>
public sealed class ReplicaMemoryTests
{
    /// <summary>Of one bucket: each tensor and each replica's range begins on a cache line, and memory that was given back keeps one number.</summary>
    private const long Padding = 64 * 20;

    private static readonly ModelConfig Config = ReplicaRun.Config with { NumDecoderLayers = 6, VocabularySize = 250, TiedHead = false };
    private static readonly long Whole = Config.ParameterCount * sizeof(float);
    private static readonly long Buckets = Config.NumDecoderLayers + 2;

    public ReplicaMemoryTests() => TorchRuntime.Load();

    public static TheoryData<int, Sharding> Groups()
    {
        TheoryData<int, Sharding> data = [];
        foreach (int count in (int[])[2, 4]) foreach (Sharding sharding in Enum.GetValues<Sharding>()) data.Add(count, sharding);
        return data;
    }

    [Theory]
    [MemberData(nameof(Groups))]
    public void Every_replica_holds_what_the_level_promises(int count, Sharding sharding)
    {
        using ReplicaGroup group = ReplicaRun.Group(count, sharding, new AdamWOptions(), Config);
        for (int step = 0; step < 2; step++)
        {
            for (int replica = 0; replica < count; replica++)
            {
                HeldBytes held = group.HeldBytes(replica);
                AssertAbout(sharding == Sharding.Parameters ? Whole / count : Whole, held.Parameters, Buckets * Padding, "parameters");
                AssertAbout(sharding == Sharding.None ? Whole : Whole / count, held.Gradients, Buckets * Padding, "gradients");
                // Two moments; without padding, of which the replicas have unlike parts.
                AssertAbout(2 * (sharding == Sharding.None ? Whole : Whole / count), held.OptimizerState, Buckets * Padding * 2, "optimizer state");
            }
            group.Step(step);
        }
        long states = Enumerable.Range(0, count).Sum(r => group.HeldBytes(r).OptimizerState);
        Assert.InRange(states, sharding == Sharding.None ? 2 * Whole * count : 2 * Whole, (sharding == Sharding.None ? 2 * Whole * count : 2 * Whole) + (64 * count));
    }

    [Theory]
    [MemberData(nameof(Groups))]
    public void Adafactors_shards_are_whole_tensors_that_differ_by_less_than_the_largest(int count, Sharding sharding)
    {
        long largest = Math.Max(Config.VocabularySize, Config.HiddenDimensions) * Config.EmbeddingDimensions * sizeof(float);
        using ReplicaGroup group = ReplicaRun.Group(count, sharding, new AdafactorOptions(), Config), one = ReplicaRun.Group(1, Sharding.None, new AdafactorOptions(), Config);
        group.Step(0);
        HeldBytes[] held = [.. Enumerable.Range(0, count).Select(group.HeldBytes)];
        long state = one.HeldBytes(0).OptimizerState;
        AssertShared(sharding == Sharding.Parameters, h => h.Parameters, Whole, Buckets * Padding);
        AssertShared(sharding != Sharding.None, h => h.Gradients, Whole, Buckets * Padding);
        AssertShared(sharding != Sharding.None, h => h.OptimizerState, state, 64);
        if (sharding != Sharding.None) Assert.InRange(held.Max(h => h.Gradients) - held.Min(h => h.Gradients), 0, largest + (Buckets * Padding));

        // All replicas' together are one whole, or each is.
        void AssertShared(bool split, Func<HeldBytes, long> bytes, long whole, long padding)
        {
            if (split) Assert.InRange(held.Sum(bytes), whole, whole + (padding * count));
            else Assert.All(held, h => Assert.InRange(bytes(h), whole, whole + padding));
        }
    }

    [Theory]
    [InlineData(Sharding.Gradients, false, false)]
    [InlineData(Sharding.Parameters, false, false)]
    [InlineData(Sharding.Parameters, true, false)]
    [InlineData(Sharding.Parameters, true, true)]
    public void At_no_time_is_more_than_two_blocks_whole_of_what_is_split(Sharding sharding, bool tied, bool recomputing)
    {
        const int count = 4;
        ModelConfig config = Config with { TiedHead = tied };
        using ReplicaGroup group = new(new Decoder(config, 3) { ActivationCheckpointing = recomputing }, new AdamWOptions(), new() { Devices = [.. Enumerable.Repeat(CPU, count)], Sharding = sharding });
        Assert.All(group.Models, m => Assert.Equal(recomputing, m.ActivationCheckpointing));
        group.Step(0);
        long whole = config.ParameterCount * sizeof(float), table = config.Parameters.Embedding * sizeof(float);
        long block = (config.Parameters.Attention + config.Parameters.Mlp + config.Parameters.Norms) * sizeof(float) / config.NumDecoderLayers;
        long most = (whole / count) + (2 * Math.Max(block, table)) + (tied ? table : 0) + (Buckets * Padding);
        Assert.True(most < whole, "the test says nothing");
        HeldBytes peak = group.PeakBytes(0);
        Assert.InRange(peak.Gradients, (whole / count) + (block * 3 / 2), most);
        if (sharding == Sharding.Parameters) Assert.InRange(peak.Parameters, (whole / count) + (block * 3 / 2), most);
        else AssertAbout(whole, peak.Parameters, Buckets * Padding, "parameters");
    }

    [Fact]
    public void A_group_of_one_holds_nothing_beside_the_model_and_its_optimizer()
    {
        Decoder model = new(Config, 1);
        nint[] before = [.. model.Parameters().Select(p => Aten.Storage(p.Parameter).Start)];
        using ReplicaGroup group = new(model, new AdamWOptions(), new() { Sharding = Sharding.Parameters });
        group.Step(0);
        Assert.Equal(before, group.Model.Parameters().Select(p => Aten.Storage(p.Parameter).Start));
        Assert.Equal(new HeldBytes(Whole, 0, 2 * Whole), group.HeldBytes(0));
        Assert.Null(model.Passage);
    }

    [Fact]
    public void Memory_that_is_given_back_and_taken_again_is_the_same_for_every_view_of_it()
    {
        using DisposeScope scope = NewDisposeScope();
        using FlatMemory memory = new(48, CPU);
        Tensor weight = empty([4, 8]).requires_grad_(), x = ones([1, 8]);
        using (no_grad()) weight.set_(memory.View(16, 4, 8)).fill_(2);
        Tensor y = x.matmul(weight.T).pow(2).sum(), expected = full([4, 8], 32f);
        memory.Release();
        Assert.False(memory.Held);
        Assert.Equal(sizeof(float), Aten.Storage(weight).Bytes);
        memory.Hold();
        Assert.Equal(48 * sizeof(float), Aten.Storage(weight).Bytes);
        memory.Whole.fill_(2);
        // What autograd has kept for the backward pass is a view of it too.
        y.backward();
        Assert.True(weight.grad!.equal(expected).all().item<bool>());
    }

    private static void AssertAbout(long expected, long found, long padding, string what) =>
        Assert.True(Math.Abs(found - expected) <= padding, $"{found} bytes of {what}, about {expected} are promised");
}
