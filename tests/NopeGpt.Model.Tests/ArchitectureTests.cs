using NopeGpt.Model.Native;
using TorchSharp;
using static TorchSharp.torch;
using static TorchSharp.torch.nn;

namespace NopeGpt.Model.Tests;

/// <summary>Every option of the architecture, alone and with others, against <see cref="PlainNetwork"/>.</summary>
public sealed class ArchitectureTests : IDisposable
{
    private static readonly ModelConfig Tiny = new() { VocabularySize = 61, EmbeddingDimensions = 48, NumQHeads = 6, NumKvHeads = 2, NumDecoderLayers = 2 };

    internal static readonly Dictionary<string, ModelConfig> Options = new()
    {
        ["nope"] = Tiny,
        ["rope"] = Tiny with { Positions = Positions.Rope },
        ["rope, theta 500"] = Tiny with { Positions = Positions.Rope, RopeTheta = 500 },
        ["learned"] = Tiny with { Positions = Positions.Learned, ContextLength = 24 },
        ["layer_norm"] = Tiny with { Norm = Norm.LayerNorm },
        ["layer_norm with bias"] = Tiny with { Norm = Norm.LayerNorm, NormBias = true, NormEpsilon = 1e-5 },
        ["large epsilon"] = Tiny with { NormEpsilon = 0.1 },
        ["swiglu"] = Tiny with { Mlp = Mlp.Swiglu },
        ["gelu"] = Tiny with { Mlp = Mlp.Gelu },
        ["biases"] = Tiny with { LinearBias = true },
        ["swiglu with biases"] = Tiny with { Mlp = Mlp.Swiglu, LinearBias = true },
        ["own head"] = Tiny with { TiedHead = false },
        ["padded vocabulary"] = Tiny with { VocabularyMultipleOf = 32 },
        ["padded vocabulary, own head"] = Tiny with { VocabularyMultipleOf = 32, TiedHead = false },
        ["lilLM's rounding"] = Tiny with { HiddenMultipleOf = 40 },
        ["hidden_size"] = Tiny with { HiddenSize = 37, HiddenRatio = 3 },
        ["lil-lm"] = ModelPresets.Find("lil-lm-tiny").Config,
        ["gpt2"] = ModelPresets.Find("gpt2-tiny").Config,
        ["light-gpt"] = ModelPresets.Find("light-gpt-tiny").Config,
    };

    private readonly DisposeScope _scope;

    public ArchitectureTests()
    {
        TorchRuntime.Load();
        _scope = NewDisposeScope();
    }

    public static TheoryData<string> Names => [.. Options.Keys];

    public void Dispose() => _scope.Dispose();

    [Theory]
    [MemberData(nameof(Names))]
    public void Each_option_alone_agrees_with_the_formulas_written_out(string option) => AssertAgrees(Options[option], 11, option);

    [Fact]
    public void Random_combinations_agree_with_the_formulas_written_out()
    {
        int first = Random.Shared.Next();
        for (int seed = first; seed < first + 12; seed++) AssertAgrees(RandomConfig(new Random(seed)), (ulong)seed, $"seed {seed}");
    }

    [Fact]
    public void Random_combinations_with_dropout_agree_with_the_formulas_and_the_same_masks()
    {
        int first = Random.Shared.Next();
        for (int seed = first; seed < first + 8; seed++)
        {
            Random random = new(seed);
            ModelConfig config = RandomConfig(random) with { Dropout = Rate(), AttentionDropout = Rate(), ResidualDropout = Rate() };
            AssertAgrees(config, (ulong)seed, $"seed {seed}, {config}", training: true);

            double Rate() => random.Next(3) * 0.2;
        }
    }

    [Fact]
    public void Dropout_per_token_leaves_the_bias_of_linear2()
    {
        using Decoder model = new(Tiny with { NumDecoderLayers = 1, LinearBias = true, Dropout = 0.5 }, 1);
        Spread(model, 1);
        using (no_grad())
            foreach ((string name, Tensor parameter) in model.Parameters()) if (name.EndsWith("linear2.weight", StringComparison.Ordinal)) parameter.zero_();
        Tensor tokens_BT = Tokens(2, 20, 61, 1);
        model.train();
        Tensor training_BTV = model.Forward(tokens_BT);
        model.eval();
        Assert.True(training_BTV.allclose(model.Forward(tokens_BT), rtol: 1e-5, atol: 1e-5));
    }

