using NopeGpt.Model.Native;
using TorchSharp;
using static TorchSharp.torch;

namespace NopeGpt.Model.Replicas;

/// <summary>One of several replicas: its tensors lie in buckets (<see cref="BucketMemory"/>). While the backward pass goes on, each part of the network
/// reports when its gradients are done, and the part's bucket is reduced beside the backward pass of the parts before it.</summary>
/// <remarks>With split gradients each micro-batch's are reduced and added to the shard, as holding them whole until the last one would be what is not
/// promised; at most two parts' are whole at a time, and a tied embedding's. With split parameters at most two parts' are whole at a time during forward
/// and backward (the one that computes and the next one, which is on its way), and a tied embedding's while the head computes.</remarks>
internal sealed class FlatHolding : Holding, IPassage
{
    private readonly BucketPlan _plan;
    private readonly int _rank;
    private readonly ICollective _collective;
    private readonly IReadOnlyList<BucketMemory> _buckets;
    private readonly ILookup<int, BucketMemory> _parts;
    private readonly GradientGates _gates;
    private readonly Dictionary<BucketMemory, IPending> _gathering = [], _reducing = [];
    private readonly HashSet<int> _reduced = [];
    private readonly IReadOnlyList<Tensor> _tensors;
    private Exception? _fault;
    private bool _training, _first, _last;

    /// <param name="model">Its tensors become views of the buckets.</param>
    /// <param name="values">What they are to hold (<see cref="ReplicaTensors.Of"/>), on any device.</param>
    /// <param name="own">The values are this model's own, and their memory goes as it is taken over.</param>
    public FlatHolding(BucketPlan plan, int rank, Decoder model, ICollective collective, IReadOnlyList<Tensor> values, bool own)
    {
        (_plan, _rank, _collective) = (plan, rank, collective);
        _tensors = [.. ReplicaTensors.Of(model).Select(t => t.Tensor)];
        _buckets = [.. plan.Buckets.Select(bucket =>
        {
            BucketMemory memory = new(bucket, rank, plan.Sharding, model.Device);
            memory.Fill(values, rank);
            memory.Bind(_tensors);
            memory.Settle(plan.Sharding);
            if (own) foreach (Slot slot in bucket.Slots) values[slot.Tensor].Dispose();
            return memory;
        })];
        _parts = _buckets.ToLookup(b => b.Bucket.Part);
        if (!own) CopyRest(values);
        Optimized = [.. _buckets.Where(b => b.Gradients is not null).SelectMany(Pieces)];
        _gates = new(plan.Blocks + 1, Arrived);
        model.Passage = this;
    }

    /// <summary>The holdings of all replicas, by rank.</summary>
    public IReadOnlyList<FlatHolding> All { get; set; } = [];

    public IReadOnlyList<BucketMemory> Buckets => _buckets;

    public override IReadOnlyList<(string Name, Tensor Parameter)> Optimized { get; }

    public override Exception? Fault => _fault;

    /// <summary>The most bytes of buckets that were held during the last step where they are split; 0 where not.</summary>
    public (long Parameters, long Gradients) Peak { get; private set; }

    public override (IEnumerable<Tensor> Parameters, IEnumerable<Tensor> Gradients) Tensors =>
        (_tensors.Concat(_buckets.Select(b => b.ParameterShard)), _buckets.Where(b => b.Gradients is not null).SelectMany(b => (Tensor[])[b.Gradients!.Whole, b.GradientShard]));

    private bool SplitsGradients => _plan.Sharding != Sharding.None;

    private bool SplitsParameters => _plan.Sharding == Sharding.Parameters;

    private int Head => _plan.Blocks + 1;

    public override void BeginStep()
    {
        Settle();
        (_fault, Peak) = (null, default);
        foreach (BucketMemory bucket in _buckets.Where(b => !SplitsGradients && b.Gradients is not null)) bucket.Gradients!.Whole.zero_();
    }

    public override void BeginPass(bool first, bool last)
    {
        (_training, _first, _last) = (true, first, last);
        _reduced.Clear();
    }

    public override void BeginBackward()
    {
        Prepare(Head);
        if (_plan.TiedHead) Prepare(0);
    }

    public override void EndPass()
    {
        _training = false;
        _gates.Release();
        // The embeddings, and parts before the first one that trains.
        for (int part = Head; part >= 0; part--) Reduce(part);
        Drain();
        Settle();
    }

    public override Tensor OwnNorm()
    {
        using DisposeScope scope = NewDisposeScope();
        using IDisposable quiet = no_grad();
        Tensor[] norms = [.. _buckets.Where(b => b.Gradients is not null).Select(b => b.GradientShard.norm())];
        return stack(norms).norm().MoveToOuterDisposeScope();
    }

