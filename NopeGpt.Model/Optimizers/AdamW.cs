using NopeGpt.Model.Native;
using static TorchSharp.torch;

namespace NopeGpt.Model.Optimizers;

/// <summary>Adam with decoupled weight decay (Loshchilov and Hutter 2019, https://arxiv.org/abs/1711.05101), as libtorch's fused kernel:
/// w ← w − lr·decay·w;  m ← β1·m + (1−β1)·g;  v ← β2·v + (1−β2)·g²;  w ← w − lr · (m / (1−β1ᵗ)) / (√(v / (1−β2ᵗ)) + ε).
/// The state is m (exp_avg) and v (exp_avg_sq): 8 bytes a parameter. Which tensors decay, <see cref="AdamWOptions.DecayDimensions"/> says.</summary>
public sealed class AdamW : Optimizer
{
    private const string First = "exp_avg.", Second = "exp_avg_sq.";

    internal static readonly string[] StateNames = [First, Second];

    private sealed record Slot(int Index, string Name, Tensor Parameter, Tensor First, Tensor Second);

    private sealed record Group(double WeightDecay, IReadOnlyList<Slot> Slots);

    private readonly IReadOnlyList<Slot> slots;
    private readonly IReadOnlyList<Group> groups;
    private readonly AdamWOptions options;
    private readonly Tensor stepTensor;

    /// <inheritdoc cref="OptimizerOptions.Create"/>
    public AdamW(IReadOnlyList<(string Name, Tensor Parameter)> parameters, AdamWOptions options)
        : base(parameters, options)
    {
        this.options = options;
        slots = [.. parameters.Select((p, i) => new Slot(i, p.Name, p.Parameter, Zeros(p.Parameter, p.Parameter.shape), Zeros(p.Parameter, p.Parameter.shape)))];
        groups =
        [
            new Group(options.WeightDecay, [.. slots.Where(s => s.Parameter.dim() >= options.DecayDimensions)]),
            new Group(0, [.. slots.Where(s => s.Parameter.dim() < options.DecayDimensions)]),
        ];
        stepTensor = Zeros(parameters[0].Parameter);
    }

    public override void Dispose()
    {
        base.Dispose();
        stepTensor.Dispose();
    }

    private protected override void Update(long step, double learningRate, IReadOnlyList<Tensor> gradients)
    {
        stepTensor.fill_(Scalars.Of((float)step));
        foreach (Group group in groups)
        {
            Aten.FusedAdamW(
                [.. group.Slots.Select(s => s.Parameter)], [.. group.Slots.Select(s => gradients[s.Index])],
                [.. group.Slots.Select(s => s.First)], [.. group.Slots.Select(s => s.Second)],
                stepTensor, learningRate, options.Beta1, options.Beta2, group.WeightDecay, options.Epsilon);
        }
    }

    private protected override IEnumerable<(string Name, Tensor Tensor)> Memory() =>
        slots.SelectMany(s => (IEnumerable<(string, Tensor)>)[(First + s.Name, s.First), (Second + s.Name, s.Second)]);
}
