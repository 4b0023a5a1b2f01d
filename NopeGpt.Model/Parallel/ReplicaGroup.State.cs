using NopeGpt.Model.Optimizers;
using NopeGpt.Model.Storage;
using TorchSharp;
using static TorchSharp.torch;

namespace NopeGpt.Model.Replicas;

// Where state comes from and goes to.
public sealed partial class ReplicaGroup
{
    /// <summary>Number of parameters that <see cref="Capture"/> copies: the adapters' where there are any, else the model's.</summary>
    public long SavedParameters => ReplicaTensors.Saved(Model).Sum(t => t.Tensor.numel());

    /// <summary>A copy of the whole state in the host's memory, which fits a group of any size and sharding. It belongs to no dispose scope. Between steps.</summary>
    public TrainingState Capture()
    {
        ObjectDisposedException.ThrowIf(_disposed, this);
        using IDisposable quiet = no_grad();
        List<(string Name, Tensor Tensor)> parameters = [], optimizer = [];
        try
        {
            Copy(parameters, optimizer);
            return new(Model.Config, parameters, optimizer) { Generators = Generators };
        }
        catch
        {
            foreach ((_, Tensor tensor) in parameters.Concat(optimizer)) tensor.Dispose();
            throw;
        }
    }

    private void Copy(List<(string, Tensor)> parameters, List<(string, Tensor)> optimizer)
    {
        foreach ((string name, Tensor tensor, int index) in Saved()) parameters.Add((name, Host(tensor, index)));
        foreach ((string name, WholeTensor whole) in OptimizerState())
        {
            using DisposeScope scope = NewDisposeScope();
            Tensor copy = empty(whole.Shape, ScalarType.Float32);
            foreach ((Tensor piece, long start) in whole.Pieces) copy.flatten().narrow(0, start, piece.numel()).copy_(piece.flatten());
            optimizer.Add((name, copy.DetachFromDisposeScope()));
        }
        optimizer.Add((Optimizers.Optimizer.StepName, tensor(StepCount, ScalarType.Int64).DetachFromDisposeScope()));
    }

    /// <summary>State of each replica's dropout generator. It may be set to the states of another number of replicas: those that are beyond have their own.</summary>
    public IReadOnlyList<byte[]> Generators
    {
        get => [.. _replicas.Select(r => r.Model.DropoutState)];
        set
        {
            foreach ((Replica replica, byte[] state) in _replicas.Zip(value)) replica.Model.DropoutState = state;
        }
    }

    /// <summary>Takes over parameters, such as <see cref="TrainingState.Parameters"/>. Between steps.</summary>
    /// <exception cref="InvalidDataException">One is missing, unknown, or of another shape or type. Nothing was changed.</exception>
    public void RestoreParameters(IReadOnlyDictionary<string, Tensor> parameters)
    {
        ObjectDisposedException.ThrowIf(_disposed, this);
        IReadOnlyList<(string Name, Tensor Tensor, int Index)> saved = Saved();
        foreach ((string name, Tensor tensor, _) in saved)
        {
            if (!parameters.TryGetValue(name, out Tensor? given)) throw new InvalidDataException($"The parameters have no {name}: they are another model's.");
            if (given.dtype != tensor.dtype || !given.shape.SequenceEqual(tensor.shape))
                throw new InvalidDataException($"The parameters have {name} as {given.dtype} [{string.Join(", ", given.shape)}], the model needs {tensor.dtype} [{string.Join(", ", tensor.shape)}].");
        }
        if (parameters.Keys.Except(saved.Select(s => s.Name)).FirstOrDefault() is { } unknown) throw new InvalidDataException($"The parameters have {unknown}, which the model does not: they are another model's.");
        using DisposeScope scope = NewDisposeScope();
        using IDisposable quiet = no_grad();
        Tensor[][] own = [.. _replicas.Select(r => ReplicaTensors.Of(r.Model).Select(t => t.Tensor).ToArray())];
        foreach ((string name, _, int index) in saved)
        {
            if (Split(index) is { } pieces)
                foreach ((Tensor piece, long start) in pieces) piece.copy_(parameters[name].flatten().narrow(0, start, piece.numel()));
            else
                foreach (Tensor[] tensors in own) tensors[index].copy_(parameters[name]);
        }
    }

