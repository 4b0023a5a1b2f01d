using NopeGpt.Model.Native;
using NopeGpt.Model.Optimizers;
using TorchSharp;
using static TorchSharp.torch;

namespace NopeGpt.Model.Tests;

/// <summary>What adapters compute, and what they leave alone.</summary>
public sealed class LoraTests : IDisposable
{
    private static readonly ModelConfig Tiny = new() { VocabularySize = 61, EmbeddingDimensions = 48, NumQHeads = 6, NumKvHeads = 2, NumDecoderLayers = 2 };

    private static readonly Dictionary<string, ModelConfig> Architectures = new()
    {
        ["nope-gpt"] = Tiny,
        ["lil-lm"] = ModelPresets.Find("lil-lm-tiny").Config,
        ["gpt2"] = ModelPresets.Find("gpt2-tiny").Config,
        ["light-gpt"] = ModelPresets.Find("light-gpt-tiny").Config,
        ["own head, padded"] = Tiny with { TiedHead = false, VocabularyMultipleOf = 32 },
        ["padded"] = Tiny with { VocabularyMultipleOf = 32, Mlp = Mlp.Swiglu, LinearBias = true },
    };

    private readonly DisposeScope _scope;

    public LoraTests()
    {
        TorchRuntime.Load();
        _scope = NewDisposeScope();
    }

    public static TheoryData<string> Names => [.. Architectures.Keys];

    public void Dispose() => _scope.Dispose();

    [Theory]
    [MemberData(nameof(Names))]
    public void An_adapted_model_is_one_with_alpha_times_B_times_A_added_to_its_weights(string architecture)
    {
        ModelConfig config = Architectures[architecture];
        int seed = Random.Shared.Next();
        using Decoder model = new(config, (ulong)seed);
        using Adapter adapter = Drawn(model, new() { Rank = 3, Alpha = 1.7 }, seed, config.VocabularySize + 5);
        model.Attach(adapter, 0.6);
        (Tensor tokens_BT, Tensor targets_BT) = Batch(model.AdaptedConfig.VocabularySize, seed);
        Tensor loss = model.Loss(tokens_BT, targets_BT);
        loss.backward();

        (PlainNetwork plain, Dictionary<string, Tensor> leaves) = Plain(model, (adapter, 0.6));
        Tensor expected = plain.Loss(tokens_BT, targets_BT);
        expected.backward();
        Assert.True(model.Forward(tokens_BT).allclose(plain.Logits(tokens_BT).@float(), rtol: 1e-4, atol: 1e-4), $"seed {seed}");
        Assert.Equal(expected.item<double>(), loss.item<float>(), 1e-5);
        Assert.Equal(expected.item<double>(), model.LossPerToken(tokens_BT, targets_BT).mean().item<float>(), 1e-5);
        Assert.Equal(leaves.Keys.Order(), adapter.Parameters().Select(p => p.Name).Order());
        foreach ((string name, Tensor parameter) in adapter.Parameters())
        {
            Tensor wanted = leaves[name].grad!;
            Assert.True((parameter.grad!.@double() - wanted).norm().item<double>() <= 1e-4 * wanted.norm().item<double>(), $"seed {seed}, {name}");
        }
    }

    [Theory]
    [MemberData(nameof(Names))]
    public void A_new_adapter_and_one_of_strength_0_and_a_detached_one_change_not_a_bit(string architecture)
    {
        ModelConfig config = Architectures[architecture];
        using Decoder model = new(config, 1);
        (Tensor tokens_BT, Tensor targets_BT) = Batch(config.VocabularySize, 1);
        Tensor bare = model.Forward(tokens_BT), bareLoss = model.Loss(tokens_BT, targets_BT);
        string hash = model.WeightsHash();

        using Adapter fresh = Adapter.Create(model, new(), 2), drawn = Drawn(model, new(), 3, config.VocabularySize + 4);
        model.Attach(fresh);
        AssertSame(bare, model.Forward(tokens_BT));
        model.Attach(drawn, 0);
        AssertSame(bare, model.Forward(tokens_BT));
        AssertSame(bareLoss, model.Loss(tokens_BT, targets_BT));
        model.Attach(drawn, 1);
        Assert.Equal(config.VocabularySize + 4, model.Forward(tokens_BT).shape[^1]);
        Assert.False(bare.equal(model.Forward(tokens_BT).narrow(-1, 0, config.VocabularySize)).all().item<bool>());
        Assert.True(model.Detach(drawn));
        Assert.True(model.Detach(fresh));
        Assert.False(model.Detach(fresh));
        AssertSame(bare, model.Forward(tokens_BT));
        Assert.Equal(hash, model.WeightsHash());
        Assert.All(model.Parameters(), p => Assert.True(p.Parameter.requires_grad));
        Assert.Equal(model.Parameters().Select(p => p.Name), model.TrainedParameters().Select(p => p.Name));
    }

