using NopeGpt.Model.Native;
using NopeGpt.Model.Optimizers;
using NopeGpt.Model.Storage;
using NopeGpt.Tests;
using TorchSharp;
using static TorchSharp.torch;

namespace NopeGpt.Model.Tests;

public sealed class MuonTests : IDisposable
{
    // Wide, tall, square, one row, one column; an embedding and a head of their own, vectors, more than two dimensions.
    private static readonly (string Name, long[] Shape)[] Shapes =
    [
        ("wide", [6, 20]), ("tall", [33, 7]), ("square", [12, 12]), ("row", [1, 9]), ("column", [9, 1]), ("token_embeddings.weight", [11, 8]),
        ("position_embeddings.weight", [5, 8]), ("token_classifier.linear.weight", [11, 8]), ("vector", [8]), ("stack", [2, 3, 4]), ("number", []),
    ];

    private readonly DisposeScope scope;

    public MuonTests()
    {
        TorchRuntime.Load();
        scope = NewDisposeScope();
    }

    public void Dispose() => scope.Dispose();

    [Theory]
    [InlineData(0.95, 5, 0.2, 0.1)]
    [InlineData(0, 1, 1, 0)]
    [InlineData(0.9, 8, 0.05, 2)]
    public void Ten_steps_are_the_formula_in_double_precision(double momentum, int iterations, double scale, double decay)
    {
        MuonOptions options = new() { Momentum = momentum, Iterations = iterations, Scale = scale, WeightDecay = decay };
        (string Name, Tensor Tensor)[] ours = Parameters(11), adams = [.. Parameters(11).Skip(5)];
        FormulaMuon[] theirs = [.. ours.Take(5).Select(p => new FormulaMuon(p.Tensor, options))];
        using Muon optimizer = new(ours, options);
        using AdamW adam = new(adams, options.Others);
        using Generator generator = new(12);
        for (int step = 0; step < 10; step++)
        {
            Gradients(ours, generator);
            foreach (((_, Tensor parameter), (_, Tensor other)) in ours.Skip(5).Zip(adams)) other.grad = parameter.grad!.clone();
            foreach ((FormulaMuon formula, (_, Tensor parameter)) in theirs.Zip(ours)) formula.Step(parameter.grad!, 1e-2);
            optimizer.Step(1e-2);
            adam.Step(1e-2);
        }
        Assert.Equal(10, optimizer.StepCount);
        foreach ((FormulaMuon formula, (string name, Tensor parameter)) in theirs.Zip(ours))
        {
            double difference = (parameter.detach().to(ScalarType.Float64) - formula.Weight).abs().max().item<double>();
            Assert.True(difference <= 1e-6 + (1e-5 * scale), $"{name} differs by {difference:E2}");
        }
        foreach (((string name, Tensor a), (_, Tensor b)) in ours.Skip(5).Zip(adams)) Assert.True(a.equal(b).all().item<bool>(), name);
    }

    [Fact]
    public void A_step_is_orthogonal_and_has_the_root_mean_square_of_the_scale_in_every_shape()
    {
        using Generator generator = new(5);
        foreach (long[] shape in (long[][])[[64, 64], [64, 256], [256, 64], [40, 8]])
        {
            Tensor weight = zeros(shape).requires_grad_();
            using Muon optimizer = new([("w", weight)], new() { Scale = 0.2, WeightDecay = 0 });
            // Badly conditioned: columns' sizes go over a factor of e^4 and more.
            weight.grad = randn(shape, generator: generator) * randn([shape[1]], generator: generator).exp();
            optimizer.Step(0.1);
            double root = Math.Sqrt(weight.detach().square().mean().item<float>());
            Assert.InRange(root, 0.02 * 0.7, 0.02 * 1.2);
            (_, Tensor singular, _) = linalg.svd(weight.detach(), fullMatrices: false);
            Tensor relative = singular / (0.02 * Math.Sqrt(Math.Max(shape[0], shape[1])));
            Assert.InRange(relative.max().item<float>(), 0.8, 1.25);
            Assert.True(relative.median().item<float>() > 0.65, string.Join(" ", relative.data<float>().ToArray()));
        }
    }

