using System.Diagnostics;
using System.Runtime.ExceptionServices;
using NopeGpt.Model.Native;
using NopeGpt.Model.Optimizers;
using TorchSharp;
using static TorchSharp.torch;

namespace NopeGpt.Model.Replicas;

// The folder is Parallel; a namespace of that name would hide System.Threading.Tasks.Parallel in all of NopeGpt.Model.

/// <summary>How a <see cref="ReplicaGroup"/> is made.</summary>
public sealed record ReplicaOptions
{
    /// <summary>One replica for each; the first is the model's own device. Empty: that one alone.</summary>
    public IReadOnlyList<Device> Devices { get; init; } = [];

    /// <summary>Of a group of one nothing is split.</summary>
    public Sharding Sharding { get; init; }

    /// <summary>For the dropout of all replicas but the first, which keeps the model's own generator.</summary>
    public ulong Seed { get; init; }
}

/// <summary>Trains one model on several devices: a replica on each, on a thread of its own, with the same parameters at any time. A group of one is the
/// plain loop on the caller's thread. Optimizer state may be split by elements (AdamW); Muon and Adafactor need whole matrices, so their
/// shards are whole tensors, dealt out so that they differ by less than the largest one. Not for several threads.</summary>
public sealed partial class ReplicaGroup : IDisposable
{
    private readonly Replica[] _replicas;
    private readonly Lane[] _lanes = [];
    private readonly ICollective? _collective;
    private readonly BucketPlan? _plan;
    private bool _disposed, _broken;

    /// <param name="model">The first replica, which belongs to the group from now on, as do its attached adapters. What trains in it
    /// (<see cref="Decoder.TrainedParameters"/>) must not change as long as the group is there.</param>
    /// <exception cref="ArgumentException">The options do not fit the model, or the optimizer's have problems.</exception>
    public ReplicaGroup(Decoder model, OptimizerOptions optimizer, ReplicaOptions? options = null)
        : this(model, optimizer, options, Collectives.Between)
    {
    }

    /// <param name="collectives">Makes the collective for devices and libtorch's threads for each.</param>
    internal ReplicaGroup(Decoder model, OptimizerOptions optimizer, ReplicaOptions? options, Func<IReadOnlyList<Device>, int, ICollective> collectives)
    {
        options ??= new();
        IReadOnlyList<Device> devices = options.Devices.Count == 0 ? [model.Device] : options.Devices;
        if (devices[0].type != model.Device.type || (devices[0].index != model.Device.index && Math.Min(devices[0].index, model.Device.index) >= 0))
            throw new ArgumentException($"devices = {string.Join(", ", devices)}: the model is on {model.Device}, and that must be the first one.", nameof(options));
        if (!Enum.IsDefined(options.Sharding)) throw new ArgumentException($"sharding = {(int)options.Sharding}: choose 0 (none), 2 (gradients and optimizer state) or 3 (parameters too).", nameof(options));
        string[] problems = [.. optimizer.Problems()];
        if (problems.Length > 0) throw new ArgumentException(string.Join(" ", problems), nameof(optimizer));
        if (devices.Count == 1)
        {
            PlainHolding holding = new(model);
            _replicas = [new(model, holding, optimizer.Create(holding.Optimized))];
            return;
        }
        _plan = BucketPlan.For(model, devices.Count, options.Sharding, optimizer.NeedsWholeTensors);
        // Replicas on CPUs share its cores.
        int threads = Math.Max(1, get_num_threads() / Math.Max(1, devices.Count(d => d.type == DeviceType.CPU)));
        _collective = collectives(devices, threads);
        try { _replicas = Replicate(model, optimizer, devices, options.Seed, _plan, _collective); }
        catch
        {
            _collective.Dispose();
            throw;
        }
        _lanes = [.. devices.Select((device, rank) => new Lane($"replica {rank} on {device}", () => ThreadShare.Set(threads)))];
    }

