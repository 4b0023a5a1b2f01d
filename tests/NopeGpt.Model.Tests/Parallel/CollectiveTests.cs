using NopeGpt.Model.Native;
using NopeGpt.Model.Optimizers;
using NopeGpt.Model.Replicas;
using TorchSharp;
using static TorchSharp.torch;

namespace NopeGpt.Model.Tests;

public sealed class CollectiveTests
{
    public CollectiveTests() => TorchRuntime.Load();

    public static TheoryData<string, int, long[]> Makers()
    {
        TheoryData<string, int, long[]> data = [];
        foreach (string kind in (string[])["in process", "NCCL"])
        {
            data.Add(kind, 2, [0, 50, 100]);
            data.Add(kind, 4, [0, 25, 50, 75, 100]);
            // As shards of whole tensors are: unlike, and one of them empty.
            data.Add(kind, 3, [0, 64, 64, 100]);
        }
        return data;
    }

    [Theory]
    [MemberData(nameof(Makers))]
    public void Sums_ranges_and_wholes_are_those_of_the_definition(string kind, int count, long[] cuts)
    {
        using DisposeScope scope = NewDisposeScope();
        using ICollective collective = New(kind, count);
        for (int round = 0; round < 3; round++)
        {
            Tensor[] values = [.. Enumerable.Range(0, count).Select(r => randn(100, generator: new Generator((ulong)((round * 10) + r))))];
            Tensor sum = values.Aggregate((a, b) => a + b);
            Tensor[] reduced = [.. values.Select(v => v.clone())], scattered = [.. values.Select(v => v.clone())];
            Tensor[] shards = [.. Enumerable.Range(0, count).Select(r => zeros(cuts[r + 1] - cuts[r]))], gathered = [.. values.Select(v => zeros(100))];
            Each(count, r =>
            {
                IPending[] pending =
                [
                    collective.AllReduce(r, reduced[r], cuts),
                    collective.ReduceScatter(r, scattered[r], shards[r], cuts),
                    collective.AllGather(r, shards[r], gathered[r], cuts),
                ];
                foreach (IPending p in pending) p.Wait();
            });
            foreach (Tensor result in (Tensor[])[.. reduced, .. gathered]) Assert.True(result.allclose(sum, rtol: 1e-5, atol: 1e-6));
            // One sum, copied: to the bit the same everywhere.
            Assert.All(reduced[1..], r => Assert.True(r.equal(reduced[0]).all().item<bool>()));
            Assert.All(gathered[1..], r => Assert.True(r.equal(gathered[0]).all().item<bool>()));
        }
    }

    [Fact]
    public void A_sum_has_the_same_bits_each_time_whoever_comes_first()
    {
        using DisposeScope scope = NewDisposeScope();
        using InProcessCollective collective = new(4, 1, "");
        Tensor[] values = [.. Enumerable.Range(0, 4).Select(r => randn(1000, generator: new Generator((ulong)r)))];
        float[]? first = null;
        for (int round = 0; round < 10; round++)
        {
            Tensor[] buffers = [.. values.Select(v => v.clone())];
            int late = round % 4;
            using ManualResetEventSlim others = new();
            int posted = 0;
            Each(4, r =>
            {
                if (r == late) others.Wait();
                IPending pending = collective.AllReduce(r, buffers[r], [0, 250, 500, 750, 1000]);
                if (Interlocked.Increment(ref posted) == 3) others.Set();
                pending.Wait();
            });
            first ??= buffers[0].data<float>().ToArray();
            Assert.All(buffers, b => Assert.True(first.AsSpan().SequenceEqual(b.data<float>().ToArray())));
        }
    }

    [Fact]
    public void A_replica_that_does_not_come_keeps_nobody_waiting_once_it_has_failed()
    {
        using DisposeScope scope = NewDisposeScope();
        using InProcessCollective collective = new(2, 1, "");
        Tensor buffer = zeros(4);
        IPending pending = collective.AllReduce(0, buffer, [0, 2, 4]);
        collective.Cancel();
        Assert.Throws<StepCancelledException>(pending.Wait);
        Assert.Throws<StepCancelledException>(collective.ThrowIfCancelled);
        Assert.Throws<StepCancelledException>(collective.AllReduce(1, buffer, [0, 2, 4]).Wait);
        Assert.True(collective.Recover());
        collective.ThrowIfCancelled();
        Tensor[] ones = [torch.ones(4), torch.ones(4)];
        Each(2, r => collective.AllReduce(r, ones[r], [0, 2, 4]).Wait());
        Assert.All(ones, o => Assert.Equal(8, o.sum().item<float>()));
    }

