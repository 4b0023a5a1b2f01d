using NopeGpt.Model.Native;
using TorchSharp;
using static TorchSharp.torch;

namespace NopeGpt.Model.Optimizers;

/// <summary>Adafactor (Shazeer and Stern 2018, https://arxiv.org/abs/1804.04235) as PyTorch's torch.optim.Adafactor computes it. With step t,
/// w = t^beta2_decay, ρ = min(lr, 1/√t), α = max(ε2, RMS(θ))·ρ and G the gradient of one tensor θ:
/// θ ← θ − lr·decay·θ. Of two dimensions and more, over the last two: R ← lerp(R, mean of G² along a row, w), C ← lerp(C, mean of G² down a
/// column, w), V = R·C / max(mean(R), ε1). Of fewer: V ← lerp(V, G², w). Then U = G / √max(V, ε1²) and θ ← θ − α·U / max(1, RMS(U)/d).
/// V is never made for matrices: 1/√max(V, ε1²) = min(√(max(mean(R), ε1)/R) · 1/√C, 1/ε1), an outer product with an upper bound.</summary>
/// <remarks>The state of an [n, m] matrix is R (row_var) and C (col_var), 4·(n + m) bytes; of a vector of m, V (variance), 4·m bytes.
/// For a step: with libtorch's operators 4 bytes for every parameter (foreach form) or for those of the largest tensor (low-memory form);
/// with the CPU's kernel about a thirtieth of the largest tensor at most.</remarks>
public sealed class Adafactor : Optimizer
{
    private const string Row = "row_var.", Column = "col_var.", Whole = "variance.";

    internal static readonly string[] StateNames = [Row, Column, Whole];

    /// <param name="First">R of a matrix, V of a vector.</param>
    /// <param name="Second">C of a matrix.</param>
    private sealed record Slot(int Index, string Name, Tensor Parameter, Tensor First, Tensor? Second);

    /// <summary>Tensors that one call of each operator goes through: all matrices or all others, or one.</summary>
    /// <param name="InverseRoots">[P] 1/√size of each.</param>
    private sealed record Group(IReadOnlyList<Slot> Slots, Tensor InverseRoots);

    private readonly AdafactorOptions options;
    private readonly IReadOnlyList<Slot> slots;
    private readonly IReadOnlyList<Group> groups;
    private readonly AdafactorKernel? kernel;

    /// <inheritdoc cref="OptimizerOptions.Create"/>
    public Adafactor(IReadOnlyList<(string Name, Tensor Parameter)> parameters, AdafactorOptions options)
        : base(parameters, options)
    {
        this.options = options;
        slots = [.. parameters.Select((p, i) => NewSlot(i, p.Name, p.Parameter))];
        if (options.Fused && parameters.All(p => p.Parameter.device.type == DeviceType.CPU && p.Parameter.is_contiguous()))
        {
            kernel = new(options);
            groups = [];
            return;
        }
        IEnumerable<IReadOnlyList<Slot>> cut = options.LowMemory ? slots.Select(s => (IReadOnlyList<Slot>)[s]) : slots.GroupBy(s => s.Second is null).Select(g => g.ToList());
        groups = [.. cut.Select(NewGroup)];
    }

    public override void Dispose()
    {
        base.Dispose();
        foreach (Group group in groups) group.InverseRoots.Dispose();
    }

    private protected override void Update(long step, double learningRate, IReadOnlyList<Tensor> gradients)
    {
        AdafactorStep now = new(Math.Pow(step, options.Beta2Decay), Math.Min(learningRate, 1 / Math.Sqrt(step)), 1 - (learningRate * options.WeightDecay));
        foreach (Group group in groups)
        {
            using DisposeScope scope = NewDisposeScope();
            Update(group, gradients, now);
        }
        if (kernel is null) return;
        foreach (Slot slot in slots)
        {
            if (slot.Second is null) kernel.Whole(slot.Parameter, gradients[slot.Index], slot.First, now);
            else kernel.Factored(slot.Parameter, gradients[slot.Index], slot.First, slot.Second, now);
        }
    }

    private protected override IEnumerable<(string Name, Tensor Tensor)> Memory()
    {
        foreach (Slot slot in slots)
        {
            yield return ((slot.Second is null ? Whole : Row) + slot.Name, slot.First);
            if (slot.Second is not null) yield return (Column + slot.Name, slot.Second);
        }
    }

    private void Update(Group group, IReadOnlyList<Tensor> all, AdafactorStep step)
    {
        Tensor[] weights = [.. group.Slots.Select(s => s.Parameter)], gradients = [.. group.Slots.Select(s => all[s.Index])];
        Tensor alpha_P = RootMeanSquares(weights, group).clamp_(min: Scalars.Of(options.Epsilon2)).mul_(Scalars.Of(step.Rho));
        if (step.Keep != 1) foreach (Tensor weight in weights) weight.mul_(Scalars.Of(step.Keep));
        Tensor[] updates = [.. group.Slots.Select((s, i) => Scale(s, gradients[i], step.Weight))];
        Aten.MultiplyEach(updates, gradients);
        Tensor factor_P = RootMeanSquares(updates, group).div_(Scalars.Of(options.ClippingThreshold)).clamp_(min: Scalars.One).reciprocal_().mul_(alpha_P);
        foreach ((Tensor weight, Tensor update, Tensor factor) in weights.Zip(updates, factor_P.unbind(0))) weight.addcmul_(update, factor, Scalars.Of(-1));
    }

    /// <summary>1/√max(V, ε1²) in the gradient's shape, after V's factors have taken in the gradient.</summary>
    private Tensor Scale(Slot slot, Tensor gradient, double weight)
    {
        Scalar limit = Scalars.Of(1 / options.Epsilon1), two = Scalars.Of(2);
        if (slot.Second is null) return slot.First.lerp_(gradient.pow(two), weight).rsqrt().clamp_(max: limit);
        using (Tensor squares = gradient.pow(two))
        {
            slot.First.lerp_(squares.mean([-1], keepdim: true), weight);
            slot.Second.lerp_(squares.mean([-2], keepdim: true), weight);
        }
        Tensor row = slot.First.mean([-2], keepdim: true).clamp_(min: Scalars.Of(options.Epsilon1)).div(slot.First).sqrt_();
        return row.mul(slot.Second.rsqrt()).clamp_(max: limit);
    }

    private static Tensor RootMeanSquares(Tensor[] tensors, Group group) => stack([.. tensors.Select(t => t.norm())]).mul_(group.InverseRoots);

    private static Slot NewSlot(int index, string name, Tensor parameter)
    {
        long[] shape = parameter.shape;
        return shape.Length < 2
            ? new Slot(index, name, parameter, Zeros(parameter, shape), null)
            : new Slot(index, name, parameter, Zeros(parameter, [.. shape[..^1], 1]), Zeros(parameter, [.. shape[..^2], 1, shape[^1]]));
    }

    private static Group NewGroup(IReadOnlyList<Slot> slots)
    {
        float[] inverseRoots = [.. slots.Select(s => (float)(1 / Math.Sqrt(s.Parameter.numel())))];
        return new Group(slots, tensor(inverseRoots, device: slots[0].Parameter.device).DetachFromDisposeScope());
    }
}
