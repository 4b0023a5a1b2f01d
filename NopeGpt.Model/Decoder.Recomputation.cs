using System.Runtime.ExceptionServices;
using static TorchSharp.torch;

namespace NopeGpt.Model;

// Memory against arithmetic: blocks that the backward pass computes again.
public sealed partial class Decoder
{
    private Exception? _fault;

    /// <summary>Whether training keeps of each block only its input, and computes the block again in the backward pass: about a third more arithmetic, and the
    /// activations of one block in memory instead of all. Losses and gradients are the same to the bit.</summary>
    public bool ActivationCheckpointing { get; set; }

    /// <summary>Throws what went wrong while blocks were computed again. To be asked after each backward pass with <see cref="ActivationCheckpointing"/>, whose
    /// gradients mean nothing then.</summary>
    public void ThrowRecomputationFault()
    {
        if (Interlocked.Exchange(ref _fault, null) is { } fault) ExceptionDispatchInfo.Throw(fault);
    }

    private Tensor Layer(int index, Tensor x_BTd, Step step)
    {
        Block block = _stack.layers[index];
        if (!ActivationCheckpointing || step.Cache is not null || !is_grad_enabled() || !Trains(block, x_BTd)) return block.Apply(x_BTd, step, index);
        return RecomputedBlock.Apply(x_BTd, (x, rotation) => block.Apply(x, step with { Rotation_PTE = rotation }, index), step.Rotation_PTE, step.Dropout, e => _fault ??= e);
    }

    // Nothing needs a backward pass through a frozen block over a frozen embedding.
    private bool Trains(Block block, Tensor x_BTd) => x_BTd.requires_grad || _adapters.Count > 0 || block.parameters().Any(p => p.requires_grad);
}