    public override void Scale(double factor)
    {
        using DisposeScope scope = NewDisposeScope();
        using IDisposable quiet = no_grad();
        Tensor[] gradients = [.. _buckets.Where(b => b.Gradients is not null).Select(b => SplitsGradients ? b.GradientShard : b.Gradients!.Whole)];
        Aten.MultiplyEach(gradients, tensor((float)factor, device: gradients[0].device));
    }

    public override void EndStep()
    {
        if (_plan.Sharding != Sharding.Gradients) return;
        IPending[] gathering = [.. _buckets.Select(b => _collective.AllGather(_rank, b.ParameterShard, b.Parameters.Whole, b.Bucket.Cuts))];
        foreach (IPending pending in gathering) pending.Wait();
    }

    public override void Abandon()
    {
        _training = false;
        _gates.Release();
        foreach (IPending pending in (IPending[])[.. _gathering.Values, .. _reducing.Values])
        {
            try { pending.Wait(); }
            catch (Exception e)
            {
                // Whose own failure it is says why; the others' only say that there was one.
                if (_fault is null or StepCancelledException) _fault = e;
            }
        }
        _gathering.Clear();
        _reducing.Clear();
        Settle();
    }

    public override void Dispose()
    {
        if (SplitsGradients) foreach ((_, Tensor piece) in Optimized) piece.Dispose();
        foreach (BucketMemory bucket in _buckets) bucket.Dispose();
        _gates.Dispose();
        base.Dispose();
    }

    bool IPassage.KeepsParameters => !SplitsParameters;

    void IPassage.Begin()
    {
        if (!SplitsParameters) return;
        if (_training)
        {
            Request(0);
            Request(1);
            Await(0);
            return;
        }
        // A pass that ended with an exception may have left parts of an earlier step.
        Settle();
        Fetch(0);
    }

    Tensor IPassage.Between(Tensor x_BTd, int part)
    {
        if (SplitsParameters && !_training)
        {
            if (x_BTd.requires_grad) throw new InvalidOperationException("A replica whose parameters are split trains only by its group's step: compute this pass without gradients.");
            Free(part);
            Fetch(part + 1);
            if (part == _plan.Blocks && _plan.TiedHead) Fetch(0);
        }
        else if (SplitsParameters)
        {
            // The last block is the second one that the backward pass needs, after the head.
            if (part < _plan.Blocks) Free(part);
            if (part + 2 <= Head) Request(part + 2);
            if (part == _plan.Blocks && _plan.TiedHead) Request(0);
            Await(part + 1);
            if (part == _plan.Blocks && _plan.TiedHead) Await(0);
        }
        return _training ? _gates.Through(part, x_BTd) : x_BTd;
    }

    void IPassage.End()
    {
        if (!SplitsParameters) return;
        // Its rows' gradients do not depend on the rows.
        Free(0);
        if (!_training) Free(Head);
    }

    /// <summary>Frozen tensors that are in no bucket.</summary>
    private void CopyRest(IReadOnlyList<Tensor> values)
    {
        using DisposeScope scope = NewDisposeScope();
        using IDisposable quiet = no_grad();
        foreach (int i in Enumerable.Range(0, _tensors.Count).Except(_plan.Buckets.SelectMany(b => b.Slots).Select(s => s.Tensor)))
            _tensors[i].set_(empty(values[i].shape, ScalarType.Float32, _tensors[i].device).copy_(values[i]));
    }

    private void Settle()
    {
        foreach (BucketMemory bucket in _buckets) bucket.Settle(_plan.Sharding);
    }

    /// <summary>The backward pass has done the part after the gate and comes to the one before it. Called by libtorch, so nothing may be thrown.</summary>
    private bool Arrived(int part)
    {
        if (_fault is not null) return false;
        try
        {
            _collective.ThrowIfCancelled();
            Reduce(part + 1);
            if (SplitsParameters)
            {
                Free(part + 1);
                if (part > 0) Await(part);
                if (part > 1) Request(part - 1);
            }
            Drain(except: part + 1);
            if (part > 0 || !_plan.TiedHead) Prepare(part);
            return true;
        }
        catch (Exception e)
        {
            _fault = e;
            return false;
        }
    }

    /// <summary>Makes the part's gradients ready to be added to.</summary>
    private void Prepare(int part)
    {
        if (!SplitsGradients) return;
        using IDisposable quiet = no_grad();
        foreach (BucketMemory bucket in _parts[part].Where(b => b.Gradients is not null))
        {
            bucket.Gradients!.Hold();
            CountPeak();
            bucket.Gradients.Whole.zero_();
            if (_first) continue;
            // What the earlier micro-batches gave takes part in this one's sum.
            using Tensor own = bucket.Gradients.View(bucket.Bucket.Start(_rank), bucket.Bucket.Length(_rank));
            own.copy_(bucket.GradientShard);
        }
    }