    [Theory]
    [MemberData(nameof(Names))]
    public void Several_adapters_add_up_each_with_its_strength_and_merging_them_gives_the_same(string architecture)
    {
        ModelConfig config = Architectures[architecture];
        using Decoder model = new(config, 1);
        int grown = config.VocabularySize + 3;
        using Adapter one = Drawn(model, new() { Rank = 2 }, 2, grown), two = Drawn(model, new() { Rank = 5, Alpha = 0.5, Projections = Projections.QProj | Projections.Linear2 }, 3, grown),
            three = Drawn(model, new() { FreezeTokenEmbeddings = true }, 4), four = Drawn(model, new() { Rank = 1 }, 5);
        (Adapter, double)[] all = [(one, 0.25), (two, 0.5), (three, 1.5), (four, 0.125)];
        foreach ((Adapter adapter, double strength) in all) model.Attach(adapter, strength);
        (Tensor tokens_BT, Tensor targets_BT) = Batch(grown, 6);
        Tensor attached = model.Forward(tokens_BT);
        double loss = model.Loss(tokens_BT, targets_BT).item<float>();
        (PlainNetwork plain, _) = Plain(model, all);
        Assert.True(attached.allclose(plain.Logits(tokens_BT).@float(), rtol: 1e-4, atol: 1e-4));

        model.Merge();
        Assert.Empty(model.Adapters);
        Assert.Equal(grown, model.Config.VocabularySize);
        Assert.Equal([model.Config.PaddedVocabularySize, config.EmbeddingDimensions], model.Parameters().Single(p => p.Name == "token_embeddings.weight").Parameter.shape);
        Assert.Equal(model.Config.ParameterCount, model.CountParameters());
        Assert.True(model.Forward(tokens_BT).allclose(attached, rtol: 1e-5, atol: 2e-5));
        Assert.Equal(loss, model.Loss(tokens_BT, targets_BT).item<float>(), 1e-5);
        Assert.Throws<ArgumentException>(() => model.Attach(one));
    }

    [Theory]
    [MemberData(nameof(Names))]
    public void Only_what_is_chosen_trains_and_the_base_stays_bit_for_bit(string architecture)
    {
        ModelConfig config = Architectures[architecture];
        foreach (bool frozen in (bool[])[false, true])
        {
            using Decoder model = new(config, 1);
            LoraConfig lora = new() { Rank = 2, Projections = Projections.VProj | Projections.Linear1, Dropout = 0.1, FreezeTokenEmbeddings = frozen };
            using Adapter adapter = Adapter.Create(model, lora, 2, config.VocabularySize + 2);
            model.Attach(adapter);
            string hash = model.WeightsHash();
            IReadOnlyList<(string Name, Tensor Parameter)> trained = model.TrainedParameters();
            Assert.Equal(lora.CountTrained(config, config.VocabularySize + 2), (
                trained.Where(t => t.Name.Contains(".lora_", StringComparison.Ordinal)).Sum(t => t.Parameter.numel()),
                trained.Where(t => !t.Name.Contains(".lora_", StringComparison.Ordinal)).Sum(t => t.Parameter.numel())));
            Tensor embedding = adapter.Embedding_Pd!.clone();
            using AdamW optimizer = new(trained, new AdamWOptions());
            (Tensor tokens_BT, Tensor targets_BT) = Batch(config.VocabularySize + 2, 3);
            model.train();
            double first = 0, last = 0;
            for (int i = 0; i < 30; i++)
            {
                optimizer.ZeroGrad();
                Tensor loss = model.Loss(tokens_BT, targets_BT);
                loss.backward();
                optimizer.Step(0.02);
                (first, last) = (i == 0 ? loss.item<float>() : first, loss.item<float>());
            }
            Assert.True(last < first - 0.1, $"{first} {last}");
            Assert.Equal(frozen, embedding.equal(adapter.Embedding_Pd).all().item<bool>());
            Assert.All(model.Parameters(), p => Assert.Null(p.Parameter.grad));
            Assert.Equal(hash, model.WeightsHash());
        }
    }

