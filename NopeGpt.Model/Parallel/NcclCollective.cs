using NopeGpt.Model.Native;
using static TorchSharp.torch;

namespace NopeGpt.Model.Replicas;

/// <summary>Collectives by NCCL (https://docs.nvidia.com/deeplearning/nccl), for NVIDIA GPUs of one machine, each on a stream of its own beside libtorch's. A replica that fails breaks the communicators,
/// as the others' kernels would wait for it for ever.</summary>
internal sealed unsafe class NcclCollective : ICollective
{
    private readonly NcclFunctions _nccl;
    private readonly CudaFunctions _cuda;
    private readonly int[] _devices;
    private readonly nint[] _communicators, _streams;
    private readonly Lock _ending = new();
    private volatile bool _cancelled;
    private bool _ended;

    /// <param name="devices">The CUDA device of each rank, all different.</param>
    /// <exception cref="InvalidOperationException">NCCL or CUDA refuses them, and says why.</exception>
    public NcclCollective(IReadOnlyList<int> devices, NcclFunctions nccl, CudaFunctions cuda, string description)
    {
        (_nccl, _cuda, _devices, Description) = (nccl, cuda, [.. devices], description);
        _communicators = new nint[devices.Count];
        fixed (nint* communicators = _communicators)
        fixed (int* numbers = _devices) nccl.Check(nccl.CommInitAll(communicators, devices.Count, numbers), "ncclCommInitAll");
        _streams = [.. _devices.Select(device =>
        {
            cuda.SetDevice(device);
            return cuda.NewStream();
        })];
        cuda.SetDevice(_devices[0]);
    }

    public string Description { get; }

    public IPending AllReduce(int rank, Tensor buffer, IReadOnlyList<long> cuts)
    {
        nint data = Dispatcher.DataPointer(buffer);
        return Begin(rank, stream => _nccl.Check(
            _nccl.AllReduce(data, data, (nuint)buffer.numel(), NcclFunctions.Float32, NcclFunctions.Sum, _communicators[rank], stream), "ncclAllReduce"));
    }

    public IPending ReduceScatter(int rank, Tensor buffer, Tensor shard, IReadOnlyList<long> cuts)
    {
        (nint from, nint to) = (Dispatcher.DataPointer(buffer), Dispatcher.DataPointer(shard));
        if (Even(cuts))
        {
            return Begin(rank, stream => _nccl.Check(
                _nccl.ReduceScatter(from, to, (nuint)cuts[1], NcclFunctions.Float32, NcclFunctions.Sum, _communicators[rank], stream), "ncclReduceScatter"));
        }
        return Begin(rank, stream => EachRange(cuts, (root, range, count) => _nccl.Check(
            _nccl.Reduce(from + range, root == rank ? to : 0, count, NcclFunctions.Float32, NcclFunctions.Sum, root, _communicators[rank], stream), "ncclReduce")));
    }

    public IPending AllGather(int rank, Tensor shard, Tensor buffer, IReadOnlyList<long> cuts)
    {
        (nint from, nint to) = (Dispatcher.DataPointer(shard), Dispatcher.DataPointer(buffer));
        if (Even(cuts))
            return Begin(rank, stream => _nccl.Check(_nccl.AllGather(from, to, (nuint)cuts[1], NcclFunctions.Float32, _communicators[rank], stream), "ncclAllGather"));
        return Begin(rank, stream => EachRange(cuts, (root, range, count) => _nccl.Check(
            _nccl.Broadcast(root == rank ? from : 0, to + range, count, NcclFunctions.Float32, root, _communicators[rank], stream), "ncclBroadcast")));
    }

    public void ThrowIfCancelled()
    {
        if (_cancelled) throw new StepCancelledException();
    }

    public void Cancel()
    {
        _cancelled = true;
        End(_nccl.CommAbort);
    }

    public bool Recover() => false;

    public void Dispose()
    {
        End(_nccl.CommDestroy);
        for (int rank = 0; rank < _devices.Length; rank++)
        {
            _cuda.SetDevice(_devices[rank]);
            _cuda.Destroy(_streams[rank]);
        }
    }

    // Once, by either function; what it returns changes nothing any more.
    private void End(delegate* unmanaged<nint, int> end)
    {
        lock (_ending)
        {
            if (_ended) return;
            _ended = true;
            foreach (nint communicator in _communicators) _ = end(communicator);
        }
    }

    private Pending Begin(int rank, Action<nint> work)
    {
        ThrowIfCancelled();
        _cuda.SetDevice(_devices[rank]);
        _cuda.Follow(_streams[rank], 0);
        work(_streams[rank]);
        return new(this, rank, _cuda.Mark(_streams[rank]));
    }

    /// <summary>One call for each range that is not empty, all of them one operation for NCCL.</summary>
    private void EachRange(IReadOnlyList<long> cuts, Action<int, nint, nuint> call)
    {
        _nccl.Check(_nccl.GroupStart(), "ncclGroupStart");
        for (int root = 0; root < _devices.Length; root++)
            if (cuts[root + 1] > cuts[root]) call(root, (nint)(cuts[root] * sizeof(float)), (nuint)(cuts[root + 1] - cuts[root]));
        _nccl.Check(_nccl.GroupEnd(), "ncclGroupEnd");
    }

    private static bool Even(IReadOnlyList<long> cuts)
    {
        for (int i = 1; i < cuts.Count; i++) if (cuts[i] != i * cuts[1]) return false;
        return true;
    }

    private sealed class Pending(NcclCollective owner, int rank, nint done) : IPending
    {
        public void Wait()
        {
            owner.ThrowIfCancelled();
            owner._cuda.SetDevice(owner._devices[rank]);
            owner._cuda.WaitAndDestroy(0, done);
        }
    }
}
