using NopeGpt.Model.Native;
using NopeGpt.Model.Optimizers;
using NopeGpt.Model.Storage;
using NopeGpt.Tests;
using TorchSharp;
using static TorchSharp.torch;

namespace NopeGpt.Model.Tests;

public sealed class AdafactorTests : IDisposable
{
    // Below, at and above what one SIMD step, one piece of work and one core take; one row, one column; more than two dimensions.
    private static readonly long[][] Shapes = [[16, 8], [8], [4, 3, 2], [], [1, 33], [33, 1], [70, 1001], [700, 257], [2, 3, 40, 129], [5]];

    private static readonly AdafactorOptions[] Forms = [new(), new() { Fused = false }, new() { Fused = false, LowMemory = true }];

    private readonly DisposeScope scope;

    public AdafactorTests()
    {
        TorchRuntime.Load();
        scope = NewDisposeScope();
    }

    public static TheoryData<int, double> Cases => new() { { 0, 1e-2 }, { 1, 1e-2 }, { 2, 1e-2 }, { 0, 1e-4 }, { 1, 1e-4 }, { 2, 1e-4 } };

    public void Dispose() => scope.Dispose();

    [Theory]
    [MemberData(nameof(Cases))]
    public void Twelve_steps_are_the_formula_in_double_precision(int form, double rate)
    {
        AdafactorOptions options = Forms[form] with { WeightDecay = 0.1, ClippingThreshold = 1.25, Beta2Decay = -0.7, Epsilon2 = 2e-3 };
        (string Name, Tensor Tensor)[] ours = Parameters(11);
        FormulaAdafactor[] theirs = [.. ours.Select(p => new FormulaAdafactor(p.Tensor, options))];
        using Adafactor optimizer = new(ours, options);
        using Generator generator = new(12);
        for (int step = 1; step <= 12; step++)
        {
            Gradients(ours, generator);
            optimizer.Step(rate);
            foreach ((FormulaAdafactor formula, (_, Tensor parameter)) in theirs.Zip(ours)) formula.Step(parameter.grad!, step, rate);
        }
        Assert.Equal(12, optimizer.StepCount);
        foreach ((FormulaAdafactor formula, (string name, Tensor parameter)) in theirs.Zip(ours))
        {
            double difference = (parameter.detach().to(ScalarType.Float64) - formula.Weight).abs().max().item<double>() / Math.Max(1, formula.Weight.abs().max().item<double>());
            Assert.True(difference <= 2e-6, $"{name} differs by {difference:E2}");
        }
    }

    [Fact]
    public void One_step_is_the_formula_by_hand()
    {
        foreach (AdafactorOptions form in Forms)
        {
            Tensor matrix = tensor(new float[,] { { 3, 4 } }).requires_grad_(), vector = tensor(new float[] { 2, 2 }).requires_grad_();
            using Adafactor optimizer = new([("matrix", matrix), ("vector", vector)], form);
            matrix.grad = tensor(new float[,] { { 1, 2 } });
            vector.grad = tensor(new float[] { 5, 0 });
            optimizer.Step(0.5);
            // R = 2.5, C = (1, 4), V = R·C / R = (1, 4): U = (1, 1), its root mean square 1; α = √12.5 · 0.5.
            double alpha = Math.Sqrt(12.5) * 0.5;
            AssertEqual([3 - alpha, 4 - alpha], matrix);
            // V = (25, 0): U = (1, 0), whose root mean square √½ is not cut; α = 2 · 0.5.
            AssertEqual([2 - 1, 2], vector);
        }
    }

