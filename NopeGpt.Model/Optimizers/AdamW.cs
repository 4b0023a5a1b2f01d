using NopeGpt.Model.Native;
using TorchSharp;
using static TorchSharp.torch;

namespace NopeGpt.Model.Optimizers;

/// <summary>Adam with decoupled weight decay (Loshchilov and Hutter 2019, https://arxiv.org/abs/1711.05101), as libtorch's fused kernel:
/// w ← w − lr·decay·w;  m ← β1·m + (1−β1)·g;  v ← β2·v + (1−β2)·g²;  w ← w − lr · (m / (1−β1ᵗ)) / (√(v / (1−β2ᵗ)) + ε).
/// Weights and state are float32. Tensors of two or more dimensions decay, the others do not.</summary>
public sealed class AdamW : IDisposable
{
    private const string First = "exp_avg.", Second = "exp_avg_sq.", StepName = "step";

    private sealed record Slot(string Name, Tensor Parameter, Tensor First, Tensor Second);

    private sealed record Group(double WeightDecay, IReadOnlyList<Slot> Slots);

    private readonly IReadOnlyList<Slot> slots;
    private readonly IReadOnlyList<Group> groups;
    private readonly AdamWOptions options;
    private readonly Tensor step;

    /// <param name="parameters">Float32 tensors of one device, each name once. They stay the caller's.</param>
    /// <exception cref="ArgumentException">A parameter or an option is not usable; the message names it.</exception>
    public AdamW(IReadOnlyList<(string Name, Tensor Parameter)> parameters, AdamWOptions options)
    {
        ArgumentNullException.ThrowIfNull(options);
        string[] problems = [.. options.Problems(), .. ParameterProblems(parameters)];
        if (problems.Length > 0) throw new ArgumentException(string.Join(" ", problems), nameof(parameters));

        this.options = options;
        slots = [.. parameters.Select(p => new Slot(p.Name, p.Parameter, Zeros(p.Parameter), Zeros(p.Parameter)))];
        groups =
        [
            new Group(options.WeightDecay, [.. slots.Where(s => s.Parameter.dim() >= 2)]),
            new Group(0, [.. slots.Where(s => s.Parameter.dim() < 2)]),
        ];
        step = zeros([], ScalarType.Float32, parameters[0].Parameter.device).DetachFromDisposeScope();
    }

    /// <summary>Steps taken, also over restores.</summary>
    public long StepCount { get; private set; }

    /// <summary>Changes every parameter by its gradient. Does not wait for the device.</summary>
    /// <exception cref="InvalidOperationException">A parameter has no gradient; nothing was changed.</exception>
    public void Step(double learningRate)
    {
        if (!double.IsFinite(learningRate) || learningRate < 0)
            throw new ArgumentOutOfRangeException(nameof(learningRate), learningRate, "The learning rate must be a number that is not negative.");
        using DisposeScope scope = NewDisposeScope();
        Tensor[][] gradients = [.. groups.Select(g => g.Slots.Select(Gradient).ToArray())];
        using (no_grad()) step.fill_((float)(StepCount + 1));
        foreach ((Group group, Tensor[] gradient) in groups.Zip(gradients))
        {
            Aten.FusedAdamW(
                [.. group.Slots.Select(s => s.Parameter)], gradient, [.. group.Slots.Select(s => s.First)], [.. group.Slots.Select(s => s.Second)],
                step, learningRate, options.Beta1, options.Beta2, group.WeightDecay, options.Epsilon);
        }
        StepCount++;
    }

    /// <summary>Forgets the gradients.</summary>
    /// <param name="keepMemory">Fills them with zeros where they are, for gradients that are views of a shared buffer.</param>
    public void ZeroGrad(bool keepMemory = false)
    {
        using DisposeScope scope = NewDisposeScope();
        using IDisposable quiet = no_grad();
        foreach (Slot slot in slots)
        {
            if (keepMemory) slot.Parameter.grad?.zero_();
            else slot.Parameter.grad = null;
        }
    }

    /// <summary>What a checkpoint must keep: exp_avg.NAME and exp_avg_sq.NAME for each parameter, and step (int64, no dimensions).
    /// The moments are the living tensors, not copies, and stay this object's; step is the caller's.</summary>
    public IEnumerable<(string Name, Tensor Tensor)> State()
    {
        foreach (Slot slot in slots)
        {
            yield return (First + slot.Name, slot.First);
            yield return (Second + slot.Name, slot.Second);
        }
        yield return (StepName, tensor(StepCount, ScalarType.Int64));
    }

    /// <summary>Takes over a saved <see cref="State"/>.</summary>
    /// <exception cref="InvalidDataException">A tensor is missing, unknown, or of another shape or type; nothing was changed.</exception>
    public void Restore(IReadOnlyDictionary<string, Tensor> state)
    {
        Dictionary<string, Tensor> targets = slots.SelectMany(s => (IEnumerable<(string, Tensor)>)[(First + s.Name, s.First), (Second + s.Name, s.Second)]).ToDictionary(t => t.Item1, t => t.Item2);
        foreach ((string name, Tensor target) in targets)
        {
            if (!state.TryGetValue(name, out Tensor? saved)) throw new InvalidDataException($"The optimizer state has no {name}: it was saved for another model.");
            if (saved.dtype != ScalarType.Float32 || !saved.shape.SequenceEqual(target.shape))
                throw new InvalidDataException($"The optimizer state has {name} as {saved.dtype} [{string.Join(", ", saved.shape)}], the model needs Float32 [{string.Join(", ", target.shape)}].");
        }
        if (state.Keys.FirstOrDefault(k => k != StepName && !targets.ContainsKey(k)) is { } unknown)
            throw new InvalidDataException($"The optimizer state has {unknown}, which the model does not: it was saved for another model.");
        if (!state.TryGetValue(StepName, out Tensor? count) || count.numel() != 1 || count.dtype != ScalarType.Int64 || count.item<long>() < 0)
            throw new InvalidDataException("The optimizer state has no usable step: one int64 that is not negative is needed.");

        using IDisposable quiet = no_grad();
        foreach ((string name, Tensor target) in targets) target.copy_(state[name]);
        StepCount = count.item<long>();
    }

    public void Dispose()
    {
        foreach (Slot slot in slots)
        {
            slot.First.Dispose();
            slot.Second.Dispose();
        }
        step.Dispose();
    }

    private static IEnumerable<string> ParameterProblems(IReadOnlyList<(string Name, Tensor Parameter)> parameters)
    {
        ArgumentNullException.ThrowIfNull(parameters);
        if (parameters.Count == 0) yield return "There are no parameters to optimize.";
        HashSet<string> names = [];
        foreach ((string name, Tensor parameter) in parameters)
        {
            if (!names.Add(name)) yield return $"{name} is there twice.";
            if (parameter.dtype != ScalarType.Float32) yield return $"{name} is {parameter.dtype}: optimized weights must be Float32.";
            if (parameter.device.ToString() != parameters[0].Parameter.device.ToString()) yield return $"{name} is on {parameter.device}, {parameters[0].Name} on {parameters[0].Parameter.device}: one device is needed.";
        }
    }

    private static Tensor Gradient(Slot slot) =>
        slot.Parameter.grad ?? throw new InvalidOperationException($"{slot.Name} has no gradient: call backward before the step, and leave frozen parameters out of the optimizer.");

    private static Tensor Zeros(Tensor parameter)
    {
        using IDisposable quiet = no_grad();
        return zeros_like(parameter, requires_grad: false).DetachFromDisposeScope();
    }
}