    [Theory]
    [MemberData(nameof(Names))]
    public void No_option_lets_a_token_see_the_ones_after_it(string option)
    {
        ModelConfig config = Options[option] with { AttentionDropout = 0.3, ResidualDropout = 0.2 };
        using Decoder model = new(config, 1);
        Spread(model, 2);
        Tensor tokens_BT = Tokens(2, 20, config.VocabularySize, 3), changed_BT = tokens_BT.clone();
        changed_BT[.., 12..] = config.VocabularySize - 1 - changed_BT[.., 12..];
        foreach (bool training in (bool[])[false, true])
        {
            model.train(training);
            byte[] state = model.DropoutState;
            Tensor logits_BTV = model.Forward(tokens_BT);
            model.DropoutState = state;
            Tensor after_BTV = model.Forward(changed_BT);
            Assert.True(logits_BTV[.., ..12].allclose(after_BTV[.., ..12], rtol: 1e-4, atol: 1e-4));
            Assert.False(logits_BTV[.., 12..].allclose(after_BTV[.., 12..], rtol: 1e-2, atol: 1e-2));
        }
    }

    [Theory]
    [InlineData(true)]
    [InlineData(false)]
    public void Padding_of_the_vocabulary_has_no_logits_and_no_part_in_loss_or_gradients(bool tied)
    {
        using Decoder padded = new(Tiny with { VocabularyMultipleOf = 64, TiedHead = tied }, 1), plain = new(Tiny with { TiedHead = tied }, 1);
        Dictionary<string, Tensor> state = plain.Parameters().ToDictionary(p => p.Name, p => p.Parameter);
        using (no_grad())
        {
            foreach ((string name, Tensor parameter) in padded.Parameters())
            {
                if (parameter.shape[0] == 64) parameter.fill_(1e4f);
                parameter.narrow(0, 0, state[name].shape[0]).copy_(state[name]);
            }
        }
        Tensor tokens_BT = Tokens(2, 10, 61, 4), targets_BT = Tokens(2, 10, 61, 5);
        Assert.Equal([2, 10, 61], padded.Forward(tokens_BT).shape);
        Assert.True(padded.Forward(tokens_BT).is_contiguous());
        Assert.True(padded.Forward(tokens_BT).allclose(plain.Forward(tokens_BT)));
        Assert.True(padded.LossPerToken(tokens_BT, targets_BT).allclose(plain.LossPerToken(tokens_BT, targets_BT)));
        Tensor loss = padded.Loss(tokens_BT, targets_BT), expected = plain.Loss(tokens_BT, targets_BT);
        Assert.Equal(expected.item<float>(), loss.item<float>(), 1e-5);
        loss.backward();
        expected.backward();
        foreach ((string name, Tensor parameter) in padded.Parameters())
        {
            Tensor real = parameter.grad!.narrow(0, 0, state[name].shape[0]), padding = parameter.grad!.narrow(0, real.shape[0], parameter.shape[0] - real.shape[0]);
            Assert.True(real.allclose(state[name].grad!, rtol: 1e-4, atol: 1e-7), name);
            Assert.Equal(0, padding.ne(0).sum().item<long>());
        }
    }

    [Fact]
    public void More_tokens_than_learned_positions_are_refused_with_both_numbers()
    {
        using Decoder model = new(Tiny with { Positions = Positions.Learned, ContextLength = 8 }, 1);
        model.Forward(Tokens(1, 8, 61, 1));
        ArgumentException error = Assert.Throws<ArgumentException>(() => model.Forward(Tokens(1, 9, 61, 1)));
        Assert.Contains("9 tokens", error.Message);
        Assert.Contains("context_length = 8", error.Message);
        Assert.Throws<ArgumentException>(() => model.Loss(Tokens(1, 9, 61, 1), Tokens(1, 9, 61, 1)));
    }

    [Fact]
    public void Rotary_positions_have_no_limit_and_only_distances_matter()
    {
        // A text behind a longer one that it cannot see would be as before; here the same text stands at 0 and, cached, at 700.
        ModelConfig config = Tiny with { Positions = Positions.Rope, NumDecoderLayers = 1, ContextLength = 16 };
        using Decoder model = new(config, 1);
        Spread(model, 3);
        model.eval();
        Tensor tokens_BT = Tokens(1, 16, 61, 6);
        Tensor expected_V = model.Forward(tokens_BT)[0, 15];
        using KeyValueCache cache = new(config, 1, 16);
        model.Forward(torch.cat([Tokens(1, 700, 61, 7), tokens_BT[.., ..15]], 1), cache);
        Assert.True(model.Forward(tokens_BT[.., 15..], cache)[0].allclose(expected_V, rtol: 1e-3, atol: 1e-3));
    }

