using System.Diagnostics;
using NopeGpt.Model.Replicas;
using TorchSharp;
using static TorchSharp.torch;

namespace NopeGpt.Benchmarks;

/// <summary>One size of buffer through every collective: the results beside sums made on the CPU, and the time.</summary>
/// <param name="elements">Of a buffer; a multiple of the number of devices.</param>
internal sealed class CollectiveTrial(ICollective collective, IReadOnlyList<Device> devices, int elements)
{
    private const int Times = 10;

    private readonly long[] _cuts = [.. Enumerable.Range(0, devices.Count + 1).Select(i => (long)elements / devices.Count * i)];

    public bool Run(double tolerance, Action<string> say)
    {
        using DisposeScope scope = NewDisposeScope();
        Tensor[] parts = [.. Enumerable.Range(0, devices.Count).Select(Made)];
        Tensor sum = parts.Aggregate((a, b) => a + b);
        bool right = true;
        foreach ((string name, Func<int, Tensor, Tensor, IPending> begin, Func<int, Tensor, Tensor, (Tensor Got, Tensor Wanted)> result) in ((string, Func<int, Tensor, Tensor, IPending>, Func<int, Tensor, Tensor, (Tensor, Tensor)>)[])
        [
            ("all-reduce", (rank, buffer, _) => collective.AllReduce(rank, buffer, _cuts), (_, buffer, _) => (buffer, sum)),
            ("reduce-scatter", (rank, buffer, shard) => collective.ReduceScatter(rank, buffer, shard, _cuts), (rank, _, shard) => (shard, Range(sum, rank))),
            ("all-gather", (rank, buffer, shard) => collective.AllGather(rank, shard, buffer, _cuts), (_, buffer, _) => (buffer, Gathered(parts))),
        ])
        {
            Tensor[] buffers = [.. parts.Select((part, rank) => part.to(devices[rank], copy: true))];
            Tensor[] shards = [.. parts.Select((part, rank) => Range(part, rank).to(devices[rank], copy: true).contiguous())];
            Each(rank => begin(rank, buffers[rank], shards[rank]).Wait());
            double error = Enumerable.Range(0, devices.Count).Max(rank =>
            {
                (Tensor got, Tensor wanted) = result(rank, buffers[rank], shards[rank]);
                return got.cpu().sub(wanted).abs().max().item<float>();
            });
            long start = Stopwatch.GetTimestamp();
            Each(rank =>
            {
                for (int i = 0; i < Times; i++) begin(rank, buffers[rank], shards[rank]).Wait();
                if (devices[rank].type == DeviceType.CUDA) cuda.synchronize(devices[rank]);
            });
            double seconds = Stopwatch.GetElapsedTime(start).TotalSeconds / Times;
            // Each value is the sum of a few, between -1 and 1.
            bool same = error <= tolerance * devices.Count;
            right &= same;
            say($"  {name,-14} {elements,10:N0} float32: {1e3 * seconds,8:0.000} ms, {sizeof(float) * (double)elements / seconds / 1e9,7:0.00} GB/s of a buffer, differs by {error:0.0e+0}{(same ? "" : "  WRONG")}");
        }
        return right;
    }

    private Tensor Made(int rank)
    {
        using Generator generator = new((ulong)rank + 1, CPU);
        return rand([elements], generator: generator).mul(2).sub(1);
    }

    private Tensor Range(Tensor values, int rank) => values.narrow(0, _cuts[rank], _cuts[rank + 1] - _cuts[rank]);

    private Tensor Gathered(Tensor[] parts) => cat([.. parts.Select(Range)]);

    /// <summary>On a thread for each replica, as they train.</summary>
    private void Each(Action<int> work)
    {
        Task[] tasks = [.. Enumerable.Range(0, devices.Count).Select(rank => Task.Factory.StartNew(() => work(rank), CancellationToken.None, TaskCreationOptions.LongRunning, TaskScheduler.Default))];
        Task.WaitAll(tasks);
    }
}
