using static TorchSharp.torch;

namespace NopeGpt.Model.Replicas;

/// <summary>How much of the training state every replica holds whole (Rajbhandari et al. 2020, "ZeRO"; the numbers are its stages).</summary>
public enum Sharding
{
    /// <summary>Everything.</summary>
    None = 0,

    /// <summary>The parameters; of gradients and optimizer state one part of as many as there are replicas.</summary>
    Gradients = 2,

    /// <summary>Nothing: of the parameters one part too. A block's are gathered for its forward and backward pass and freed after each.</summary>
    Parameters = 3,
}

/// <summary>A tensor's place in a bucket.</summary>
/// <param name="Tensor">Its index in <see cref="ReplicaTensors.Of"/>.</param>
internal sealed record Slot(string Name, int Tensor, long[] Shape, long Start, long Count);

/// <summary>Tensors of one part of the network that lie in one run of memory, and are reduced, gathered and freed together.</summary>
/// <param name="Part">Of the network (<see cref="IPassage"/>).</param>
/// <param name="Trains">False: they are frozen, and only split.</param>
/// <param name="Size">Numbers, padding included.</param>
/// <param name="Cuts">Replica r's range is from Cuts[r] to Cuts[r + 1].</param>
internal sealed record Bucket(int Part, bool Trains, IReadOnlyList<Slot> Slots, long Size, long[] Cuts)
{
    public long Start(int rank) => Cuts[rank];

    public long Length(int rank) => Cuts[rank + 1] - Cuts[rank];

    /// <summary>The run of a tensor's elements that lies in a replica's range; a count of 0 or less where none does.</summary>
    public (long First, long Count) Overlap(Slot slot, int rank)
    {
        long start = Math.Max(slot.Start, Cuts[rank]), end = Math.Min(slot.Start + slot.Count, Cuts[rank + 1]);
        return (start - slot.Start, end - start);
    }
}

/// <summary>Which tensors of a model lie in which bucket: one for each part of the network, and at <see cref="Sharding.Parameters"/> one for the frozen
/// tensors of each part. It depends on the model's shapes alone, so that all replicas have the same.</summary>
internal sealed class BucketPlan
{
    // Every tensor begins on a cache line, as one of its own would.
    private const long Alignment = 16;

    private BucketPlan(IReadOnlyList<Bucket> buckets, int blocks, bool tiedHead, Sharding sharding) =>
        (Buckets, Blocks, TiedHead, Sharding) = (buckets, blocks, tiedHead, sharding);

    public IReadOnlyList<Bucket> Buckets { get; }

    /// <summary>L. The parts are 0 to L + 1.</summary>
    public int Blocks { get; }

    /// <summary>The embeddings are used by the last part too.</summary>
    public bool TiedHead { get; }

    public Sharding Sharding { get; }

    /// <param name="wholeTensors">The optimizer needs every tensor whole: no cut goes through one. Tensors are dealt out so that the replicas' shares
    /// differ by less than the largest of them.</param>
    public static BucketPlan For(Decoder model, int replicas, Sharding sharding, bool wholeTensors)
    {
        int blocks = model.Config.NumDecoderLayers;
        (string Name, Tensor Tensor, bool Trains)[] tensors = [.. ReplicaTensors.Of(model)];
        var groups = tensors.Select((t, i) => (Tensor: i, t.Name, Shape: t.Tensor.shape, t.Trains, Part: ReplicaTensors.Part(t.Name, blocks)))
            .Where(t => t.Trains || sharding == Sharding.Parameters)
            .GroupBy(t => (t.Part, t.Trains)).OrderBy(g => g.Key.Part).ToArray();
        Dictionary<int, int> owners = [];
        if (wholeTensors && sharding != Sharding.None)
        {
            long[] loads = new long[replicas];
            foreach (var tensor in groups.Where(g => g.Key.Trains).SelectMany(g => g).OrderByDescending(t => Count(t.Shape)))
            {
                int owner = Array.IndexOf(loads, loads.Min());
                owners[tensor.Tensor] = owner;
                loads[owner] += Count(tensor.Shape);
            }
        }
        List<Bucket> buckets = [];
        foreach (var group in groups)
        {
            List<Slot> slots = [];
            long[] ends = new long[replicas];
            long end = 0;
            foreach (var t in group.OrderBy(t => owners.GetValueOrDefault(t.Tensor)))
            {
                slots.Add(new(t.Name, t.Tensor, t.Shape, end, Count(t.Shape)));
                end = Aligned(end + Count(t.Shape));
                ends[owners.GetValueOrDefault(t.Tensor)] = end;
            }
            bool whole = owners.ContainsKey(slots[0].Tensor);
            long part = Aligned((end + replicas - 1) / replicas);
            long[] cuts = whole ? RunningMaximum(ends) : [.. Enumerable.Range(0, replicas + 1).Select(i => i * part)];
            buckets.Add(new(group.Key.Part, group.Key.Trains, slots, cuts[^1], cuts));
        }
        return new(buckets, blocks, model.Config.TiedHead, sharding);
    }

    private static long[] RunningMaximum(long[] ends)
    {
        long[] cuts = new long[ends.Length + 1];
        for (int i = 0; i < ends.Length; i++) cuts[i + 1] = Math.Max(cuts[i], ends[i]);
        return cuts;
    }

    private static long Count(long[] shape) => shape.Aggregate(1L, (product, size) => product * size);

    private static long Aligned(long count) => (count + Alignment - 1) / Alignment * Alignment;
}