    [Fact]
    public void A_step_of_one_iteration_is_the_formula_by_hand()
    {
        Tensor weight = tensor(new float[,] { { 1, 2 } }).requires_grad_();
        using Muon optimizer = new([("w", weight)], new() { Momentum = 0.5, Iterations = 1, Scale = 1, WeightDecay = 0.5 });
        weight.grad = tensor(new float[,] { { 3, 4 } });
        optimizer.Step(0.1);
        // One row of length 1 has A = 1, so that X becomes (a + b + c)·X; the step is that times √2·0.1.
        double size = (3.4445 - 4.7750 + 2.0315) * Math.Sqrt(2) * 0.1;
        Assert.Equal([(float)(0.95 - (size * 0.6)), (float)(1.9 - (size * 0.8))], weight.detach().data<float>().ToArray(), (a, b) => Math.Abs(a - b) < 1e-6);
    }

    [Fact]
    public void A_matrix_that_never_had_a_gradient_only_decays_and_the_smallest_gradients_count()
    {
        Tensor still = ones(4, 6).requires_grad_(), tiny = zeros(4, 4).requires_grad_();
        using Muon optimizer = new([("still", still), ("tiny", tiny)], new() { WeightDecay = 0.1 });
        (still.grad, tiny.grad) = (zeros(4, 6), eye(4) * 1e-12f);
        optimizer.Step(0.5);
        Assert.True(still.detach().allclose(full([4, 6], 0.95f)));
        Assert.True(tiny.detach().diagonal().max().item<float>() < -0.1f, "the direction counts, not the size");
    }

    [Fact]
    public void Weights_and_gradients_that_are_views_of_other_memory_are_stepped_alike()
    {
        using Generator generator = new(41);
        Tensor plain = randn([12, 20], generator: generator).requires_grad_(), gradient = randn([12, 20], generator: generator);
        Tensor strided = plain.detach().t().contiguous().t().requires_grad_();
        Assert.False(strided.is_contiguous());
        (plain.grad, strided.grad) = (gradient, gradient.t().contiguous().t());
        using Muon a = new([("weight", plain)], new()), b = new([("weight", strided)], new());
        a.Step(1e-2);
        b.Step(1e-2);
        Assert.True(plain.allclose(strided, 1e-5, 1e-6));
    }