    [Fact]
    public void An_adapter_that_does_not_train_helps_another_one()
    {
        using Decoder model = new(Tiny, 1);
        using Adapter helper = Drawn(model, new(), 2), learner = Drawn(model, new() { FreezeTokenEmbeddings = true }, 3);
        helper.Trains = false;
        model.Attach(helper);
        model.Attach(learner);
        (Tensor tokens_BT, Tensor targets_BT) = Batch(61, 4);
        model.Loss(tokens_BT, targets_BT).backward();
        Assert.All(model.TrainedParameters(), p => Assert.NotNull(p.Parameter.grad));
        Assert.Equal(learner.Parameters().Select(p => "adapters.1." + p.Name), model.TrainedParameters().Select(p => p.Name));
        Assert.All(helper.Tensors(), t => Assert.Null(t.Tensor.grad));
    }

    [Theory]
    [MemberData(nameof(Names))]
    public void Cached_logits_with_adapters_are_those_of_the_whole_text(string architecture)
    {
        ModelConfig config = Architectures[architecture];
        using Decoder model = new(config, 1);
        model.eval();
        using Adapter one = Drawn(model, new() { Rank = 2 }, 2, config.VocabularySize + 3), two = Drawn(model, new() { Rank = 4 }, 3);
        model.Attach(one, 0.7);
        model.Attach(two, 0.4);
        (Tensor tokens_BT, _) = Batch(model.AdaptedConfig.VocabularySize, 4);
        Tensor whole_BTV = model.Forward(tokens_BT);
        using KeyValueCache cache = new(config, (int)tokens_BT.shape[0], 32);
        for (int start = 0, count = 5; start < tokens_BT.shape[1]; start += count, count = 1)
        {
            Tensor last_BV = model.Forward(tokens_BT.narrow(1, start, count), cache);
            Assert.True(last_BV.allclose(whole_BTV[.., start + count - 1], rtol: 1e-4, atol: 1e-4));
        }
    }

    [Fact]
    public void Generation_reads_and_writes_the_tokens_that_an_adapter_brings()
    {
        using Decoder model = new(Tiny, 1);
        using Adapter adapter = Drawn(model, new() { FreezeTokenEmbeddings = true }, 2, 64);
        TextRequest request = new([3, 63, 5], new() { Temperature = 0, RepeatPenalty = 0 }, 1, 8, []);
        Assert.Contains("63", Assert.Throws<ArgumentException>(() => BatchGeneration.Run(model, [request], 32)).Message);
        model.Attach(adapter);
        IReadOnlyList<SampledToken> tokens = BatchGeneration.Run(model, [request], 32)[0].Tokens;
        model.Merge();
        Assert.Equal(8, tokens.Count);
        Assert.Equal(tokens.Select(t => t.Id), BatchGeneration.Run(model, [request], 32)[0].Tokens.Select(t => t.Id));
        long[] whole = [3, 63, 5, .. tokens.Select(t => (long)t.Id)];
        Tensor likeliest_T = model.Forward(tensor(whole).unsqueeze(0)).argmax(-1)[0];
        Assert.Equal(whole[3..], likeliest_T[2..^1].data<long>().ToArray());
    }

    [Fact]
    public void Dropout_of_an_adapter_draws_from_the_models_generator_and_only_in_training()
    {
        using Decoder model = new(Tiny, 1);
        using Adapter adapter = Drawn(model, new() { Rank = 4, Dropout = 0.5 }, 2);
        model.Attach(adapter);
        (Tensor tokens_BT, _) = Batch(61, 3);
        model.train();
        byte[] state = model.DropoutState;
        Tensor first = model.Forward(tokens_BT), second = model.Forward(tokens_BT);
        model.DropoutState = state;
        AssertSame(first, model.Forward(tokens_BT));
        Assert.False(first.allclose(second));
        model.eval();
        AssertSame(model.Forward(tokens_BT), model.Forward(tokens_BT));
        Assert.False(first.allclose(model.Forward(tokens_BT)));
    }

    [Fact]
    public void Dropout_leaves_out_elements_of_what_goes_into_A_and_scales_the_others()
    {
        Linear linear = new(5, 7, hasBias: true);
        Tensor x_Ni = randn(3, 7), a_ri = randn(2, 7), b_or = randn(5, 2);
        using (no_grad())
        {
            linear.weight.normal_();
            linear.bias!.normal_();
        }
        linear.Added = [new(a_ri, b_or, 1.5, 0.25)];
        Tensor kept_Ni = empty(3, 7).bernoulli_(0.75, new Generator(9)) / 0.75;
        Tensor expected = x_Ni.matmul(linear.weight.T) + linear.bias! + (1.5 * (x_Ni * kept_Ni).matmul(a_ri.T).matmul(b_or.T));
        Assert.True(linear.Apply(x_Ni, new Generator(9)).allclose(expected, rtol: 1e-5, atol: 1e-5));
    }

