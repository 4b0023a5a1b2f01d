using NopeGpt.Model.Native;
using TorchSharp;
using static TorchSharp.torch;

namespace NopeGpt.Model.Replicas;

/// <summary>Collectives by plain copies and additions between the replicas' tensors, on any devices. Each replica has a thread beside its own that does its
/// share: the range of its number. Sums begin with the range's own replica and go round, so that their bits do not depend on who comes when.</summary>
internal sealed class InProcessCollective : ICollective
{
    private readonly Lane[] _lanes;
    private readonly Tensor?[] _given;
    private readonly Meeting _meeting;

    /// <param name="threads">Of libtorch's operators on each of the threads.</param>
    public InProcessCollective(int count, int threads, string description)
    {
        Description = description;
        _given = new Tensor?[count];
        _meeting = new(count);
        _lanes = [.. Enumerable.Range(0, count).Select(rank => new Lane($"replica {rank} collective", () => ThreadShare.Set(threads)))];
    }

    public string Description { get; }

    public IPending AllReduce(int rank, Tensor buffer, IReadOnlyList<long> cuts) => Post(rank, () =>
    {
        Publish(rank, buffer);
        AddOthers(rank, Range(buffer, cuts, rank), cuts);
        _meeting.Arrive();
        foreach (int other in Others(rank)) Range(buffer, cuts, other).copy_(Range(_given[other]!, cuts, other));
    });

    public IPending ReduceScatter(int rank, Tensor buffer, Tensor shard, IReadOnlyList<long> cuts) => Post(rank, () =>
    {
        Publish(rank, buffer);
        shard.copy_(Range(buffer, cuts, rank));
        AddOthers(rank, shard, cuts);
    });

    public IPending AllGather(int rank, Tensor shard, Tensor buffer, IReadOnlyList<long> cuts) => Post(rank, () =>
    {
        Publish(rank, shard);
        Tensor mine = Range(buffer, cuts, rank);
        if (shard.numel() > 0 && Dispatcher.DataPointer(mine) != Dispatcher.DataPointer(shard)) mine.copy_(shard);
        foreach (int other in Others(rank)) Range(buffer, cuts, other).copy_(_given[other]!);
    });

    public void Cancel() => _meeting.Cancel();

    public void ThrowIfCancelled()
    {
        if (_meeting.Cancelled) throw new StepCancelledException();
    }

    public bool Recover()
    {
        // Each thread has come to the end of what it was given before.
        Task.WaitAll([.. _lanes.Select(lane => lane.Post(() => { }))]);
        _meeting.Reset();
        return true;
    }

    public void Dispose()
    {
        Cancel();
        foreach (Lane lane in _lanes) lane.Dispose();
    }

    private Pending Post(int rank, Action work) => new(_lanes[rank].Post(() =>
    {
        using DisposeScope scope = NewDisposeScope();
        using IDisposable quiet = no_grad();
        try
        {
            work();
            // Nobody changes or frees what others still read.
            _meeting.Arrive();
        }
        catch
        {
            Cancel();
            throw;
        }
    }));

    private void Publish(int rank, Tensor tensor)
    {
        _given[rank] = tensor;
        _meeting.Arrive();
    }

    private void AddOthers(int rank, Tensor sum, IReadOnlyList<long> cuts)
    {
        foreach (int other in Others(rank))
        {
            Tensor range = Range(_given[other]!, cuts, rank);
            sum.add_(Same(range.device, sum.device) ? range : range.to(sum.device), Scalars.One);
        }
    }

    private IEnumerable<int> Others(int rank) => Enumerable.Range(1, _lanes.Length - 1).Select(i => (rank + i) % _lanes.Length);

    private static Tensor Range(Tensor buffer, IReadOnlyList<long> cuts, int rank) => buffer.narrow(0, cuts[rank], cuts[rank + 1] - cuts[rank]);

    private static bool Same(Device one, Device other) => one.type == other.type && one.index == other.index;

    private sealed class Pending(Task task) : IPending
    {
        public void Wait() => task.GetAwaiter().GetResult();
    }
}
