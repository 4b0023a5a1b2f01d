using System.Diagnostics;
using System.Runtime.ExceptionServices;
using NopeGpt.Model.Optimizers;
using TorchSharp;
using static TorchSharp.torch;

namespace NopeGpt.Model.Replicas;

/// <summary>What a replica has to say of a step.</summary>
/// <param name="Losses">Of each micro-batch, as shares of the mean over all.</param>
/// <param name="Norm">Of the replica's share of the gradients (<see cref="Holding.OwnNorm"/>).</param>
internal readonly record struct ReplicaNumbers(double[] Losses, double Norm, StepTimes Times);

/// <summary>One model on one device with its part of the training state. A step's methods are called on its own thread.</summary>
internal sealed class Replica(Decoder model, Holding holding, Optimizer? optimizer) : IDisposable
{
    public Decoder Model => model;

    public Holding Holding => holding;

    /// <summary>Null: there are fewer tensors than replicas, and none is this one's.</summary>
    public Optimizer? Optimizer => optimizer;

    /// <summary>Forward and backward pass of every micro-batch, and the reduction of the gradients.</summary>
    /// <param name="share">Of one target in the loss.</param>
    /// <param name="scale">Factor of the loss in the backward pass.</param>
    /// <param name="started">Told of each micro-batch that begins. Where it throws the step ends.</param>
    public ReplicaNumbers Accumulate(IReadOnlyList<MicroTensors> batches, double share, double scale, Action<int> started)
    {
        using DisposeScope scope = NewDisposeScope();
        if (!model.training) model.train();
        holding.BeginStep();
        TimeSpan forward = default, backward = default, reduce = default;
        List<Tensor> losses = [];
        long start = Stopwatch.GetTimestamp();
        for (int i = 0; i < batches.Count; i++)
        {
            started(i);
            using DisposeScope micro = NewDisposeScope();
            holding.BeginPass(first: i == 0, last: i == batches.Count - 1);
            Tensor loss = batches[i].Loss(model, share);
            losses.Add(loss.detach().MoveToOuterDisposeScope());
            Tensor scaled = scale == 1 ? loss : loss.mul(Native.Scalars.Of(scale));
            forward += Lap();
            holding.BeginBackward();
            Backward(scaled);
            backward += Lap();
            holding.EndPass();
            reduce += Lap();
        }
        // One wait for the device a step: all numbers come over together.
        float[] read = stack([.. losses, holding.OwnNorm()]).cpu().data<float>().ToArray();
        return new([.. read[..^1].Select(v => (double)v)], read[^1], new(default, forward, backward, reduce + Lap(), default));

        TimeSpan Lap()
        {
            long now = Stopwatch.GetTimestamp();
            TimeSpan lap = Stopwatch.GetElapsedTime(start, now);
            start = now;
            return lap;
        }
    }

    /// <param name="factor">Of the gradients before the update.</param>
    public void Update(double factor, double learningRate)
    {
        if (factor != 1) holding.Scale(factor);
        optimizer?.Step(learningRate);
        holding.EndStep();
    }

    public void Dispose()
    {
        optimizer?.Dispose();
        holding.Dispose();
    }

    private void Backward(Tensor loss)
    {
        try { loss.backward(); }
        catch
        {
            // What happened inside of the pass could not be thrown through libtorch, which says only that the pass ended early.
            model.ThrowRecomputationFault();
            if (holding.Fault is not null) ExceptionDispatchInfo.Throw(holding.Fault);
            throw;
        }
        model.ThrowRecomputationFault();
    }
}
