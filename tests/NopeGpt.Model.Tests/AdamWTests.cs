using NopeGpt.Model.Native;
using NopeGpt.Model.Optimizers;
using NopeGpt.Model.Storage;
using NopeGpt.Tests;
using TorchSharp;
using static TorchSharp.torch;
using Parameter = TorchSharp.Modules.Parameter;
using ReferenceAdamW = TorchSharp.Modules.AdamW;

namespace NopeGpt.Model.Tests;

public sealed class AdamWTests
{
    private static readonly long[][] Shapes = [[16, 8], [8], [4, 3, 2], []];

    public AdamWTests() => TorchRuntime.Load();

    private static (string, Tensor)[] Parameters(long seed)
    {
        using Generator generator = new((ulong)seed);
        return [.. Shapes.Select((shape, i) => ($"p{i}", randn(shape, generator: generator).requires_grad_().DetachFromDisposeScope()))];
    }

    // A loss whose gradients differ at each step and for each tensor.
    private static void Backward(IEnumerable<Tensor> parameters, int step)
    {
        using DisposeScope scope = NewDisposeScope();
        Tensor loss = parameters.Select((p, i) => (p * (i + 1)).sub(step * 0.1f).pow(3).sum()).Aggregate((a, b) => a + b);
        loss.backward();
    }

    [Fact]
    public void Twenty_steps_equal_TorchSharps_own_AdamW_with_decay_on_matrices_only()
    {
        using DisposeScope scope = NewDisposeScope();
        (string Name, Tensor Tensor)[] ours = Parameters(5);
        Parameter[] theirs = [.. Parameters(5).Select(p => new Parameter(p.Item2.detach().clone()))];
        using AdamW fused = new(ours, new AdamWOptions());
        ReferenceAdamW.ParamGroup[] split =
        [
            new(theirs.Where(p => p.dim() >= 2), lr: 0.01, beta1: 0.9, beta2: 0.95, eps: 1e-8, weight_decay: 0.1),
            new(theirs.Where(p => p.dim() < 2), lr: 0.01, beta1: 0.9, beta2: 0.95, eps: 1e-8, weight_decay: 0),
        ];
        using ReferenceAdamW reference = optim.AdamW(split);
        for (int step = 0; step < 20; step++)
        {
            fused.ZeroGrad();
            reference.zero_grad();
            Backward(ours.Select(p => p.Tensor), step);
            Backward(theirs, step);
            fused.Step(0.01);
            reference.step();
        }
        Assert.Equal(20, fused.StepCount);
        foreach ((Tensor mine, Parameter other) in ours.Select(p => p.Tensor).Zip(theirs))
            Assert.InRange((mine.detach() - other.detach()).abs().max().item<float>(), 0, 1e-6f);
        Assert.True((ours[0].Tensor - Parameters(5)[0].Item2).abs().max().item<float>() > 0.05f, "nothing moved");
    }

    [Fact]
    public void One_step_is_the_formula_by_hand()
    {
        using DisposeScope scope = NewDisposeScope();
        Tensor matrix = tensor(new float[,] { { 2 } }).requires_grad_(), vector = tensor(new float[] { 2 }).requires_grad_();
        using AdamW optimizer = new([("matrix", matrix), ("vector", vector)], new AdamWOptions { WeightDecay = 0.5, Epsilon = 1e-3 });
        (matrix * 3).sum().backward();
        (vector * 3).sum().backward();
        optimizer.Step(0.1);
        // The first step's moments, corrected, are the gradient and its square.
        Assert.Equal(2 * (1 - (0.1 * 0.5)) - (0.1 * 3 / (3 + 1e-3)), matrix.item<float>(), 6);
        Assert.Equal(2 - (0.1 * 3 / (3 + 1e-3)), vector.item<float>(), 6);
    }