    /// <summary>Takes over the state of an optimizer, such as <see cref="TrainingState.Optimizer"/>. Between steps.</summary>
    /// <exception cref="InvalidDataException">As <see cref="Optimizers.Optimizer.Restore"/>. Nothing was changed.</exception>
    public void RestoreOptimizer(IReadOnlyDictionary<string, Tensor> state)
    {
        ObjectDisposedException.ThrowIf(_disposed, this);
        Dictionary<string, WholeTensor> own = OptimizerState();
        Optimizer[] optimizers = [.. _replicas.Select(r => r.Optimizer).OfType<Optimizer>()];
        optimizers[0].Check(state, own.ToDictionary(o => o.Key, o => o.Value.Shape));
        using DisposeScope scope = NewDisposeScope();
        foreach (Optimizer optimizer in optimizers)
            optimizer.Restore(optimizer.StateTensors.Select(t => (t.Name, Tensor: Part(t.Name, t.Tensor))).Append((Optimizers.Optimizer.StepName, state[Optimizers.Optimizer.StepName])).ToDictionary());

        Tensor Part(string name, Tensor piece) =>
            state[name].flatten().narrow(0, own[name].Pieces.First(p => ReferenceEquals(p.Piece, piece)).Start, piece.numel()).view(piece.shape);
    }

    /// <summary>A tensor of the state of one optimizer for all, and the living tensors that it is made of.</summary>
    /// <param name="Pieces">Runs of its elements, and where they start. Several of one place are the same in every replica.</param>
    private sealed record WholeTensor(long[] Shape, List<(Tensor Piece, long Start)> Pieces);

    /// <param name="Index">In <see cref="ReplicaTensors.Of"/>, where the adapters' tensors come last.</param>
    private IReadOnlyList<(string Name, Tensor Tensor, int Index)> Saved()
    {
        (string Name, Tensor Tensor)[] saved = [.. ReplicaTensors.Saved(Model)];
        int before = Model.Adapters.Count > 0 ? ReplicaTensors.Of(Model).Count() - saved.Length : 0;
        return [.. saved.Select((s, i) => (s.Name, s.Tensor, before + i))];
    }

    private Tensor Host(Tensor tensor, int index)
    {
        using DisposeScope scope = NewDisposeScope();
        Tensor copy = empty(tensor.shape, tensor.dtype);
        if (Split(index) is { } pieces)
            foreach ((Tensor piece, long start) in pieces) copy.flatten().narrow(0, start, piece.numel()).copy_(piece);
        else
            copy.copy_(tensor);
        return copy.DetachFromDisposeScope();
    }

    /// <summary>The runs of a tensor's elements in the replicas' shards; null where parameters are not split.</summary>
    private List<(Tensor Piece, long Start)>? Split(int index)
    {
        if (_plan?.Sharding != Sharding.Parameters) return null;
        int place = _plan.Buckets.ToList().FindIndex(b => b.Slots.Any(s => s.Tensor == index));
        Bucket bucket = _plan.Buckets[place];
        Slot slot = bucket.Slots.First(s => s.Tensor == index);
        List<(Tensor, long)> pieces = [];
        for (int rank = 0; rank < Count; rank++)
        {
            (long first, long count) = bucket.Overlap(slot, rank);
            if (count > 0) pieces.Add((((FlatHolding)_replicas[rank].Holding).Buckets[place].ParameterShard.narrow(0, slot.Start + first - bucket.Start(rank), count), first));
        }
        return pieces;
    }

    private Dictionary<string, WholeTensor> OptimizerState()
    {
        bool split = _plan is not null && _plan.Sharding != Sharding.None;
        Dictionary<string, WholeTensor> state = [];
        for (int rank = 0; rank < Count; rank++)
        {
            foreach ((string name, Tensor tensor) in _replicas[rank].Optimizer?.StateTensors ?? [])
            {
                long[] shape = tensor.shape;
                long start = 0;
                if (split)
                {
                    // A state's name is what it is and, behind the first dot, the parameter's.
                    string parameter = name[(name.IndexOf('.') + 1)..];
                    (Bucket bucket, Slot slot) = _plan!.Buckets.Where(b => b.Trains).SelectMany(b => b.Slots.Select(s => (b, s))).First(p => p.s.Name == parameter);
                    (start, long count) = bucket.Overlap(slot, rank);
                    if (count < slot.Count) shape = slot.Shape;
                }
                if (!state.TryGetValue(name, out WholeTensor? known)) state[name] = known = new(shape, []);
                known.Pieces.Add((tensor, start));
            }
        }
        return state;
    }
}