    [Fact]
    public void An_update_that_is_too_large_is_cut_and_small_weights_move_by_the_least_step()
    {
        foreach (AdafactorOptions form in Forms)
        {
            Tensor weight = zeros(2).requires_grad_();
            using Adafactor optimizer = new([("weight", weight)], form);
            weight.grad = tensor(new float[] { 1, 1 });
            optimizer.Step(1);
            AssertEqual([-1e-3, -1e-3], weight);
            // V = 1 − w + 10⁴·w with w = 2^-0.8: U = 1.3 for both, which is cut to 1. ρ = 1/√2, and RMS(θ) is the least, 1e-3.
            weight.grad = tensor(new float[] { 100, 100 });
            optimizer.Step(1);
            AssertEqual([-1e-3 * (1 + (1 / Math.Sqrt(2))), -1e-3 * (1 + (1 / Math.Sqrt(2)))], weight);

            Tensor matrix = zeros(2, 2).requires_grad_();
            using Adafactor diagonal = new([("matrix", matrix)], form);
            matrix.grad = tensor(new float[,] { { 1, 0 }, { 0, 1 } });
            diagonal.Step(1);
            // R = C = ½ and V = ½ everywhere: U = √2 on the diagonal, its root mean square 1, so nothing is cut.
            AssertEqual([-1e-3 * Math.Sqrt(2), 0, 0, -1e-3 * Math.Sqrt(2)], matrix);
        }
    }

    [Fact]
    public void Rows_and_columns_without_gradients_stay_and_the_smallest_gradients_are_bounded()
    {
        foreach (AdafactorOptions form in Forms)
        {
            Tensor table = ones(40, 24).requires_grad_(), tiny = ones(6, 5).requires_grad_();
            using Adafactor optimizer = new([("table", table), ("tiny", tiny)], form);
            Tensor gradient = ones(40, 24);
            gradient[3] = 0;
            gradient[TensorIndex.Colon, 7] = 0;
            for (int step = 0; step < 3; step++)
            {
                table.grad = gradient;
                tiny.grad = full([6, 5], 1e-9f);
                optimizer.Step(1e-2);
            }
            Assert.Equal(24, table.detach()[3].sum().item<float>());
            Assert.Equal(40, table.detach()[TensorIndex.Colon, 7].sum().item<float>());
            Assert.True(table.detach()[4, 4].item<float>() < 0.98f);
            // V would be 1e-18: its root is bounded from below by ε1, so U = 1e-9 / 1.19e-7 and not 1. mean(R) is bounded by ε1 too.
            Assert.Equal(1 - (3 * 1e-2 * 1e-9 / 1.1920929e-7), tiny.mean().item<float>(), 2e-6);
            Assert.True(table.isfinite().all().item<bool>());
        }
    }

    [Theory]
    [InlineData(21)]
    [InlineData(22)]
    public void All_forms_agree(long seed)
    {
        Tensor[][] results = [.. Forms.Select(form =>
        {
            (string Name, Tensor Tensor)[] parameters = Parameters(seed);
            using Adafactor optimizer = new(parameters, form);
            using Generator generator = new((ulong)seed);
            for (int step = 0; step < 30; step++)
            {
                Gradients(parameters, generator);
                optimizer.Step(1e-2);
            }
            return parameters.Select(p => p.Tensor.detach()).Concat(optimizer.State().Where(s => s.Name != "step").Select(s => s.Tensor.clone())).ToArray();
        })];
        foreach (Tensor[] other in results[1..])
        {
            foreach ((Tensor a, Tensor b) in results[0].Zip(other))
                Assert.True(a.to(ScalarType.Float64).allclose(b.to(ScalarType.Float64), 1e-6, 1e-6), $"seed {seed}: {(a - b).abs().max().item<float>()}");
        }
        foreach ((Tensor a, Tensor b) in results[1].Zip(results[2])) Assert.True(a.equal(b).all().item<bool>());
    }

