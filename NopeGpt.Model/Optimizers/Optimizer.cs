using TorchSharp;
using static TorchSharp.torch;

namespace NopeGpt.Model.Optimizers;

/// <summary>Changes parameters by their gradients and keeps what it remembers of earlier gradients. Weights and state are float32.</summary>
public abstract class Optimizer : IDisposable
{
    internal const string StepName = "step";

    // A saved state is told by the names of its tensors, so that one of another optimizer is refused by that one's name. Muon has AdamW's beside its own.
    private static readonly (string Optimizer, string[] Prefixes)[] Known =
        [(nameof(Muon), Muon.StateNames), (nameof(AdamW), AdamW.StateNames), (nameof(Adafactor), Adafactor.StateNames)];

    private protected Optimizer(IReadOnlyList<(string Name, Tensor Parameter)> parameters, OptimizerOptions options)
    {
        ArgumentNullException.ThrowIfNull(parameters);
        ArgumentNullException.ThrowIfNull(options);
        string[] problems = [.. options.Problems(), .. ParameterProblems(parameters)];
        if (problems.Length > 0) throw new ArgumentException(string.Join(" ", problems), nameof(parameters));
        Parameters = [.. parameters];
    }

    /// <summary>Steps taken, also over restores.</summary>
    public long StepCount { get; private set; }

    /// <summary>Memory of the state, in bytes: the parameters, their gradients and what a step needs for its duration are not in it.</summary>
    public long StateBytes => Memory().Sum(m => m.Tensor.numel() * m.Tensor.element_size());

    private protected IReadOnlyList<(string Name, Tensor Parameter)> Parameters { get; }

    /// <summary>Changes every parameter by its gradient. Does not wait for the device.</summary>
    /// <exception cref="InvalidOperationException">A parameter has no gradient; nothing was changed.</exception>
    public void Step(double learningRate)
    {
        if (!double.IsFinite(learningRate) || learningRate < 0)
            throw new ArgumentOutOfRangeException(nameof(learningRate), learningRate, "The learning rate must be a number that is not negative.");
        using DisposeScope scope = NewDisposeScope();
        using IDisposable quiet = no_grad();
        Update(StepCount + 1, learningRate, [.. Parameters.Select(p => Gradient(p.Name, p.Parameter))]);
        StepCount++;
    }

    /// <summary>Forgets the gradients.</summary>
    /// <param name="keepMemory">Fills them with zeros where they are, for gradients that are views of a shared buffer.</param>
    public void ZeroGrad(bool keepMemory = false)
    {
        using DisposeScope scope = NewDisposeScope();
        using IDisposable quiet = no_grad();
        foreach ((_, Tensor parameter) in Parameters)
        {
            if (keepMemory) parameter.grad?.zero_();
            else parameter.grad = null;
        }
    }

    /// <summary>What a checkpoint must keep: a few tensors for each parameter, named by what they are and the parameter's name
    /// (exp_avg.NAME), and step (int64, no dimensions). They are the living tensors, not copies, and stay this object's; step is the caller's.</summary>
    public IEnumerable<(string Name, Tensor Tensor)> State() => Memory().Append((StepName, tensor(StepCount, ScalarType.Int64)));

    /// <summary>Takes over a saved <see cref="State"/>.</summary>
    /// <exception cref="InvalidDataException">It is the state of another optimizer or model: a tensor is missing, unknown, or of another
    /// shape or type. Nothing was changed.</exception>
    public void Restore(IReadOnlyDictionary<string, Tensor> state)
    {
        Dictionary<string, Tensor> targets = Memory().ToDictionary(m => m.Name, m => m.Tensor);
        Check(state, targets.ToDictionary(t => t.Key, t => t.Value.shape));

        using IDisposable quiet = no_grad();
        foreach ((string name, Tensor target) in targets) target.copy_(state[name]);
        StepCount = state[StepName].item<long>();
    }

    /// <summary>The living tensors of the state with their names in it, without the step.</summary>
    internal IEnumerable<(string Name, Tensor Tensor)> StateTensors => Memory();