    /// <summary>Number of replicas, N.</summary>
    public int Count => _replicas.Length;

    /// <summary>The first replica, for evaluation, samples and the like between steps. Where parameters are split, passes without gradients gather them block
    /// by block, and they must not be read otherwise: they hold nothing.</summary>
    public Decoder Model => _replicas[0].Model;

    /// <summary>All replicas' models, under the same terms, each for a thread of its own.</summary>
    public IReadOnlyList<Decoder> Models => [.. _replicas.Select(r => r.Model)];

    /// <summary>Steps taken, also over restores.</summary>
    public long StepCount => _replicas.Select(r => r.Optimizer).OfType<Optimizer>().First().StepCount;

    /// <summary>Factor of the loss in the backward pass. Where a dynamic one finds gradients that are not finite, the step is computed again with half of it.</summary>
    public LossScaler LossScale { get; set; } = LossScaler.Fixed(1);

    /// <summary>How gradients are reduced, for the log.</summary>
    public string Description => _collective?.Description ?? "one replica";

    /// <summary>One optimizer step over `microBatches` micro-batches of every replica. The loss and its gradients are those of one batch of all of them: means
    /// over all labelled targets. The numbers are read from each device once.</summary>
    /// <param name="batches">Gives the micro-batch of (replica, micro). Called on the caller's thread before the first pass: for each micro in turn, each replica.</param>
    /// <param name="maxNorm">Gradients with a norm above it are scaled down to it. More than 0; positive infinity never.</param>
    /// <exception cref="NonFiniteStepException">Nothing was changed on any replica, nor the scale of the loss.</exception>
    /// <exception cref="Exception">What a replica threw. The step ended on all of them, and nothing was changed unless it was in the update itself: then,
    /// and where replicas reduce by NCCL, the group is of no more use and says so at the next step.</exception>
    /// <param name="started">Told on the first replica's thread of each micro-batch that begins, from 0.</param>
    /// <exception cref="OperationCanceledException">Nothing was changed.</exception>
    public StepResult Step(Func<int, int, MicroBatch> batches, int microBatches, double learningRate, double maxNorm, Action<int>? started = null, CancellationToken cancel = default)
    {
        ObjectDisposedException.ThrowIf(_disposed, this);
        if (_broken) throw new InvalidOperationException("A replica failed and the others cannot go on without it: make a new group from the last checkpoint.");
        ArgumentOutOfRangeException.ThrowIfLessThan(microBatches, 1);
        if (!(maxNorm > 0)) throw new ArgumentOutOfRangeException(nameof(maxNorm), maxNorm, "The largest gradient norm must be more than 0.");
        if (!double.IsFinite(learningRate) || learningRate < 0)
            throw new ArgumentOutOfRangeException(nameof(learningRate), learningRate, "The learning rate must be a number that is not negative.");
        long start = Stopwatch.GetTimestamp();
        using Work work = Load(batches, microBatches);
        TimeSpan data = Stopwatch.GetElapsedTime(start);
        (double loss, double norm, StepTimes times, int overflows) = Gradients(work, microBatches, started, cancel);
        start = Stopwatch.GetTimestamp();
        double scale = LossScale.Scale;
        // As GradientNorm.Clip and PyTorch's clip_grad_norm_ have it, to the bit.
        double factor = Math.Min(1, 1 / ((float)norm + 1e-6f) * (float)maxNorm) / scale;
        try { OnEach(rank => _replicas[rank].Update(factor, learningRate)); }
        catch
        {
            _broken = true;
            throw;
        }
        LossScale.Succeeded();
        return new(loss, norm, work.Labelled, times with { Data = data, Update = Stopwatch.GetElapsedTime(start) }) { LossScale = scale, Overflows = overflows };
    }

    /// <summary>Memory of the optimizer's state, all replicas together where it is split, in bytes.</summary>
    public long OptimizerStateBytes => OptimizerState().Values.Sum(t => sizeof(float) * t.Shape.Aggregate(1L, (count, size) => count * size));