    [Fact]
    public void Weights_and_gradients_that_are_views_of_other_memory_are_stepped_alike()
    {
        foreach (AdafactorOptions form in Forms)
        {
            using Generator generator = new(41);
            Tensor plain = randn([12, 20], generator: generator).requires_grad_(), gradient = randn([12, 20], generator: generator);
            Tensor strided = plain.detach().t().contiguous().t().requires_grad_(), other = plain.detach().clone().requires_grad_();
            Assert.False(strided.is_contiguous());
            (plain.grad, strided.grad, other.grad) = (gradient, gradient, gradient.t().contiguous().t());
            using Adafactor a = new([("weight", plain)], form), b = new([("weight", strided)], form), c = new([("weight", other)], form);
            a.Step(1e-2);
            b.Step(1e-2);
            c.Step(1e-2);
            Assert.True(plain.allclose(strided, 1e-6, 1e-7));
            Assert.True(plain.allclose(other, 1e-6, 1e-7));
        }
    }

    [Fact]
    public void A_restored_optimizer_goes_on_bit_for_bit_through_a_file()
    {
        foreach (AdafactorOptions form in Forms)
        {
            using TemporaryFolder folder = new();
            (string Name, Tensor Tensor)[] straight = Parameters(6), resumed = Parameters(6);
            using Adafactor one = new(straight, form), two = new(resumed, form), three = new(resumed, form);
            Run(one, straight, 0, 8);
            Run(two, resumed, 0, 3);
            SafetensorsFile.Save(folder["optimizer.safetensors"], two.State());
            using (SafetensorsFile file = SafetensorsFile.Open(folder["optimizer.safetensors"]))
            {
                Assert.Equal(["col_var.p0", "row_var.p0", "step", "variance.p1"], file.Names.Where(n => n[^1] is '0' or '1' or 'p').Order());
                three.Restore(file.Names.ToDictionary(n => n, file.Load));
            }
            Assert.Equal(3, three.StepCount);
            Run(three, resumed, 3, 8);
            foreach ((Tensor a, Tensor b) in straight.Select(p => p.Tensor).Zip(resumed.Select(p => p.Tensor))) Assert.True(a.equal(b).all().item<bool>());
        }

        static void Run(Adafactor optimizer, (string Name, Tensor Tensor)[] parameters, int from, int to)
        {
            for (int step = from; step < to; step++)
            {
                using Generator generator = new((ulong)step);
                Gradients(parameters, generator);
                optimizer.Step(1e-2);
            }
        }
    }

    [Fact]
    public void The_state_is_one_row_and_one_column_of_a_matrix()
    {
        using Adafactor optimizer = new([("matrix", zeros(30, 50)), ("vector", zeros(7)), ("stack", zeros(2, 3, 5))], new());
        Assert.Equal(4 * ((30 + 50) + 7 + (2 * (3 + 5))), optimizer.StateBytes);
        Assert.Equal(["row_var.matrix [30, 1]", "col_var.matrix [1, 50]", "variance.vector [7]", "row_var.stack [2, 3, 1]", "col_var.stack [2, 1, 5]", "step []"],
            optimizer.State().Select(s => $"{s.Name} [{string.Join(", ", s.Tensor.shape)}]"));
    }

    [Fact]
    public void The_state_of_the_other_optimizer_is_refused_by_its_name()
    {
        (string, Tensor)[] parameters = Parameters(7);
        using Optimizer adafactor = new AdafactorOptions().Create(parameters), adam = new AdamWOptions().Create(parameters);
        string one = Assert.Throws<InvalidDataException>(() => adafactor.Restore(adam.State().ToDictionary(s => s.Name, s => s.Tensor))).Message;
        string other = Assert.Throws<InvalidDataException>(() => adam.Restore(adafactor.State().ToDictionary(s => s.Name, s => s.Tensor))).Message;
        Assert.Contains("is that of AdamW", one, StringComparison.Ordinal);
        Assert.Contains("is that of Adafactor", other, StringComparison.Ordinal);
        Assert.Equal(0, adafactor.StepCount + adam.StepCount);
    }