    [Theory]
    [MemberData(nameof(Names))]
    public void In_bfloat16_the_logits_are_those_of_float32_to_its_precision(string option)
    {
        ModelConfig config = Options[option];
        using Decoder model = new(config, 1);
        Tensor tokens_BT = Tokens(2, 16, config.VocabularySize, 6);
        using (no_grad())
        {
            Tensor expected_BTV = model.Forward(tokens_BT);
            model.to(ScalarType.BFloat16);
            Tensor logits_BTV = model.Forward(tokens_BT);
            Assert.Equal(ScalarType.BFloat16, logits_BTV.dtype);
            Assert.InRange((logits_BTV.@float() - expected_BTV).norm().item<float>() / expected_BTV.norm().item<float>(), 1e-5f, 0.05f);
        }
    }

    [Fact]
    public void Dropout_draws_from_the_models_own_generator_only_and_generation_draws_nothing()
    {
        ModelConfig config = Tiny with { Positions = Positions.Rope, Dropout = 0.2, AttentionDropout = 0.2, ResidualDropout = 0.2 };
        using Decoder model = new(config, 1);
        Tensor tokens_BT = Tokens(2, 12, 61, 1), targets_BT = Tokens(2, 12, 61, 2);
        model.train();
        byte[] start = model.DropoutState;
        float first = Step(), second = Step();
        Assert.NotEqual(first, second);
        model.DropoutState = start;
        // What others draw from the global generator changes nothing.
        rand(1000);
        Assert.Equal(first, Step());
        Assert.Equal(second, Step());
        byte[] before = model.DropoutState;
        using KeyValueCache cache = new(config, 2, 32);
        Tensor generated_BV = model.Forward(tokens_BT, cache);
        Assert.Equal(before, model.DropoutState);
        model.eval();
        Assert.True(model.Forward(tokens_BT)[.., 11].allclose(generated_BV, rtol: 1e-4, atol: 1e-4));
        Assert.Equal(before, model.DropoutState);

        float Step() => model.Loss(tokens_BT, targets_BT).item<float>();
    }

    [Theory]
    [MemberData(nameof(Names))]
    public void Live_tensors_stay_level_over_repeated_steps(string option)
    {
        ModelConfig config = Options[option] with { Dropout = 0.1, AttentionDropout = 0.1, ResidualDropout = 0.1 };
        using Decoder model = new(config, 1);
        Tensor tokens_BT = Tokens(2, 8, config.VocabularySize, 1), targets_BT = Tokens(2, 8, config.VocabularySize, 2);
        long? level = null;
        for (int i = 0; i < 12; i++)
        {
            using (NewDisposeScope())
            {
                model.train(i % 2 == 0);
                model.Loss(tokens_BT, targets_BT).backward();
                foreach ((_, Tensor parameter) in model.Parameters()) parameter.grad = null;
                using (no_grad()) model.LossPerToken(tokens_BT, targets_BT);
                model.Forward(tokens_BT);
            }
            if (i >= 2) Assert.Equal(level, DisposeScopeManager.Statistics.ThreadTotalLiveCount);
            level = DisposeScopeManager.Statistics.ThreadTotalLiveCount;
        }
    }

    [Theory]
    [MemberData(nameof(Names))]
    public void The_first_loss_is_within_a_tenth_of_ln_V(string option)
    {
        ModelConfig config = Options[option];
        using Decoder model = new(config, 5);
        float loss = model.Loss(Tokens(4, 20, config.VocabularySize, 1), Tokens(4, 20, config.VocabularySize, 2)).item<float>();
        Assert.InRange(loss / Math.Log(config.VocabularySize), 0.9, 1.1);
    }

