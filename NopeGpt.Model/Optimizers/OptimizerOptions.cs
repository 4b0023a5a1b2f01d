using static TorchSharp.torch;

namespace NopeGpt.Model.Optimizers;

/// <summary>The constants of an optimizer: <see cref="MuonOptions"/>, <see cref="AdamWOptions"/> or <see cref="AdafactorOptions"/>.</summary>
public abstract record OptimizerOptions
{
    private protected OptimizerOptions()
    {
    }

    /// <summary>Everything that is wrong, one sentence each; empty when nothing is.</summary>
    public abstract IEnumerable<string> Problems();

    /// <summary>A step of a tensor is not that of its elements alone, so that no tensor can be divided between several optimizers.</summary>
    internal virtual bool NeedsWholeTensors => true;

    /// <summary>The optimizer that these options are of.</summary>
    /// <param name="parameters">Float32 tensors of one device, each name once. They stay the caller's.</param>
    /// <exception cref="ArgumentException">A parameter or an option is not usable; the message names it.</exception>
    public abstract Optimizer Create(IReadOnlyList<(string Name, Tensor Parameter)> parameters);
}