    [Fact]
    public void Wrong_options_are_named()
    {
        string message = Assert.Throws<ArgumentException>(() => new Adafactor([("a", ones(2))], new AdafactorOptions
        {
            Beta2Decay = 0.1, Epsilon1 = 0, Epsilon2 = double.NaN, ClippingThreshold = 0.5, WeightDecay = -1,
        })).Message;
        foreach (string name in (string[])["beta2_decay is 0.1", "epsilon1 is 0", "epsilon2 is NaN", "clipping_threshold is 0.5", "weight_decay is -1"])
            Assert.Contains(name, message, StringComparison.Ordinal);
        Assert.Contains("a has no elements", Assert.Throws<ArgumentException>(() => new Adafactor([("a", ones(0, 3))], new())).Message, StringComparison.Ordinal);
    }

    [Fact]
    public void Steps_leave_no_tensors_behind()
    {
        foreach (AdafactorOptions form in Forms)
        {
            (string Name, Tensor Tensor)[] parameters = [.. Parameters(9).Take(4)];
            using Generator generator = new(9);
            Gradients(parameters, generator);
            using Adafactor optimizer = new(parameters, form);
            long before = DisposeScopeManager.Statistics.ThreadTotalLiveCount;
            for (int step = 0; step < 50; step++) optimizer.Step(1e-4);
            Assert.Equal(before, DisposeScopeManager.Statistics.ThreadTotalLiveCount);
        }
    }

    internal static (string Name, Tensor Tensor)[] Parameters(long seed)
    {
        using Generator generator = new((ulong)seed);
        return [.. Shapes.Select((shape, i) => ($"p{i}", randn(shape, generator: generator).mul_(Math.Pow(10, -(i % 4))).requires_grad_()))];
    }

    // Of sizes that differ between tensors, rows and steps, so that updates are cut in some and not in others.
    internal static void Gradients((string Name, Tensor Tensor)[] parameters, Generator generator)
    {
        for (int i = 0; i < parameters.Length; i++)
        {
            Tensor weight = parameters[i].Tensor, gradient = randn(weight.shape, generator: generator).mul_(Math.Pow(10, 1 - (i % 5)));
            if (weight.dim() > 1) gradient.mul_(randn([.. weight.shape[..^1], 1], generator: generator).exp_());
            weight.grad = gradient;
        }
    }

    private static void AssertEqual(double[] expected, Tensor actual)
    {
        float[] values = [.. actual.detach().flatten(0, -1).data<float>()];
        foreach ((double a, float b) in expected.Zip(values)) Assert.Equal(a, b, 1e-6 * Math.Max(1, Math.Abs(a)));
    }

    /// <summary>The algorithm as it stands in PyTorch's documentation, in double precision, nothing rearranged.</summary>
    private sealed class FormulaAdafactor(Tensor weight, AdafactorOptions options)
    {
        private Tensor? row, column, whole;

        public Tensor Weight { get; private set; } = weight.detach().to(ScalarType.Float64);

        public void Step(Tensor gradient32, int step, double rate)
        {
            Tensor g = gradient32.to(ScalarType.Float64), squares = g * g;
            double beta = 1 - Math.Pow(step, options.Beta2Decay), rho = Math.Min(rate, 1 / Math.Sqrt(step));
            double alpha = Math.Max(options.Epsilon2, Math.Sqrt(Weight.square().mean().item<double>())) * rho;
            Weight = Weight * (1 - (rate * options.WeightDecay));
            Tensor variance;
            if (g.dim() > 1)
            {
                row = (row is null ? 0 : row * beta) + (squares.mean([-1], keepdim: true) * (1 - beta));
                column = (column is null ? 0 : column * beta) + (squares.mean([-2], keepdim: true) * (1 - beta));
                variance = row.matmul(column) / row.mean([-2], keepdim: true).clamp(min: options.Epsilon1);
            }
            else variance = whole = (whole is null ? 0 : whole * beta) + (squares * (1 - beta));
            Tensor update = g / variance.sqrt().clamp(min: options.Epsilon1);
            double cut = Math.Max(1, Math.Sqrt(update.square().mean().item<double>()) / options.ClippingThreshold);
            Weight = Weight - (update * (alpha / cut));
        }
    }
}