    [Theory]
    [InlineData(0, new[] { true, true, true, true })]
    [InlineData(1, new[] { true, true, true, false })]
    [InlineData(2, new[] { true, false, true, false })]
    [InlineData(3, new[] { false, false, true, false })]
    public void Tensors_of_fewer_dimensions_than_decay_dimensions_do_not_decay(int dimensions, bool[] decays)
    {
        using DisposeScope scope = NewDisposeScope();
        (string Name, Tensor Tensor)[] parameters = Parameters(10);
        Tensor[] before = [.. parameters.Select(p => p.Tensor.detach().clone())];
        using AdamW optimizer = new(parameters, new AdamWOptions { DecayDimensions = dimensions, WeightDecay = 0.5 });
        // Without gradients only the decay is left.
        foreach ((_, Tensor parameter) in parameters) parameter.grad = zeros_like(parameter, requires_grad: false);
        optimizer.Step(0.1);
        for (int i = 0; i < before.Length; i++) Assert.True(parameters[i].Tensor.allclose(before[i] * (decays[i] ? 0.95f : 1), 1e-6, 0), Shapes[i].Length + " dimensions");
    }

    [Fact]
    public void A_restored_optimizer_goes_on_bit_for_bit_through_a_file()
    {
        using DisposeScope scope = NewDisposeScope();
        using TemporaryFolder folder = new();
        (string Name, Tensor Tensor)[] straight = Parameters(6), resumed = Parameters(6);
        using AdamW one = new(straight, new AdamWOptions()), two = new(resumed, new AdamWOptions());
        Run(one, straight, 0, 10);
        Run(two, resumed, 0, 4);
        SafetensorsFile.Save(folder["optimizer.safetensors"], two.State());

        using AdamW three = new(resumed, new AdamWOptions());
        using (SafetensorsFile file = SafetensorsFile.Open(folder["optimizer.safetensors"]))
        {
            Assert.Equal(["exp_avg.p0", "exp_avg.p1", "exp_avg.p2", "exp_avg.p3", "exp_avg_sq.p0", "exp_avg_sq.p1", "exp_avg_sq.p2", "exp_avg_sq.p3", "step"], file.Names.Order());
            three.Restore(file.Names.ToDictionary(n => n, file.Load));
        }
        Assert.Equal(4, three.StepCount);
        Run(three, resumed, 4, 10);
        foreach ((Tensor a, Tensor b) in straight.Select(p => p.Tensor).Zip(resumed.Select(p => p.Tensor))) Assert.True(a.equal(b).all().item<bool>());

        static void Run(AdamW optimizer, (string Name, Tensor Tensor)[] parameters, int from, int to)
        {
            for (int step = from; step < to; step++)
            {
                optimizer.ZeroGrad();
                Backward(parameters.Select(p => p.Tensor), step);
                optimizer.Step(0.01);
            }
        }
    }

    [Fact]
    public void A_state_of_another_model_is_refused_and_changes_nothing()
    {
        using DisposeScope scope = NewDisposeScope();
        using AdamW optimizer = new(Parameters(7), new AdamWOptions());
        Dictionary<string, Tensor> state = optimizer.State().ToDictionary(s => s.Name, s => ones_like(s.Tensor));
        Assert.Contains("exp_avg_sq.p2", Refused(s => s.Remove("exp_avg_sq.p2")));
        Assert.Contains("[5]", Refused(s => s["exp_avg.p1"] = ones(5)));
        Assert.Contains("Float64", Refused(s => s["exp_avg.p1"] = ones(8, ScalarType.Float64)));
        Assert.Contains("exp_avg.other", Refused(s => s["exp_avg.other"] = ones(1)));
        Assert.Contains("step", Refused(s => s["step"] = tensor(-1L)));
        Assert.Contains("step", Refused(s => s.Remove("step")));
        Assert.All(optimizer.State(), s => Assert.Equal(0, s.Tensor.sum().ToDouble()));
        optimizer.Restore(state);
        Assert.Equal(1, optimizer.StepCount);

        string Refused(Action<Dictionary<string, Tensor>> change)
        {
            Dictionary<string, Tensor> copy = new(state);
            change(copy);
            return Assert.Throws<InvalidDataException>(() => optimizer.Restore(copy)).Message;
        }
    }

