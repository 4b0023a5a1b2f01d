using NopeGpt.Model.Optimizers;
using TorchSharp;
using static TorchSharp.torch;

namespace NopeGpt.Model.Storage;

/// <summary>The tensors of a checkpoint. As a copy in the host's memory it can be written while training goes on.</summary>
/// <param name="Parameters">Of the model, by their names in the checkpoint.</param>
/// <param name="Optimizer">As <see cref="Optimizers.Optimizer.State"/> gives them.</param>
public sealed record TrainingState(
    ModelConfig Config, IReadOnlyList<(string Name, Tensor Tensor)> Parameters, IReadOnlyList<(string Name, Tensor Tensor)> Optimizer) : IDisposable
{
    /// <summary>A copy on the host, made when this returns. It belongs to no dispose scope; dispose of it.</summary>
    public static TrainingState Copy(Decoder model, Optimizer optimizer)
    {
        List<(string Name, Tensor Tensor)> parameters = [], state = [];
        try
        {
            using DisposeScope scope = NewDisposeScope();
            using IDisposable quiet = no_grad();
            foreach ((string name, Tensor parameter) in model.Parameters()) parameters.Add((name, OnHost(parameter)));
            foreach ((string name, Tensor tensor) in optimizer.State()) state.Add((name, OnHost(tensor)));
            return new(model.Config, parameters, state);
        }
        catch
        {
            foreach ((_, Tensor tensor) in parameters.Concat(state)) tensor.Dispose();
            throw;
        }
    }

    public void Dispose()
    {
        foreach ((_, Tensor tensor) in Parameters.Concat(Optimizer)) tensor.Dispose();
    }

    private static Tensor OnHost(Tensor tensor) => empty(tensor.shape, tensor.dtype).copy_(tensor).DetachFromDisposeScope();
}