    /// <summary>Checks a saved state.</summary>
    /// <param name="shapes">Of every tensor that it must have, beside the step.</param>
    /// <exception cref="InvalidDataException">As <see cref="Restore"/>.</exception>
    internal void Check(IReadOnlyDictionary<string, Tensor> state, IReadOnlyDictionary<string, long[]> shapes)
    {
        CheckKind([.. state.Keys]);
        foreach ((string name, long[] shape) in shapes)
        {
            if (!state.TryGetValue(name, out Tensor? saved)) throw new InvalidDataException($"The optimizer state has no {name}: it was saved for another model.");
            if (saved.dtype != ScalarType.Float32 || !saved.shape.SequenceEqual(shape))
                throw new InvalidDataException($"The optimizer state has {name} as {saved.dtype} [{string.Join(", ", saved.shape)}], the model needs Float32 [{string.Join(", ", shape)}].");
        }
        if (state.Keys.FirstOrDefault(k => k != StepName && !shapes.ContainsKey(k)) is { } unknown)
            throw new InvalidDataException($"The optimizer state has {unknown}, which the model does not: it was saved for another model.");
        if (!state.TryGetValue(StepName, out Tensor? count) || count.numel() != 1 || count.dtype != ScalarType.Int64 || count.item<long>() < 0)
            throw new InvalidDataException("The optimizer state has no usable step: one int64 that is not negative is needed.");
    }

    public virtual void Dispose()
    {
        foreach ((_, Tensor tensor) in Memory()) tensor.Dispose();
        GC.SuppressFinalize(this);
    }

    /// <summary>A step of a part of another optimizer's tensors, which counts the steps and has the scope.</summary>
    internal void Apply(long step, double learningRate, IReadOnlyList<Tensor> gradients) => Update(step, learningRate, gradients);

    /// <summary>One step. Runs without autograd and in a dispose scope.</summary>
    /// <param name="step">Its number, from 1.</param>
    /// <param name="gradients">In the order of <see cref="Parameters"/>.</param>
    private protected abstract void Update(long step, double learningRate, IReadOnlyList<Tensor> gradients);

    /// <summary>The state's tensors, each named by one of the optimizer's prefixes and its parameter.</summary>
    private protected abstract IEnumerable<(string Name, Tensor Tensor)> Memory();

    private protected static Tensor Zeros(Tensor like, params ReadOnlySpan<long> shape) =>
        zeros(shape, ScalarType.Float32, like.device, requires_grad: false).DetachFromDisposeScope();

    // A part of Muon's tensors may have AdamW's state alone.
    private void CheckKind(IReadOnlyCollection<string> names)
    {
        string mine = GetType().Name;
        if (Kind(names) is { } saved && saved.Optimizer != mine && saved.Optimizer != Kind([.. Memory().Select(m => m.Name)])?.Optimizer)
            throw new InvalidDataException($"The optimizer state is that of {saved.Optimizer} ({saved.Name}), and this optimizer is {mine}: go on with {saved.Optimizer}, or begin with a new optimizer.");
    }

    /// <summary>Whose state it is, and the tensor that tells.</summary>
    private static (string Optimizer, string Name)? Kind(IReadOnlyCollection<string> names)
    {
        foreach ((string optimizer, string[] prefixes) in Known)
        {
            if (names.FirstOrDefault(n => prefixes.Any(p => n.StartsWith(p, StringComparison.Ordinal))) is { } name) return (optimizer, name);
        }
        return null;
    }

    private static Tensor Gradient(string name, Tensor parameter) =>
        parameter.grad ?? throw new InvalidOperationException($"{name} has no gradient: call backward before the step, and leave frozen parameters out of the optimizer.");

    private static IEnumerable<string> ParameterProblems(IReadOnlyList<(string Name, Tensor Parameter)> parameters)
    {
        if (parameters.Count == 0) yield return "There are no parameters to optimize.";
        HashSet<string> names = [];
        foreach ((string name, Tensor parameter) in parameters)
        {
            if (!names.Add(name)) yield return $"{name} is there twice.";
            if (parameter.dtype != ScalarType.Float32) yield return $"{name} is {parameter.dtype}: optimized weights must be Float32.";
            if (parameter.numel() == 0) yield return $"{name} has no elements: leave it out.";
            if (parameter.device.ToString() != parameters[0].Parameter.device.ToString()) yield return $"{name} is on {parameter.device}, {parameters[0].Name} on {parameters[0].Parameter.device}: one device is needed.";
        }
    }
}
