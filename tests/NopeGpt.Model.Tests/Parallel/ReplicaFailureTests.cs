using NopeGpt.Model.Native;
using NopeGpt.Model.Optimizers;
using NopeGpt.Model.Replicas;
using NopeGpt.Model.Storage;
using TorchSharp;
using static TorchSharp.torch;

namespace NopeGpt.Model.Tests;

public sealed class ReplicaFailureTests
{
    private static readonly ModelConfig Dropping = ReplicaRun.Config with { Dropout = 0.1 };

    public ReplicaFailureTests() => TorchRuntime.Load();

    public static TheoryData<int, Sharding, int> Groups()
    {
        TheoryData<int, Sharding, int> data = new() { { 1, Sharding.None, 0 } };
        foreach (Sharding sharding in Enum.GetValues<Sharding>()) foreach (int failing in (int[])[0, 2]) data.Add(3, sharding, failing);
        return data;
    }

    [Theory]
    [MemberData(nameof(Groups))]
    public void A_bad_batch_of_one_replica_ends_the_step_on_all_and_changes_nothing(int count, Sharding sharding, int failing)
    {
        using ReplicaGroup group = New(count, sharding), other = New(count, sharding);
        Step(group, 0);
        Step(other, 0);
        float[] before = group.Numbers();
        for (int micro = 0; micro < 2; micro++)
        {
            // An id beyond the vocabulary: libtorch throws in the forward pass of that replica.
            Exception error = Assert.ThrowsAny<Exception>(() => group.Step((r, m) => (r, m) == (failing, micro) ? Bad(r, m) : Batch(1, r, m), 2, 3e-3, 1));
            Assert.Contains("out of range", error.Message, StringComparison.Ordinal);
            Assert.True(before.AsSpan().SequenceEqual(group.Numbers()));
        }
        // As if it had not been.
        Assert.Equal(Step(other, 1).Loss, Step(group, 1).Loss);
        Assert.True(other.Numbers().AsSpan().SequenceEqual(group.Numbers()));

        static MicroBatch Bad(int replica, int micro) => Batch(1, replica, micro) is var batch ? batch with { Tokens = [.. batch.Tokens[1..], 10_000] } : batch;
    }

    [Theory]
    [MemberData(nameof(Groups))]
    public void What_the_batches_throw_is_thrown(int count, Sharding sharding, int failing)
    {
        using ReplicaGroup group = New(count, sharding);
        float[] before = group.Numbers();
        Assert.Equal("no more data", Assert.Throws<IOException>(() => group.Step((r, m) => r == failing ? throw new IOException("no more data") : Batch(0, r, m), 2, 1, 1)).Message);
        Assert.True(before.AsSpan().SequenceEqual(group.Numbers()));
        Assert.True(double.IsFinite(Step(group, 0).Loss));
    }

    [Theory]
    [MemberData(nameof(Groups))]
    public void A_loss_that_is_not_finite_is_thrown_before_the_update_and_named(int count, Sharding sharding, int _)
    {
        using ReplicaGroup group = New(count, sharding);
        Step(group, 0);
        using TrainingState state = group.Capture();
        Dictionary<string, Tensor> poisoned = state.Parameters.ToDictionary();
        // The row of a token that only one batch has.
        using (Tensor row = poisoned["token_embeddings.weight"][60]) row.fill_(float.NaN);
        group.RestoreParameters(poisoned);
        float[] before = group.Numbers();
        NonFiniteStepException error = Assert.Throws<NonFiniteStepException>(() => group.Step((r, m) => With60(r, m, (r, m) == (count - 1, 1)), 2, 3e-3, 1));
        Assert.False(double.IsFinite(error.Loss));
        Assert.Contains((count - 1, 1), error.MicroBatches);
        Assert.Contains("NaN", error.Message, StringComparison.Ordinal);
        Assert.True(before.AsSpan().SequenceEqual(group.Numbers()));
        Assert.All(state.Generators.Zip(group.Generators), p => Assert.Equal(p.First, p.Second));

        static MicroBatch With60(int replica, int micro, bool has) => Batch(0, replica, micro) is var batch
            ? batch with { Tokens = [.. batch.Tokens.Select((t, i) => has && i == 0 ? 60L : Math.Min(t, 59))] } : batch;
    }