    [Fact]
    public void A_restored_optimizer_goes_on_bit_for_bit_through_a_file()
    {
        using TemporaryFolder folder = new();
        (string Name, Tensor Tensor)[] straight = Parameters(6), resumed = Parameters(6);
        using Muon one = new(straight, new()), two = new(resumed, new()), three = new(resumed, new());
        Run(one, straight, 0, 8);
        Run(two, resumed, 0, 3);
        SafetensorsFile.Save(folder["optimizer.safetensors"], two.State());
        using (SafetensorsFile file = SafetensorsFile.Open(folder["optimizer.safetensors"]))
            three.Restore(file.Names.ToDictionary(n => n, file.Load));
        Assert.Equal(3, three.StepCount);
        Run(three, resumed, 3, 8);
        foreach ((Tensor a, Tensor b) in straight.Select(p => p.Tensor).Zip(resumed.Select(p => p.Tensor))) Assert.True(a.equal(b).all().item<bool>());

        static void Run(Muon optimizer, (string Name, Tensor Tensor)[] parameters, int from, int to)
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
    public void The_state_is_one_number_for_a_hidden_weight_and_two_for_the_others()
    {
        using Muon optimizer = new([("matrix", zeros(30, 50)), ("vector", zeros(7)), ("token_embeddings.weight", zeros(5, 3))], new());
        Assert.Equal(4 * ((30 * 50) + (2 * 7) + (2 * 15)), optimizer.StateBytes);
        Assert.Equal(["momentum.matrix", "exp_avg.vector", "exp_avg_sq.vector", "exp_avg.token_embeddings.weight", "exp_avg_sq.token_embeddings.weight", "step"], optimizer.State().Select(s => s.Name));
    }

    [Fact]
    public void The_state_of_another_optimizer_is_refused_by_its_name_and_changes_nothing()
    {
        (string, Tensor)[] parameters = Parameters(7);
        using Optimizer muon = new MuonOptions().Create(parameters), adam = new AdamWOptions().Create(parameters), adafactor = new AdafactorOptions().Create(parameters);
        foreach ((Optimizer own, Optimizer other, string name) in new[] { (muon, adam, "AdamW"), (adam, muon, "Muon"), (muon, adafactor, "Adafactor"), (adafactor, muon, "Muon") })
        {
            string message = Assert.Throws<InvalidDataException>(() => own.Restore(other.State().ToDictionary(s => s.Name, s => s.Tensor))).Message;
            Assert.Contains($"is that of {name} (", message, StringComparison.Ordinal);
        }
        Assert.Equal(0, muon.StepCount + adam.StepCount + adafactor.StepCount);
    }

    [Fact]
    public void Wrong_options_are_named()
    {
        string message = Assert.Throws<ArgumentException>(() => new Muon([("a", ones(2, 2))], new()
        {
            Momentum = 1, Iterations = 0, Scale = double.NaN, WeightDecay = -1, Others = new() { Beta1 = 2 },
        })).Message;
        foreach (string part in (string[])["momentum is 1", "iterations is 0", "scale is NaN", "weight_decay is -1", "others: beta1 is 2"])
            Assert.Contains(part, message, StringComparison.Ordinal);
    }

    [Fact]
    public void Steps_leave_no_tensors_behind()
    {
        (string Name, Tensor Tensor)[] parameters = Parameters(9);
        using Generator generator = new(9);
        Gradients(parameters, generator);
        using Muon optimizer = new(parameters, new());
        long before = DisposeScopeManager.Statistics.ThreadTotalLiveCount;
        for (int step = 0; step < 50; step++) optimizer.Step(1e-4);
        Assert.Equal(before, DisposeScopeManager.Statistics.ThreadTotalLiveCount);
    }

    private static (string Name, Tensor Tensor)[] Parameters(long seed)
    {
        using Generator generator = new((ulong)seed);
        return [.. Shapes.Select(s => (s.Name, randn(s.Shape, generator: generator).requires_grad_()))];
    }

    private static void Gradients((string Name, Tensor Tensor)[] parameters, Generator generator)
    {
        for (int i = 0; i < parameters.Length; i++)
            parameters[i].Tensor.grad = randn(parameters[i].Tensor.shape, generator: generator).mul_(Math.Pow(10, 1 - (i % 5)));
    }

    /// <summary>The algorithm in double precision, the iteration on the matrix as it stands and written out.</summary>
    private sealed class FormulaMuon(Tensor weight, MuonOptions options)
    {
        private Tensor momentum = zeros(weight.shape, ScalarType.Float64);

        public Tensor Weight { get; private set; } = weight.detach().to(ScalarType.Float64);

        public void Step(Tensor gradient32, double rate)
        {
            Tensor g = gradient32.to(ScalarType.Float64);
            momentum = (momentum * options.Momentum) + g;
            Tensor x = g + (momentum * options.Momentum);
            x = x / x.norm();
            for (int i = 0; i < options.Iterations; i++)
            {
                // Written with XᵀX where ours takes the smaller of the two: it is the same polynomial.
                Tensor gram = x.t().matmul(x);
                x = (x * 3.4445) + x.matmul((gram * -4.7750) + (gram.matmul(gram) * 2.0315));
            }
            double size = options.Scale * Math.Sqrt(Math.Max(g.size(0), g.size(1)));
            Weight = (Weight * (1 - (rate * options.WeightDecay))) - (x * (rate * size));
        }
    }
}