    [Fact]
    public void A_is_drawn_from_N_0_1_over_rank_by_the_seed_and_B_is_0()
    {
        using Decoder model = new(Tiny with { EmbeddingDimensions = 192 }, 1);
        using Adapter one = Adapter.Create(model, new() { Rank = 16 }, 7), same = Adapter.Create(model, new() { Rank = 16 }, 7), other = Adapter.Create(model, new() { Rank = 16 }, 8);
        foreach (((string name, Tensor tensor), (_, Tensor equal), (_, Tensor different)) in one.Tensors().Zip(same.Tensors(), other.Tensors()))
        {
            AssertSame(tensor, equal);
            if (name.EndsWith(".lora_b", StringComparison.Ordinal)) Assert.Equal(0, tensor.abs().sum().item<float>());
            if (!name.EndsWith(".lora_a", StringComparison.Ordinal)) continue;
            Assert.False(tensor.allclose(different));
            Assert.InRange(tensor.std().item<float>(), 0.22, 0.28);
            Assert.InRange(tensor.mean().item<float>(), -0.03, 0.03);
        }
    }

    [Fact]
    public void Rank_8_on_the_400M_model_trains_as_many_parameters_as_published()
    {
        ModelConfig chat = ModelPresets.Find("nope-gpt-400m-chat").Config, bare = ModelPresets.Find("nope-gpt-400m").Config;
        Assert.Equal((3_379_200, 64_334_080), new LoraConfig { Rank = 8 }.CountTrained(chat));
        Assert.Equal((3_379_200, 64_334_080), new LoraConfig { Rank = 8 }.CountTrained(bare, 50_261));
        Assert.Equal((3_379_200, 0), new LoraConfig { Rank = 8, FreezeTokenEmbeddings = true }.CountTrained(bare, 50_261));
    }

    [Fact]
    public void Wrong_settings_are_refused_all_at_once()
    {
        using Decoder model = new(Tiny, 1);
        LoraConfig wrong = new() { Rank = 0, Alpha = double.NaN, Dropout = 1, Projections = Projections.Linear3 };
        ArgumentException error = Assert.Throws<ArgumentException>(() => Adapter.Create(model, wrong, 1, 60));
        foreach (string part in (string[])["rank = 0", "alpha = NaN", "dropout = 1", "linear3", "swiglu", "vocabulary_size = 60", "61"]) Assert.Contains(part, error.Message);
        Assert.Contains("projections", Assert.Single(new LoraConfig { Projections = Projections.None }.Problems()).Field);
        Assert.Empty(new LoraConfig().Problems(Tiny));
    }

    [Fact]
    public void An_adapter_that_cannot_be_attached_leaves_everything_as_it_was()
    {
        using Decoder model = new(Tiny, 1), wider = new(Tiny with { NumKvHeads = 3 }, 1);
        using Adapter one = Drawn(model, new(), 2, 63), two = Drawn(model, new(), 3, 64), other = Drawn(wider, new(), 4);
        model.Attach(one, 0.5);
        Assert.Contains("63 and 64", Assert.Throws<ArgumentException>(() => model.Attach(two)).Message);
        Assert.Contains("\"num_kv_heads\": 3", Assert.Throws<ArgumentException>(() => model.Attach(other)).Message);
        foreach (double strength in (double[])[-0.5, double.NaN, double.PositiveInfinity])
            Assert.Contains("strength", Assert.Throws<ArgumentException>(() => model.Attach(one, strength)).Message);
        Assert.Contains("twice", Assert.Throws<ArgumentException>(() => model.AttachOnly([new(one), new(one)])).Message);
        Assert.Equal([new AttachedAdapter(one, 0.5)], model.Adapters);
        Assert.Equal(63, model.AdaptedConfig.VocabularySize);
    }