    [Fact]
    public void On_CPUs_replicas_copy_and_no_library_is_looked_for()
    {
        using ICollective collective = Collectives.Between([CPU, CPU], 1, name => throw new InvalidOperationException($"{name} was looked for"));
        Assert.Contains("copies", collective.Description);
    }

    [Theory]
    [InlineData(false, false, "libnccl.so.2 cannot be loaded, and libtorch_cuda.so cannot be loaded")]
    [InlineData(true, false, "libnccl.so.2 has no ncclGroupEnd")]
    [InlineData(true, true, "libtorch_cuda.so has no ncclCommInitAll")]
    public void Without_NCCL_a_sentence_says_what_is_missing_and_devices_copy(bool nccl, bool torch, string reason)
    {
        Device[] devices = [Gpu(0), Gpu(1)];
        using ICollective collective = Collectives.Between(devices, 1, name => name == "libnccl.so.2"
            ? nccl ? new(name, symbol => symbol == "ncclGroupEnd" ? 0 : 1) : null
            : torch ? new(name, _ => 0) : null);
        Assert.IsType<InProcessCollective>(collective);
        Assert.Contains(reason, collective.Description, StringComparison.Ordinal);
        Assert.Contains("install NCCL 2", collective.Description, StringComparison.Ordinal);
    }

    [Fact]
    public void NCCL_is_taken_from_where_it_is_and_not_for_two_replicas_on_one_GPU()
    {
        NativeSource whole = new("fake", FakeNccl.Find), empty = new("nothing", _ => 0);
        using (ICollective collective = Collectives.Between([Gpu(0), Gpu(1)], 1, name => name == "libnccl.so.2" ? empty : whole)) Assert.Equal("NCCL from fake", collective.Description);
        using (ICollective collective = Collectives.Between([Gpu(0), Gpu(0)], 1, _ => whole)) Assert.Contains("share one", collective.Description);
        using (ICollective collective = Collectives.Between([Gpu(0), Gpu(1)], 1, name => name == "libnccl.so.2" ? whole : null)) Assert.Contains("libtorch_cuda.so cannot be loaded", collective.Description);
        // The number of devices that the stand-in refuses.
        using (ICollective collective = Collectives.Between([.. Enumerable.Range(0, 9).Select(Gpu)], 1, _ => whole)) Assert.Contains("ncclCommInitAll failed (refused)", collective.Description);
    }

    [Theory]
    [InlineData(Sharding.None, false)]
    [InlineData(Sharding.Gradients, true)]
    [InlineData(Sharding.Parameters, false)]
    [InlineData(Sharding.Parameters, true)]
    public void Replicas_train_through_the_functions_of_NCCL_as_through_copies(Sharding sharding, bool adafactor)
    {
        OptimizerOptions options = adafactor ? new AdafactorOptions() : new AdamWOptions();
        using ReplicaGroup copies = ReplicaRun.Group(3, sharding, options);
        using ReplicaGroup nccl = new(new Decoder(ReplicaRun.Config, 3), options, new() { Devices = [CPU, CPU, CPU], Sharding = sharding }, (devices, _) => New("NCCL", devices.Count));
        for (int step = 0; step < 5; step++) Assert.Equal(Step(copies, step).Loss, Step(nccl, step).Loss, 1e-6);
        float[] before = nccl.Numbers();
        Assert.ThrowsAny<Exception>(() => nccl.Step((r, m) => new(1, 2, [1, r == 1 ? 1000 : 1], [1, 1]), 1, 1, 1));
        Assert.True(before.AsSpan().SequenceEqual(nccl.Numbers()));
        // The communicators are gone.
        Assert.Contains("make a new group", Assert.Throws<InvalidOperationException>(() => Step(nccl, 5)).Message);

        static StepResult Step(ReplicaGroup group, int step) => group.Step((r, m) => ReplicaRun.Batch(7 + r, step, 1, 2, 0, m), 2, 3e-3, 1);
    }

    private static ICollective New(string kind, int count)
    {
        NativeSource fake = new("fake", FakeNccl.Find);
        return kind == "NCCL" ? new NcclCollective([.. Enumerable.Range(0, count)], new(fake), new(fake), kind) : new InProcessCollective(count, 1, kind);
    }

    // TorchSharp starts CUDA for a device that its own functions make.
    private static Device Gpu(int index) => new(DeviceType.CUDA, index);

    private static void Each(int count, Action<int> work)
    {
        Exception?[] errors = new Exception?[count];
        Thread[] threads = [.. Enumerable.Range(0, count).Select(r => new Thread(() =>
        {
            try { work(r); }
            catch (Exception e) { errors[r] = e; }
        }))];
        foreach (Thread thread in threads) thread.Start();
        foreach (Thread thread in threads) thread.Join();
        Assert.All(errors, Assert.Null);
    }
}