    internal static ModelConfig RandomConfig(Random random)
    {
        int keys = random.Next(1, 4), queries = keys * random.Next(1, 4), head = 2 * random.Next(4, 8);
        bool layerNorm = random.Next(2) == 0;
        return new()
        {
            VocabularySize = random.Next(20, 150), EmbeddingDimensions = queries * head, NumQHeads = queries, NumKvHeads = keys, NumDecoderLayers = random.Next(1, 4),
            HiddenRatio = 1 << random.Next(3), HiddenMultipleOf = random.Next(2) * random.Next(1, 40), Positions = (Positions)random.Next(3), ContextLength = 20 + random.Next(10),
            RopeTheta = Math.Pow(10, 1 + (4 * random.NextDouble())), Norm = layerNorm ? Norm.LayerNorm : Norm.RmsNorm, NormBias = layerNorm && random.Next(2) == 0,
            NormEpsilon = Math.Pow(10, -7 + (4 * random.NextDouble())), Mlp = (Mlp)random.Next(3), LinearBias = random.Next(2) == 0, TiedHead = random.Next(2) == 0,
            VocabularyMultipleOf = random.Next(2) * 16,
        };
    }

    private static void AssertAgrees(ModelConfig config, ulong seed, string hint, bool training = false)
    {
        using DisposeScope scope = NewDisposeScope();
        using Decoder model = new(config, seed);
        Spread(model, seed);
        model.train(training);
        PlainNetwork plain = new(config, model.Parameters());
        Tensor tokens_BT = Tokens(3, 17, config.VocabularySize, seed), targets_BT = Tokens(3, 17, config.VocabularySize, seed + 1);
        targets_BT[1, ..5] = Decoder.IgnoredTarget;
        using Generator masks = new(0, CPU);
        Draw();
        Tensor expected_BTV = plain.Logits(tokens_BT, training ? masks : null);
        double difference = (model.Forward(tokens_BT).@double() - expected_BTV).abs().max().item<double>();
        Assert.True(difference <= 1e-4 * Math.Max(1, expected_BTV.abs().max().item<double>()), $"{hint}: the logits differ by {difference:E2}");
        Draw();
        Tensor expected = plain.Loss(tokens_BT, targets_BT, training ? masks : null), loss = model.Loss(tokens_BT, targets_BT);
        Assert.Equal(expected.item<double>(), loss.item<float>(), 1e-5 * Math.Max(1, expected.item<double>()));
        expected.backward();
        loss.backward();
        Assert.Equal(config.ParameterCount, model.CountParameters());
        Assert.Equal(ParameterShapes.Of(config).Select(p => (p.Name, string.Join(", ", p.Shape))), model.Parameters().Select(p => (p.Name, string.Join(", ", p.Parameter.shape))));
        double whole = plain.State.Values.Sum(p => p.grad!.norm().item<double>());
        foreach ((string name, Tensor parameter) in model.Parameters())
        {
            Tensor truth = plain.State[name].grad!;
            // A key's bias adds the same to all scores of a query, which softmax takes away again, unless a rotation lies between.
            bool vanishes = name.EndsWith("k_proj.bias", StringComparison.Ordinal) && config.Positions != Positions.Rope;
            double size = truth.norm().item<double>(), off = (parameter.grad!.@double() - truth).norm().item<double>();
            Assert.True(off <= (1e-4 * size) + (1e-7 * whole), $"{hint}: the gradient of {name} differs by {off:E2} of {size:E2}");
            Assert.True(vanishes || size > 0, $"{hint}: {name} has no gradient");
            Assert.True(parameter.grad!.isfinite().all().item<bool>(), $"{hint}: {name}");
        }

        void Draw()
        {
            using Tensor state = tensor(model.DropoutState, ScalarType.Byte);
            masks.set_state(state);
        }
    }

    // Far from where training starts: norms and biases that matter, sharp attention.
    internal static void Spread(Decoder model, ulong seed)
    {
        using Generator generator = new(seed + 77, CPU);
        using (no_grad())
        {
            foreach ((string name, Tensor parameter) in model.Parameters())
            {
                if (parameter.dim() == 2) parameter.normal_(0, name.Contains("embeddings", StringComparison.Ordinal) ? 1 : 1.5 / Math.Sqrt(parameter.shape[1]), generator);
                else parameter.normal_(name.EndsWith("weight", StringComparison.Ordinal) ? 1 : 0, 0.3, generator);
            }
        }
    }

    private static Tensor Tokens(int rows, int count, int vocabulary, ulong seed)
    {
        using Generator generator = new(seed, CPU);
        return randint(0, vocabulary, [rows, count], ScalarType.Int64, generator: generator);
    }
}