    /// <summary>What a replica holds now.</summary>
    public HeldBytes HeldBytes(int replica)
    {
        using DisposeScope scope = NewDisposeScope();
        (IEnumerable<Tensor> parameters, IEnumerable<Tensor> gradients) = _replicas[replica].Holding.Tensors;
        return new(ReplicaTensors.Bytes(parameters), ReplicaTensors.Bytes(gradients), _replicas[replica].Optimizer is { } optimizer ? ReplicaTensors.Bytes(optimizer.StateTensors.Select(t => t.Tensor)) : 0);
    }

    /// <summary>The most that a replica of several held at any time of the last step, with what is whole only while it is needed.</summary>
    public HeldBytes PeakBytes(int replica)
    {
        HeldBytes held = HeldBytes(replica);
        (long parameters, long gradients) = _replicas[replica].Holding is FlatHolding holding ? holding.Peak : default;
        return held with { Parameters = Math.Max(held.Parameters, parameters), Gradients = Math.Max(held.Gradients, gradients) };
    }

    public void Dispose()
    {
        if (_disposed) return;
        _disposed = true;
        _collective?.Cancel();
        foreach (Lane lane in _lanes) lane.Dispose();
        _collective?.Dispose();
        foreach (Replica replica in _replicas)
        {
            replica.Dispose();
            foreach (AttachedAdapter adapter in replica.Model.Adapters) adapter.Adapter.Dispose();
            replica.Model.Dispose();
        }
    }

    /// <summary>Loss, norm and gradients of the step, at a scale of the loss at which they are finite. The numbers are without it, the gradients have it.</summary>
    private (double Loss, double Norm, StepTimes Times, int Overflows) Gradients(Work work, int microBatches, Action<int>? started, CancellationToken cancel)
    {
        (double scale, int goodSteps) = (LossScale.Scale, LossScale.GoodSteps);
        for (int overflows = 0; ; overflows++)
        {
            try
            {
                (double loss, double norm, StepTimes times) = Pass(work, microBatches, started, cancel);
                return (loss, norm, times, overflows);
            }
            // A loss that is not finite is so at any scale of its gradients.
            catch (NonFiniteStepException e) when (double.IsFinite(e.Loss) && LossScale.Overflowed()) { cancel.ThrowIfCancellationRequested(); }
            catch
            {
                if (overflows > 0) LossScale.Restore(scale, goodSteps);
                throw;
            }
        }
    }

    private (double Loss, double Norm, StepTimes Times) Pass(Work work, int microBatches, Action<int>? started, CancellationToken cancel)
    {
        double share = 1.0 / Math.Max(1, work.Labelled);
        byte[][] dropout = [.. _replicas.Select(r => r.Model.DrawsDropout ? r.Model.DropoutState : [])];
        ReplicaNumbers[] numbers = new ReplicaNumbers[Count];
        try
        {
            OnEach(rank => numbers[rank] = _replicas[rank].Accumulate(work.Batches[rank], share, LossScale.Scale, micro =>
            {
                // What has begun is done: a single micro-batch is short.
                if (micro > 0) cancel.ThrowIfCancellationRequested();
                if (rank == 0) started?.Invoke(micro);
            }));
            double loss = Enumerable.Range(0, microBatches).Sum(micro => numbers.Sum(n => n.Losses[micro]));
            double norm = Math.Sqrt(numbers.Sum(n => n.Norm * n.Norm)) / LossScale.Scale;
            if (!double.IsFinite(loss) || !double.IsFinite(norm)) throw NonFinite(loss, norm, numbers);
            return (loss, norm, numbers[0].Times);
        }
        catch
        {
            for (int rank = 0; rank < Count; rank++)
            {
                _replicas[rank].Holding.Abandon();
                if (dropout[rank].Length > 0) _replicas[rank].Model.DropoutState = dropout[rank];
            }
            throw;
        }
    }