    [Fact]
    public void No_tensor_is_left_behind_by_attaching_training_generating_and_detaching()
    {
        using Decoder model = new(Tiny, 1);
        using Adapter one = Drawn(model, new() { Dropout = 0.1 }, 2, 64), two = Drawn(model, new(), 3);
        (Tensor tokens_BT, Tensor targets_BT) = Batch(64, 4);
        using AdamW optimizer = new([.. one.Parameters().Concat(two.Parameters().Select(p => ("two." + p.Name, p.Parameter)))], new AdamWOptions());
        Round();
        long before = DisposeScopeManager.Statistics.ThreadTotalLiveCount;
        for (int i = 0; i < 5; i++) Round();
        Assert.Equal(before, DisposeScopeManager.Statistics.ThreadTotalLiveCount);

        void Round()
        {
            using DisposeScope round = NewDisposeScope();
            model.Attach(one, 0.5);
            model.Attach(two, 0.25);
            model.train();
            optimizer.ZeroGrad();
            model.Loss(tokens_BT, targets_BT).backward();
            optimizer.Step(1e-4);
            model.eval();
            using KeyValueCache cache = new(Tiny, 2, 32);
            model.Forward(tokens_BT, cache);
            model.LossPerToken(tokens_BT, targets_BT);
            model.AttachOnly([]);
            using Adapter fresh = Adapter.Create(model, new(), 1, 70);
            model.Attach(fresh);
            model.Detach(fresh);
        }
    }

    /// <summary>An adapter whose every tensor has values.</summary>
    internal static Adapter Drawn(Decoder model, LoraConfig config, int seed, int? vocabularySize = null)
    {
        Adapter adapter = Adapter.Create(model, config, (ulong)seed, vocabularySize);
        using Generator generator = new((ulong)seed + 100);
        using (no_grad())
        {
            foreach ((string name, Tensor tensor) in adapter.Tensors())
                if (name.EndsWith(".lora_b", StringComparison.Ordinal)) tensor.normal_(0, 0.1, generator);
                else if (!name.EndsWith(".lora_a", StringComparison.Ordinal)) tensor.normal_(0, 0.2, generator);
        }
        return adapter;
    }

    internal static (Tensor Tokens_BT, Tensor Targets_BT) Batch(int vocabulary, int seed)
    {
        using Generator generator = new((ulong)seed);
        return (randint(0, vocabulary, [2, 11], ScalarType.Int64, generator: generator), randint(0, vocabulary, [2, 11], ScalarType.Int64, generator: generator));
    }

    /// <summary>The adapted network in double precision with its weights made by the formulas, and the leaves that the adapters' tensors are in it.</summary>
    private static (PlainNetwork Network, Dictionary<string, Tensor> Leaves) Plain(Decoder model, params (Adapter Adapter, double Strength)[] adapters)
    {
        ModelConfig config = model.AdaptedConfig with { VocabularyMultipleOf = 0 };
        PlainNetwork plain = new(config, model.Parameters());
        Dictionary<string, Tensor> leaves = [];
        int small = model.Config.VocabularySize;
        double grownStrength = adapters.Where(a => a.Adapter.VocabularySize > small).Sum(a => a.Strength);
        foreach (string name in (string[])["token_embeddings.weight", "token_classifier.linear.weight"])
        {
            if (!plain.State.TryGetValue(name, out Tensor? table)) continue;
            Tensor known = table[..small], grown = zeros(config.VocabularySize - small, config.EmbeddingDimensions, ScalarType.Float64);
            foreach ((Adapter adapter, double strength) in adapters)
            {
                Tensor? own = adapter.Tensors().FirstOrDefault(t => t.Name == name).Tensor;
                if (own is null) continue;
                Tensor leaf = leaves[name] = own.detach().@double().requires_grad_();
                known = known + (strength * (leaf[..small] - table[..small]));
                if (adapter.VocabularySize > small) grown = grown + (strength / grownStrength * leaf[small..config.VocabularySize]);
            }
            plain.State[name] = cat([known, grown]);
        }
        foreach ((Adapter adapter, double strength) in adapters)
        {
            Dictionary<string, Tensor> tensors = adapter.Tensors().Where(t => t.Name.Contains(".lora_", StringComparison.Ordinal)).ToDictionary(t => t.Name, t => t.Tensor.detach().@double().requires_grad_());
            foreach (string projection in tensors.Keys.Where(k => k.EndsWith(".lora_a", StringComparison.Ordinal)).Select(k => k[..^7]))
                plain.State[projection + ".weight"] = plain.State[projection + ".weight"] + (strength * adapter.Config.Alpha * tensors[projection + ".lora_b"].matmul(tensors[projection + ".lora_a"]));
            foreach ((string name, Tensor leaf) in tensors) leaves[name] = leaf;
        }
        return (plain, leaves);
    }

    private static void AssertSame(Tensor expected, Tensor actual) => Assert.True(expected.equal(actual).all().item<bool>());
}