    [Theory]
    [MemberData(nameof(Groups))]
    public void A_norm_that_is_not_finite_is_thrown_before_the_update(int count, Sharding sharding, int _)
    {
        using ReplicaGroup group = New(count, sharding);
        Step(group, 0);
        float[] before = group.Numbers();
        // The loss stays finite, and its gradients leave the range of float32.
        group.LossScale = LossScaler.Fixed(1e38);
        NonFiniteStepException error = Assert.Throws<NonFiniteStepException>(() => Step(group, 1));
        Assert.True(double.IsFinite(error.Loss));
        Assert.Empty(error.MicroBatches);
        Assert.True(before.AsSpan().SequenceEqual(group.Numbers()));
        group.LossScale = LossScaler.Fixed(1);
        Assert.True(double.IsFinite(Step(group, 1).GradientNorm));
    }

    [Theory]
    [InlineData(Sharding.None, 0)]
    [InlineData(Sharding.Gradients, 1)]
    [InlineData(Sharding.Parameters, 0)]
    [InlineData(Sharding.Parameters, 9)]
    public void A_failure_within_the_backward_pass_is_thrown_as_it_is(Sharding sharding, int call)
    {
        FailingCollective? failing = null;
        using ReplicaGroup group = New(3, sharding, (devices, threads) => failing = new(new InProcessCollective(devices.Count, threads, "")));
        Step(group, 0);
        float[] before = group.Numbers();
        failing!.FailAt(rank: 1, call);
        Assert.Equal("no room", Assert.Throws<InsufficientMemoryException>(() => Step(group, 1)).Message);
        Assert.True(before.AsSpan().SequenceEqual(group.Numbers()));
        Assert.True(double.IsFinite(Step(group, 1).Loss));
    }

    [Fact]
    public void A_failure_in_the_update_breaks_the_group_and_it_can_be_disposed_of()
    {
        FailingCollective? failing = null;
        using ReplicaGroup group = New(2, Sharding.Gradients, (devices, threads) => failing = new(new InProcessCollective(devices.Count, threads, "")));
        Step(group, 0);
        // Two micro-batches of four parts are reduced before the parameters are gathered.
        failing!.FailAt(rank: 1, call: 8);
        Assert.Throws<InsufficientMemoryException>(() => Step(group, 1));
        Assert.Contains("make a new group", Assert.Throws<InvalidOperationException>(() => Step(group, 2)).Message);
    }

    private static ReplicaGroup New(int count, Sharding sharding) => ReplicaRun.Group(count, sharding, new AdamWOptions(), Dropping);

    private static ReplicaGroup New(int count, Sharding sharding, Func<IReadOnlyList<Device>, int, ICollective> collectives) =>
        new(new Decoder(Dropping, 3), new AdamWOptions(), new() { Devices = [.. Enumerable.Repeat(CPU, count)], Sharding = sharding }, collectives);

    private static StepResult Step(ReplicaGroup group, int step) => group.Step((r, m) => Batch(step, r, m), 2, 3e-3, 1);

    private static MicroBatch Batch(int step, int replica, int micro) => ReplicaRun.Batch(7 + replica, step, 1, 2, 0, micro);

    /// <summary>Passes everything on until it fails once, at a call of one replica.</summary>
    private sealed class FailingCollective(ICollective inner) : ICollective
    {
        private int _rank = -1, _left;

        public string Description => inner.Description;

        public void FailAt(int rank, int call) => (_left, _rank) = (call, rank);

        public IPending AllReduce(int rank, Tensor buffer, IReadOnlyList<long> cuts) => Call(rank, () => inner.AllReduce(rank, buffer, cuts));

        public IPending ReduceScatter(int rank, Tensor buffer, Tensor shard, IReadOnlyList<long> cuts) => Call(rank, () => inner.ReduceScatter(rank, buffer, shard, cuts));

        public IPending AllGather(int rank, Tensor shard, Tensor buffer, IReadOnlyList<long> cuts) => Call(rank, () => inner.AllGather(rank, shard, buffer, cuts));

        public void Cancel() => inner.Cancel();

        public void ThrowIfCancelled() => inner.ThrowIfCancelled();

        public bool Recover() => inner.Recover();

        public void Dispose() => inner.Dispose();

        private IPending Call(int rank, Func<IPending> call)
        {
            if (rank == _rank && _left-- == 0)
            {
                _rank = -1;
                throw new InsufficientMemoryException("no room");
            }
            return call();
        }
    }
}