    /// <summary>Does the work on every replica's thread and returns when all are done. Where one fails, the others end as soon as they can.</summary>
    /// <exception cref="Exception">The first one that is a replica's own.</exception>
    private void OnEach(Action<int> work)
    {
        if (Count == 1)
        {
            work(0);
            return;
        }
        Task[] tasks = [.. _lanes.Select((lane, rank) => lane.Post(() =>
        {
            try { work(rank); }
            catch
            {
                _collective!.Cancel();
                throw;
            }
        }))];
        Task.WhenAll(tasks).ContinueWith(_ => { }, TaskScheduler.Default).Wait();
        Exception[] thrown = [.. tasks.Select(t => t.Exception?.InnerException).OfType<Exception>()];
        if (thrown.Length == 0) return;
        foreach (Replica replica in _replicas) replica.Holding.Abandon();
        _broken |= !_collective!.Recover();
        thrown = [.. thrown, .. _replicas.Select(r => r.Holding.Fault).OfType<Exception>()];
        ExceptionDispatchInfo.Throw(thrown.FirstOrDefault(e => e is not StepCancelledException) ?? thrown[0]);
    }

    private static Replica[] Replicate(Decoder model, OptimizerOptions optimizer, IReadOnlyList<Device> devices, ulong seed, BucketPlan plan, ICollective collective)
    {
        Tensor[] values = [.. ReplicaTensors.Of(model).Select(t => t.Tensor.detach().DetachFromDisposeScope())];
        FlatHolding[] holdings = new FlatHolding[devices.Count];
        Decoder[] models = [model, .. devices.Skip(1).Select((device, i) => ReplicaTensors.Shell(model, device, Mixed(seed, i + 1)))];
        // The first one last: the model's own memory goes as its buckets take over.
        for (int rank = devices.Count - 1; rank >= 0; rank--)
        {
            holdings[rank] = new(plan, rank, models[rank], collective, values, own: rank == 0);
            holdings[rank].All = holdings;
        }
        foreach (Tensor value in values) value.Dispose();
        return [.. holdings.Select((holding, rank) => new Replica(models[rank], holding, holding.Optimized.Count == 0 ? null : optimizer.Create(holding.Optimized)))];
    }

    /// <summary>SplitMix64's number (Steele et al. 2014) for a replica: near seeds, and the model's own, give it another stream.</summary>
    private static ulong Mixed(ulong seed, int rank)
    {
        ulong z = seed + ((ulong)(rank + 1) * 0x9E3779B97F4A7C15);
        z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9;
        z = (z ^ (z >> 27)) * 0x94D049BB133111EB;
        return z ^ (z >> 31);
    }

    private Work Load(Func<int, int, MicroBatch> batches, int microBatches)
    {
        Work work = new(Count);
        try
        {
            for (int micro = 0; micro < microBatches; micro++)
                for (int rank = 0; rank < Count; rank++) work.Batches[rank].Add(new(batches(rank, micro), _replicas[rank].Model.Device));
            return work;
        }
        catch
        {
            work.Dispose();
            throw;
        }
    }

    private static NonFiniteStepException NonFinite(double loss, double norm, ReplicaNumbers[] numbers) => new(loss, norm,
        [.. numbers.SelectMany((n, rank) => n.Losses.Select((value, micro) => (value, rank, micro))).Where(l => !double.IsFinite(l.value)).Select(l => (l.rank, l.micro))]);

    /// <summary>The micro-batches of a step.</summary>
    private sealed class Work(int replicas) : IDisposable
    {
        public List<MicroTensors>[] Batches { get; } = [.. Enumerable.Range(0, replicas).Select(_ => new List<MicroTensors>())];

        public long Labelled => Batches.Sum(b => b.Sum(m => m.Labelled));

        public void Dispose()
        {
            foreach (MicroTensors batch in Batches.SelectMany(b => b)) batch.Dispose();
        }
    }
}
