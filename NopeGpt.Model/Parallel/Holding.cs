using NopeGpt.Model.Native;
using NopeGpt.Model.Optimizers;
using TorchSharp;
using static TorchSharp.torch;

namespace NopeGpt.Model.Replicas;

/// <summary>How a replica holds parameters and gradients. The calls of a step: BeginStep; for each micro-batch BeginPass, BeginBackward, EndPass; then
/// OwnNorm and, unless the step ends there, Scale and EndStep around the update.</summary>
internal abstract class Holding : IDisposable
{
    /// <summary>What the replica's optimizer changes, with its gradients.</summary>
    public abstract IReadOnlyList<(string Name, Tensor Parameter)> Optimized { get; }

    /// <summary>Why the backward pass was ended, where a replica or a collective failed in its midst.</summary>
    public virtual Exception? Fault => null;

    public abstract void BeginStep();

    public virtual void BeginPass(bool first, bool last)
    {
    }

    public virtual void BeginBackward()
    {
    }

    public virtual void EndPass()
    {
    }

    /// <summary>√(Σ g²) over the replica's share of all gradients; each gradient is in one share.</summary>
    /// <returns>[] float32.</returns>
    public abstract Tensor OwnNorm();

    /// <summary>Multiplies every gradient that the update will read.</summary>
    public abstract void Scale(double factor);

    public abstract void EndStep();

    /// <summary>After a step that failed: waits for what is under way.</summary>
    public virtual void Abandon()
    {
    }

    /// <summary>Live tensors of parameters and of gradients.</summary>
    public abstract (IEnumerable<Tensor> Parameters, IEnumerable<Tensor> Gradients) Tensors { get; }

    public virtual void Dispose()
    {
    }
}

/// <summary>The only replica: parameters and gradients are where autograd and the model put them.</summary>
internal sealed class PlainHolding(Decoder model) : Holding
{
    private readonly IReadOnlyList<(string Name, Tensor Parameter)> _trained = model.TrainedParameters();

    public override IReadOnlyList<(string Name, Tensor Parameter)> Optimized => _trained;

    public override (IEnumerable<Tensor> Parameters, IEnumerable<Tensor> Gradients) Tensors =>
        (ReplicaTensors.Of(model).Select(t => t.Tensor), _trained.Select(p => p.Parameter.grad).OfType<Tensor>());

    public override void BeginStep() => Forget();

    public override Tensor OwnNorm() => GradientNorm.Of(_trained.Select(p => p.Parameter));

    public override void Scale(double factor)
    {
        using DisposeScope scope = NewDisposeScope();
        using IDisposable quiet = no_grad();
        Tensor[] gradients = [.. _trained.Select(p => p.Parameter.grad).OfType<Tensor>()];
        Aten.MultiplyEach(gradients, tensor((float)factor, device: gradients[0].device));
    }

    public override void EndStep() => Forget();

    public override void Abandon() => Forget();

    private void Forget()
    {
        foreach ((_, Tensor parameter) in _trained) parameter.grad = null;
    }
}