    private void Reduce(int part)
    {
        if (!_reduced.Add(part) || !(SplitsGradients || _last)) return;
        foreach (BucketMemory bucket in _parts[part].Where(b => b.Gradients is not null))
        {
            // No gradient came to where the part trains.
            if (!bucket.Gradients!.Held) Prepare(part);
            _reducing[bucket] = SplitsGradients
                ? _collective.ReduceScatter(_rank, bucket.Gradients!.Whole, bucket.GradientShard, bucket.Bucket.Cuts)
                : _collective.AllReduce(_rank, bucket.Gradients!.Whole, bucket.Bucket.Cuts);
        }
    }

    /// <summary>Waits for the gradients that are on their way, but not for a part's that has only begun.</summary>
    private void Drain(int except = -1)
    {
        // Nothing needs them whole where they are not split, before the end.
        if (except >= 0 && !SplitsGradients) return;
        foreach ((BucketMemory bucket, IPending pending) in _reducing.Where(r => r.Key.Bucket.Part != except).ToArray())
        {
            pending.Wait();
            _reducing.Remove(bucket);
            if (SplitsGradients) bucket.Gradients!.Release();
        }
    }

    private void Request(int part)
    {
        foreach (BucketMemory bucket in _parts[part].Where(b => !b.Parameters.Held))
        {
            bucket.Parameters.Hold();
            CountPeak();
            _gathering[bucket] = _collective.AllGather(_rank, bucket.ParameterShard, bucket.Parameters.Whole, bucket.Bucket.Cuts);
        }
    }

    private void Await(int part)
    {
        Request(part);
        foreach (BucketMemory bucket in _parts[part])
            if (_gathering.Remove(bucket, out IPending? pending)) pending.Wait();
    }

    private void Free(int part)
    {
        foreach (BucketMemory bucket in _parts[part])
        {
            if (_gathering.Remove(bucket, out IPending? pending)) pending.Wait();
            bucket.Parameters.Release();
        }
    }

    /// <summary>Outside of steps: copies from the other replicas, which need not do the same meanwhile.</summary>
    private void Fetch(int part)
    {
        using DisposeScope scope = NewDisposeScope();
        using IDisposable quiet = no_grad();
        foreach ((BucketMemory memory, int index) in _buckets.Select((b, i) => (b, i)).Where(b => b.b.Bucket.Part == part))
        {
            memory.Parameters.Hold();
            foreach (FlatHolding other in All)
                memory.Parameters.View(memory.Bucket.Start(other._rank), memory.Bucket.Length(other._rank)).copy_(other._buckets[index].ParameterShard);
        }
    }

    private void CountPeak()
    {
        long parameters = ReplicaTensors.Bytes(_buckets.SelectMany(b => (Tensor[])[b.Parameters.Whole, b.ParameterShard]));
        long gradients = ReplicaTensors.Bytes(_buckets.Where(b => b.Gradients is not null).SelectMany(b => (Tensor[])[b.Gradients!.Whole, b.GradientShard]));
        Peak = (Math.Max(Peak.Parameters, parameters), Math.Max(Peak.Gradients, gradients));
    }

    /// <summary>The replica's shard of a bucket as the optimizer sees it: whole tensors, or runs of elements of one with as many dimensions as the tensor.</summary>
    private IEnumerable<(string Name, Tensor Parameter)> Pieces(BucketMemory memory)
    {
        foreach (Slot slot in memory.Bucket.Slots)
        {
            if (!SplitsGradients)
            {
                yield return (slot.Name, _tensors[slot.Tensor]);
                continue;
            }
            (long first, long count) = memory.Bucket.Overlap(slot, _rank);
            if (count <= 0) continue;
            long[] shape = count == slot.Count ? slot.Shape : [.. Enumerable.Repeat(1L, slot.Shape.Length - 1), count];
            yield return (slot.Name, Piece(memory, slot.Start + first, shape));
        }
    }

    private Tensor Piece(BucketMemory memory, long start, long[] shape)
    {
        using DisposeScope scope = NewDisposeScope();
        using IDisposable quiet = no_grad();
        Tensor piece = View(memory.ParameterShard).DetachFromDisposeScope();
        piece.grad = View(memory.GradientShard);
        return piece;

        Tensor View(Tensor shard) => shard.narrow(0, start - memory.Bucket.Start(_rank), shape.Aggregate(1L, (product, size) => product * size)).view(shape);
    }
}
