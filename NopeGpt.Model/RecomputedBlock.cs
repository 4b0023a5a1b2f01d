using TorchSharp;
using static TorchSharp.torch;

namespace NopeGpt.Model;

/// <summary>A part of the network that keeps only its input for the backward pass, which computes it again (Chen et al. 2016, https://arxiv.org/abs/1604.06174).
/// What it draws is drawn again too, so that loss and gradients are those of the plain form, to the bit.</summary>
internal sealed class RecomputedBlock : autograd.SingleTensorFunction<RecomputedBlock>
{
    private const string PassName = "pass";

    public override string Name => nameof(RecomputedBlock);

    /// <param name="block">Computes the part from x and `constant`. Its parameters get their gradients when it is computed again.</param>
    /// <param name="constant">What the part needs besides, and must live as long as the backward pass; null for nothing.</param>
    /// <param name="random">What it draws from; null for nothing.</param>
    /// <param name="fault">Gets what goes wrong in the backward pass, where nothing can be thrown through libtorch.</param>
    public static Tensor Apply(Tensor x, Func<Tensor, Tensor?, Tensor> block, Tensor? constant, Generator? random, Action<Exception> fault)
    {
        // The function is only asked for gradients where an input has one, and a frozen embedding gives none.
        Tensor input = x.requires_grad ? x : x.detach().requires_grad_(true);
        byte[]? drawn = null;
        if (random is not null)
        {
            using Tensor state = random.get_state();
            drawn = state.data<byte>().ToArray();
        }
        return apply(input, new Pass(block, constant, random, drawn, fault));
    }

    public override Tensor forward(autograd.AutogradContext ctx, params object[] vars)
    {
        (Tensor x, Pass pass) = ((Tensor)vars[0], (Pass)vars[1]);
        ctx.save_for_backward(pass.Constant is null ? [x] : [x, pass.Constant]);
        ctx.save_data(PassName, pass with { Constant = null });
        using DisposeScope scope = NewDisposeScope();
        // With gradients, though none is wanted: kernels that are only for generation would differ in the last bits.
        using (enable_grad()) return pass.Block(x.detach(), pass.Constant).detach().MoveToOuterDisposeScope();
    }

    public override List<Tensor> backward(autograd.AutogradContext ctx, Tensor grad_output)
    {
        Pass pass = (Pass)ctx.get_data(PassName);
        try
        {
            using DisposeScope scope = NewDisposeScope();
            List<Tensor> saved = ctx.get_saved_variables();
            Tensor x = saved[0].detach().requires_grad_(true);
            using (enable_grad()) Again(pass, x, saved.Count > 1 ? saved[1] : null).backward([grad_output]);
            return [x.grad!.MoveToOuterDisposeScope(), null!];
        }
#pragma warning disable CA1031 // libtorch is between here and whoever called backward, and an exception that meets it ends the process.
        catch (Exception e)
#pragma warning restore CA1031
        {
            pass.Fault(e);
            return [zeros_like(grad_output), null!];
        }
    }

    /// <summary>The block with the random numbers that it drew the first time. The generator stands then where it stood before.</summary>
    private static Tensor Again(Pass pass, Tensor x, Tensor? constant)
    {
        if (pass.Random is null) return pass.Block(x, constant);
        Tensor now = pass.Random.get_state();
        pass.Random.set_state(tensor(pass.Drawn!, ScalarType.Byte));
        try { return pass.Block(x, constant); }
        finally { pass.Random.set_state(now); }
    }

    private sealed record Pass(Func<Tensor, Tensor?, Tensor> Block, Tensor? Constant, Generator? Random, byte[]? Drawn, Action<Exception> Fault);
}
