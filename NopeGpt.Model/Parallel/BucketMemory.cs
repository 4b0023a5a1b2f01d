using NopeGpt.Model.Native;
using TorchSharp;
using static TorchSharp.torch;

namespace NopeGpt.Model.Replicas;

/// <summary>What one replica holds of a bucket. The replica's own range of a bucket is its shard.</summary>
/// <remarks>
/// | sharding   | parameters           | gradients                 |
/// | None       | whole                | whole                     |
/// | Gradients  | whole                | shard; whole while needed |
/// | Parameters | shard; whole while needed | shard; whole while needed |
/// </remarks>
internal sealed class BucketMemory : IDisposable
{
    private readonly Tensor? _parameterShard;
    private readonly Tensor? _gradientShard;

    public BucketMemory(Bucket bucket, int rank, Sharding sharding, Device device)
    {
        Bucket = bucket;
        using DisposeScope scope = NewDisposeScope();
        Parameters = new(bucket.Size, device);
        _parameterShard = Shard(Parameters, sharding == Sharding.Parameters);
        if (!bucket.Trains) return;
        Gradients = new(bucket.Size, device);
        _gradientShard = Shard(Gradients, sharding != Sharding.None);

        Tensor Shard(FlatMemory whole, bool split) =>
            (split ? zeros([bucket.Length(rank)], ScalarType.Float32, device) : whole.View(bucket.Start(rank), bucket.Length(rank))).DetachFromDisposeScope();
    }

    public Bucket Bucket { get; }

    /// <summary>Of all tensors of the bucket.</summary>
    public FlatMemory Parameters { get; }

    /// <summary>As <see cref="Parameters"/>. Null: the bucket is frozen.</summary>
    public FlatMemory? Gradients { get; }

    /// <summary>The replica's range: a view of <see cref="Parameters"/> where they are not split.</summary>
    public Tensor ParameterShard => _parameterShard!;

    /// <summary>The replica's range of the reduced gradients: a view of <see cref="Gradients"/> where they are not split.</summary>
    public Tensor GradientShard => _gradientShard!;

    /// <summary>Makes the replica's tensors views of this memory, and their gradients too. The memory must be held.</summary>
    /// <param name="tensors">By <see cref="Slot.Tensor"/>.</param>
    public void Bind(IReadOnlyList<Tensor> tensors)
    {
        using DisposeScope scope = NewDisposeScope();
        using IDisposable quiet = no_grad();
        foreach (Slot slot in Bucket.Slots)
        {
            tensors[slot.Tensor].set_(Parameters.View(slot.Start, slot.Shape));
            if (Gradients is not null) tensors[slot.Tensor].grad = Gradients.View(slot.Start, slot.Shape);
        }
    }

    /// <summary>Takes over values. The memory must be held.</summary>
    /// <param name="values">As in <see cref="Bind"/>; on any device.</param>
    public void Fill(IReadOnlyList<Tensor> values, int rank)
    {
        using DisposeScope scope = NewDisposeScope();
        using IDisposable quiet = no_grad();
        foreach (Slot slot in Bucket.Slots) Parameters.View(slot.Start, slot.Shape).copy_(values[slot.Tensor]);
        ParameterShard.copy_(Parameters.View(Bucket.Start(rank), Bucket.Length(rank)));
    }

    /// <summary>Gives back what is whole only while needed.</summary>
    public void Settle(Sharding sharding)
    {
        if (sharding == Sharding.Parameters) Parameters.Release();
        if (sharding != Sharding.None) Gradients?.Release();
    }

    public void Dispose()
    {
        _parameterShard?.Dispose();
        _gradientShard?.Dispose();
        Parameters.Dispose();
        Gradients?.Dispose();
    }
}
