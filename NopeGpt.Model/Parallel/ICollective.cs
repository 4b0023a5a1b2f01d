using static TorchSharp.torch;

namespace NopeGpt.Model.Replicas;

/// <summary>What the replicas do together with their buckets (float32, one dimension). Every replica calls the same in the same order, each with its own
/// tensors; the call returns at once and the work goes on beside what the caller does next. It begins after what the caller has given its device so far.
/// A sum is made once and copied, so that all replicas get the same bits, and the same ones each time.</summary>
internal interface ICollective : IDisposable
{
    /// <summary>How it works, for the log.</summary>
    string Description { get; }

    /// <summary>Each buffer becomes the sum of all.</summary>
    /// <param name="cuts">The ranges into which the work may be divided (<see cref="Bucket.Cuts"/>).</param>
    IPending AllReduce(int rank, Tensor buffer, IReadOnlyList<long> cuts);

    /// <summary>Each shard becomes its replica's range of the sum of all buffers. The buffers hold nothing afterwards.</summary>
    IPending ReduceScatter(int rank, Tensor buffer, Tensor shard, IReadOnlyList<long> cuts);

    /// <summary>Each buffer becomes the shards of all, one after the other. A shard may be that range of its replica's buffer.</summary>
    IPending AllGather(int rank, Tensor shard, Tensor buffer, IReadOnlyList<long> cuts);

    /// <summary>A replica failed: nothing waits any longer, and everything that is pending or comes next throws. Safe from every thread.</summary>
    void Cancel();

    /// <exception cref="StepCancelledException">After <see cref="Cancel"/>.</exception>
    void ThrowIfCancelled();

    /// <summary>After <see cref="Cancel"/>, when no replica works any longer.</summary>
    /// <returns>False: it cannot be used again.</returns>
    bool Recover();
}

/// <summary>Work of an <see cref="ICollective"/> that goes on.</summary>
internal interface IPending
{
    /// <summary>What the caller does next, with these tensors on their device, comes after this work.</summary>
    void Wait();
}