    [Fact]
    public void Wrong_parameters_options_and_rates_are_named()
    {
        using DisposeScope scope = NewDisposeScope();
        Assert.Contains("half is Float16", Wrong([("half", ones(2, ScalarType.Float16))]));
        Assert.Contains("a is there twice", Wrong([("a", ones(2)), ("a", ones(2))]));
        Assert.Contains("no parameters", Wrong([]));
        Assert.Contains("beta1 is 1", Wrong([("a", ones(2))], new AdamWOptions { Beta1 = 1 }));
        Assert.Contains("decay_dimensions is -1", Wrong([("a", ones(2))], new AdamWOptions { DecayDimensions = -1 }));
        Assert.Contains("weight_decay is NaN", Wrong([("a", ones(2))], new AdamWOptions { WeightDecay = double.NaN }));
        Tensor lonely = ones(2).requires_grad_();
        using AdamW optimizer = new([("lonely", lonely)], new AdamWOptions());
        Assert.Contains("lonely has no gradient", Assert.Throws<InvalidOperationException>(() => optimizer.Step(0.1)).Message);
        Assert.Equal(0, optimizer.StepCount);
        Assert.Throws<ArgumentOutOfRangeException>(() => optimizer.Step(double.NaN));

        static string Wrong((string, Tensor)[] parameters, AdamWOptions? options = null) => Assert.Throws<ArgumentException>(() => new AdamW(parameters, options ?? new())).Message;
    }

    [Fact]
    public void Gradients_are_forgotten_or_zeroed_in_place()
    {
        using DisposeScope scope = NewDisposeScope();
        Tensor weight = ones(3).requires_grad_(), bucket = zeros(3);
        using AdamW optimizer = new([("weight", weight)], new AdamWOptions());
        weight.grad = bucket;
        weight.sum().backward();
        Assert.Equal(3, bucket.sum().item<float>());
        optimizer.ZeroGrad(keepMemory: true);
        Assert.Equal(0, bucket.sum().item<float>());
        Assert.NotNull(weight.grad);
        optimizer.ZeroGrad();
        Assert.Null(weight.grad);
    }

    [Theory]
    [InlineData(1.0)]
    [InlineData(1000.0)]
    [InlineData(double.PositiveInfinity)]
    public void Clipping_equals_PyTorchs(double most)
    {
        using DisposeScope scope = NewDisposeScope();
        Tensor[] ours = [.. Parameters(8).Select(p => p.Item2)];
        Parameter[] theirs = [.. Parameters(8).Select(p => new Parameter(p.Item2.detach().clone()))];
        Backward(ours, 1);
        Backward(theirs, 1);
        Tensor norm = GradientNorm.Clip(ours, most);
        double expected = nn.utils.clip_grad_norm_(theirs, most);
        Assert.Empty(norm.shape);
        Assert.Equal(expected, norm.item<float>(), 1e-4 * expected);
        foreach ((Tensor a, Parameter b) in ours.Zip(theirs)) Assert.True(a.grad!.allclose(b.grad!, 1e-6, 1e-8));
        double after = GradientNorm.Of(ours).item<float>();
        Assert.Equal(Math.Min(expected, most), after, 1e-4 * expected);
    }

    [Fact]
    public void A_norm_without_gradients_is_zero_and_one_that_is_not_finite_shows()
    {
        using DisposeScope scope = NewDisposeScope();
        Tensor weight = ones(3).requires_grad_();
        Assert.Equal(0, GradientNorm.Clip([weight], 1).item<float>());
        weight.grad = tensor(new[] { 1f, float.NaN, 2f });
        Assert.True(float.IsNaN(GradientNorm.Clip([weight], 1).item<float>()));
        Assert.Throws<ArgumentOutOfRangeException>(() => GradientNorm.Clip([weight], 0));
    }

    [Fact]
    public void Steps_leave_no_tensors_behind()
    {
        using DisposeScope outer = NewDisposeScope();
        (string Name, Tensor Tensor)[] parameters = Parameters(9);
        using AdamW optimizer = new(parameters, new AdamWOptions());
        long before = DisposeScopeManager.Statistics.ThreadTotalLiveCount;
        for (int step = 0; step < 500; step++)
        {
            optimizer.ZeroGrad();
            Backward(parameters.Select(p => p.Tensor), step);
            using Tensor norm = GradientNorm.Clip(parameters.Select(p => p.Tensor), 1);
            optimizer.Step(1e-4);
        }
        Assert.Equal(before, DisposeScopeManager.Statistics.ThreadTotalLiveCount);
    }
}
