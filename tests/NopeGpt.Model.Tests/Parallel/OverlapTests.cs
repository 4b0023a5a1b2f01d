using System.Collections.Concurrent;
using System.Diagnostics;
using NopeGpt.Model.Native;
using NopeGpt.Model.Optimizers;
using NopeGpt.Model.Replicas;
using TorchSharp;
using static TorchSharp.torch;

namespace NopeGpt.Model.Tests;

/// <summary>Reducing while the backward pass goes on.</summary>
public sealed class OverlapTests
{
    private const int Count = 2;

    private static readonly ModelConfig Config = ReplicaRun.Config with { NumDecoderLayers = 4 };

    public OverlapTests() => TorchRuntime.Load();

    [Theory]
    [InlineData(Sharding.None, 1)]
    [InlineData(Sharding.None, 2)]
    [InlineData(Sharding.Gradients, 1)]
    [InlineData(Sharding.Gradients, 2)]
    [InlineData(Sharding.Parameters, 1)]
    public void A_part_is_reduced_while_the_backward_pass_of_the_parts_before_it_goes_on(Sharding sharding, int micros)
    {
        Watching? watching = null;
        using ReplicaGroup group = new(new Decoder(Config, 3), new AdamWOptions(), new() { Devices = [CPU, CPU], Sharding = sharding },
            (devices, threads) => watching = new(new InProcessCollective(devices.Count, threads, "")));
        group.Step(0, micros);
        // The head, each block, the embeddings; those last, when the pass is over. Whole gradients are reduced after the last micro-batch only.
        int parts = Config.NumDecoderLayers + 2, passes = sharding == Sharding.None ? 1 : micros;
        for (int rank = 0; rank < Count; rank++)
        {
            bool[] expected = [.. Enumerable.Range(0, passes).SelectMany(_ => Enumerable.Range(0, parts).Select(part => part < parts - 1))];
            Assert.Equal(expected, watching!.Within.Where(w => w.Rank == rank).Select(w => w.Backward));
        }
        Assert.Equal(Count * passes, watching!.EndedWithin);
    }

    [Fact]
    public void A_gate_reports_when_everything_behind_it_is_done()
    {
        using DisposeScope scope = NewDisposeScope();
        Tensor[] weights = [.. Enumerable.Range(0, 3).Select(i => randn([8, 8], generator: new Generator((ulong)i)).requires_grad_())], plain = [.. weights.Select(w => w.detach().clone().requires_grad_())];
        Tensor x = randn([4, 8], generator: new Generator(9));
        List<string> seen = [];
        using GradientGates gates = new(2, gate =>
        {
            seen.Add($"gate {gate}: " + string.Join(" ", weights.Select(w => w.grad is null ? "-" : "done")));
            return true;
        });
        Tensor y = x.matmul(weights[0]), through = gates.Through(0, y);
        Assert.Equal(Aten.Storage(y), Aten.Storage(through));
        Tensor loss = gates.Through(1, through.silu().matmul(weights[1]).add(through)).matmul(weights[2]).pow(2).sum();
        loss.backward();
        gates.Release();
        Assert.Equal(["gate 1: - - done", "gate 0: - done done"], seen);
        Tensor z = x.matmul(plain[0]);
        z.silu().matmul(plain[1]).add(z).matmul(plain[2]).pow(2).sum().backward();
        Assert.All(weights.Zip(plain), w => Assert.True(w.First.grad!.equal(w.Second.grad!).all().item<bool>()));
    }

    [Fact]
    public void A_gate_that_says_no_ends_the_backward_pass_with_an_exception()
    {
        using DisposeScope scope = NewDisposeScope();
        using GradientGates gates = new(1, _ => false);
        Tensor weight = ones([2, 2]).requires_grad_();
        Assert.ThrowsAny<Exception>(() => gates.Through(0, weight.mul(2)).sum().backward());
        Assert.Null(weight.grad);
        // And the next pass is none the worse.
        using GradientGates open = new(1, _ => true);
        open.Through(0, weight.mul(2)).sum().backward();
        Assert.Equal(8, weight.grad!.sum().item<float>());
    }

    [Fact]
    public void Where_no_gradient_will_come_the_gate_is_not_there()
    {
        using DisposeScope scope = NewDisposeScope();
        using GradientGates gates = new(1, _ => true);
        Tensor x = ones([2]);
        Assert.Same(x, gates.Through(0, x));
        x.requires_grad_();
        using (no_grad()) Assert.Same(x, gates.Through(0, x));
    }

    [Fact]
    public void The_share_of_one_thread_is_not_the_process_s()
    {
        int before = get_num_threads(), own = 0;
        Thread thread = new(() =>
        {
            ThreadShare.Set(1);
            own = get_num_threads();
        });
        thread.Start();
        thread.Join();
        Assert.Equal((1, before), (own, get_num_threads()));
    }

    /// <summary>Notes for each reduction whether it was begun from within the backward pass. From the one of the first block, which is the last to be begun there,
    /// it waits for that of the head: that ends only if it goes on beside the pass, and in all replicas.</summary>
    private sealed class Watching(ICollective inner) : ICollective
    {
        private readonly ConcurrentDictionary<int, List<IPending>> _pass = [];
        private int _endedWithin;

        public ConcurrentQueue<(int Rank, bool Backward)> Within { get; } = [];

        public int EndedWithin => _endedWithin;

        public string Description => inner.Description;

        public IPending AllReduce(int rank, Tensor buffer, IReadOnlyList<long> cuts) => Watch(rank, inner.AllReduce(rank, buffer, cuts));

        public IPending ReduceScatter(int rank, Tensor buffer, Tensor shard, IReadOnlyList<long> cuts) => Watch(rank, inner.ReduceScatter(rank, buffer, shard, cuts));

        public IPending AllGather(int rank, Tensor shard, Tensor buffer, IReadOnlyList<long> cuts) => inner.AllGather(rank, shard, buffer, cuts);

        public void Cancel() => inner.Cancel();

        public void ThrowIfCancelled() => inner.ThrowIfCancelled();

        public bool Recover() => inner.Recover();

        public void Dispose() => inner.Dispose();

        // What libtorch calls is in a class nested there, and an optimizing compiler leaves no frame of the rest.
        private static bool IsGate(Type? type) => type is not null && (type == typeof(GradientGates) || IsGate(type.DeclaringType));

        private IPending Watch(int rank, IPending pending)
        {
            bool backward = new StackTrace().GetFrames().Any(f => IsGate(f.GetMethod()?.DeclaringType));
            Within.Enqueue((rank, backward));
            List<IPending> pass = _pass.GetOrAdd(rank, _ => []);
            pass.Add(pending);
            if (backward && pass.Count == Config.NumDecoderLayers + 1 && Task.Run(pass[0].Wait).Wait(TimeSpan.FromSeconds(30))) Interlocked.Increment(ref _endedWithin);
            if (!backward) pass.Clear();
            return pending;
        }
    }
}
