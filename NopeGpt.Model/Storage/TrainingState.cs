using TorchSharp;
using static TorchSharp.torch;

namespace NopeGpt.Model.Storage;

/// <summary>The tensors of a checkpoint. As a copy in the host's memory they can be written while training goes on.</summary>
/// <param name="Parameters">Of the model, or where adapters are attached, of them; those that are frozen too.</param>
/// <param name="Optimizer">As <see cref="Optimizers.Optimizer.State"/> of one optimizer for everything that trains.</param>
public sealed record TrainingState(
    ModelConfig Config, IReadOnlyList<(string Name, Tensor Tensor)> Parameters, IReadOnlyList<(string Name, Tensor Tensor)> Optimizer) : IDisposable
{
    /// <summary>State of each replica's dropout generator.</summary>
    public IReadOnlyList<byte[]> Generators { get; init; } = [];

    public void Dispose()
    {
        foreach ((_, Tensor tensor) in Parameters.Concat(Optimizer)) tensor.Dispose();
    }
}
