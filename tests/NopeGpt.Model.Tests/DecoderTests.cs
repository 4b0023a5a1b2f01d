using NopeGpt.Model.Native;
using TorchSharp;
using static TorchSharp.torch;
using static TorchSharp.torch.nn;

namespace NopeGpt.Model.Tests;

public sealed class DecoderTests : IDisposable
{
    private static readonly ModelConfig Tiny = new() { VocabularySize = 61, EmbeddingDimensions = 48, NumQHeads = 6, NumKvHeads = 2, NumDecoderLayers = 3 };

    private readonly DisposeScope _scope;

    public DecoderTests()
    {
        TorchRuntime.Load();
        _scope = NewDisposeScope();
    }

    public void Dispose() => _scope.Dispose();

    [Fact]
    public void The_state_has_the_names_and_shapes_of_the_reference()
    {
        using Decoder model = new(Tiny with { NumDecoderLayers = 1 }, 1);
        Assert.Equal(
            [
                "decoder.layers.0.norm1.weight [48]",
                "decoder.layers.0.norm2.weight [48]",
                "decoder.layers.0.stage1.k_proj.weight [16, 48]",
                "decoder.layers.0.stage1.out_proj.weight [48, 48]",
                "decoder.layers.0.stage1.q_proj.weight [48, 48]",
                "decoder.layers.0.stage1.v_proj.weight [16, 48]",
                "decoder.layers.0.stage2.linear1.weight [192, 48]",
                "decoder.layers.0.stage2.linear2.weight [48, 192]",
                "token_classifier.norm.weight [48]",
                "token_embeddings.weight [61, 48]",
            ],
            model.Parameters().Select(p => $"{p.Name} [{string.Join(", ", p.Parameter.shape)}]").Order(StringComparer.Ordinal));
    }

    [Theory]
    [InlineData(64, 4, 4, 1, 1)]
    [InlineData(48, 6, 2, 3, 4)]
    [InlineData(96, 3, 1, 2, 2)]
    public void The_parameters_are_as_many_as_the_config_says(int dimensions, int queries, int keys, int layers, int ratio)
    {
        ModelConfig config = new()
        {
            VocabularySize = 100, EmbeddingDimensions = dimensions, NumQHeads = queries, NumKvHeads = keys, NumDecoderLayers = layers, HiddenRatio = ratio,
        };
        using Decoder model = new(config, 1);
        Assert.Equal(config.ParameterCount, model.CountParameters());
    }

    [Fact]
    public void A_config_with_problems_is_refused_with_all_of_them()
    {
        ArgumentException error = Assert.Throws<ArgumentException>(() => new Decoder(Tiny with { NumQHeads = 5, HiddenRatio = 3 }, 1));
        Assert.Contains("embedding_dimensions = 48", error.Message);
        Assert.Contains("hidden_ratio = 3", error.Message);
    }

    [Theory]
    [InlineData(64, 256, 2)]
    [InlineData(64, 8192, 8)]
    [InlineData(192, 256, 4)]
    [InlineData(192, 4096, 4)]
    [InlineData(384, 256, 6)]
    [InlineData(384, 8192, 1)]
    [InlineData(768, 512, 2)]
    public void The_first_loss_is_within_a_tenth_of_ln_V(int dimensions, int vocabulary, int layers)
    {
        ModelConfig config = new()
        {
            VocabularySize = vocabulary, EmbeddingDimensions = dimensions, NumQHeads = dimensions / 32, NumKvHeads = dimensions / 64, NumDecoderLayers = layers,
        };
        for (ulong seed = 0; seed < 3; seed++)
        {
            using Decoder model = new(config, seed);
            float loss = model.Loss(Tokens(2, 64, vocabulary, seed), Tokens(2, 64, vocabulary, seed + 100)).item<float>();
            Assert.InRange(loss / Math.Log(vocabulary), 0.9, 1.1);
        }
    }

    [Fact]
    public void The_same_seed_gives_the_same_parameters_and_another_seed_others()
    {
        using Decoder one = new(Tiny, 5), same = new(Tiny, 5), other = new(Tiny, 6);
        foreach (((string name, Tensor parameter), (_, Tensor equal), (_, Tensor different)) in one.Parameters().Zip(same.Parameters(), other.Parameters()))
        {
            Assert.True(parameter.equal(equal).all().item<bool>(), name);
            if (parameter.dim() == 2) Assert.False(parameter.allclose(different), name);
        }
    }

    [Fact]
    public void A_token_does_not_see_the_ones_after_it()
    {
        using Decoder model = new(Tiny, 1);
        Tensor tokens_BT = Tokens(2, 20, 61), changed_BT = tokens_BT.clone();
        changed_BT[.., 12..] = 60 - changed_BT[.., 12..];
        Tensor logits_BTV = model.Forward(tokens_BT), after_BTV = model.Forward(changed_BT);
        Assert.True(logits_BTV[.., ..12].allclose(after_BTV[.., ..12], atol: 1e-6));
        Assert.False(logits_BTV[.., 12..].allclose(after_BTV[.., 12..], atol: 1e-6));
    }

    [Theory]
    [InlineData(6)]
    [InlineData(2)]
    [InlineData(1)]
    public void Attention_agrees_with_the_formula_written_out(int keyHeads)
    {
        using Decoder model = new(Tiny with { NumKvHeads = keyHeads, NumDecoderLayers = 1 }, 3);
        using (no_grad())
            foreach ((_, Tensor parameter) in model.Parameters()) if (parameter.dim() == 2) parameter.mul_(10);
        Dictionary<string, Tensor> state = model.Parameters().ToDictionary(p => p.Name, p => p.Parameter);
        Tensor tokens_BT = Tokens(2, 9, 61);
        Tensor x_BTd = state["token_embeddings.weight"][tokens_BT];
        Tensor normed_BTd = RmsNorm(x_BTd, state["decoder.layers.0.norm1.weight"]);
        Tensor q = normed_BTd.matmul(state["decoder.layers.0.stage1.q_proj.weight"].T);
        Tensor k = normed_BTd.matmul(state["decoder.layers.0.stage1.k_proj.weight"].T);
        Tensor v = normed_BTd.matmul(state["decoder.layers.0.stage1.v_proj.weight"].T);
        List<Tensor> heads = [];
        for (int head = 0; head < 6; head++)
        {
            int shared = head / (6 / keyHeads);
            Tensor scores = q[.., .., (head * 8)..((head + 1) * 8)].matmul(k[.., .., (shared * 8)..((shared + 1) * 8)].transpose(1, 2)) / Math.Sqrt(8);
            scores = scores.masked_fill(ones(9, 9, ScalarType.Bool).triu(1), float.NegativeInfinity);
            heads.Add(scores.softmax(-1).matmul(v[.., .., (shared * 8)..((shared + 1) * 8)]));
        }
        x_BTd = x_BTd + torch.cat(heads, -1).matmul(state["decoder.layers.0.stage1.out_proj.weight"].T);
        Tensor hidden = functional.silu(RmsNorm(x_BTd, state["decoder.layers.0.norm2.weight"]).matmul(state["decoder.layers.0.stage2.linear1.weight"].T));
        x_BTd = x_BTd + hidden.matmul(state["decoder.layers.0.stage2.linear2.weight"].T);
        Tensor expected_BTV = RmsNorm(x_BTd, state["token_classifier.norm.weight"]).matmul(state["token_embeddings.weight"].T);
        Assert.True(expected_BTV.allclose(model.Forward(tokens_BT), rtol: 1e-4, atol: 1e-4));

        static Tensor RmsNorm(Tensor x, Tensor weight) => x / (x.square().mean([-1], keepdim: true) + 1.1920929e-7).sqrt() * weight;
    }

    [Fact]
    public void The_loss_is_the_mean_over_the_targets_that_count()
    {
        using Decoder model = new(Tiny, 1);
        Tensor tokens_BT = Tokens(3, 10, 61), targets_BT = Tokens(3, 10, 61, 8);
        targets_BT[0, ..4] = Decoder.IgnoredTarget;
        targets_BT[2, 5] = Decoder.IgnoredTarget;
        Tensor logP_BTV = functional.log_softmax(model.Forward(tokens_BT), -1);
        Tensor counted_BT = targets_BT.ne(Decoder.IgnoredTarget);
        Tensor expected_BT = logP_BTV.gather(2, targets_BT.clamp(min: 0).unsqueeze(2)).squeeze(2).neg() * counted_BT;
        Assert.True(expected_BT.allclose(model.LossPerToken(tokens_BT, targets_BT), atol: 1e-5));
        Tensor loss = model.Loss(tokens_BT, targets_BT);
        Assert.Empty(loss.shape);
        Assert.Equal(expected_BT.sum().item<float>() / 25, loss.item<float>(), 1e-5);
    }

    [Fact]
    public void The_loss_in_chunks_and_its_gradients_are_those_of_all_logits_at_once()
    {
        // Three chunks of tokens at this vocabulary, the last one short.
        using Decoder model = new(Tiny with { VocabularySize = 8192 }, 1);
        Tensor tokens_BT = Tokens(2, 150, 8192), targets_BT = Tokens(2, 150, 8192, 8);
        targets_BT[1, ..7] = Decoder.IgnoredTarget;
        Tensor expected = functional.cross_entropy(model.Forward(tokens_BT).flatten(0, 1), targets_BT.flatten());
        (expected * 3).backward();
        Dictionary<string, Tensor> gradients = model.Parameters().ToDictionary(p => p.Name, p => p.Parameter.grad!.clone());
        foreach ((_, Tensor parameter) in model.Parameters()) parameter.grad = null;
        Tensor loss = model.Loss(tokens_BT, targets_BT);
        (loss * 3).backward();
        Assert.Equal(expected.item<float>(), loss.item<float>(), 1e-5);
        Assert.Equal(expected.item<float>(), model.LossPerToken(tokens_BT, targets_BT).sum().item<float>() / 293, 1e-4);
        foreach ((string name, Tensor parameter) in model.Parameters())
            Assert.True((parameter.grad! - gradients[name]).norm().item<float>() <= 1e-5 * gradients[name].norm().item<float>(), name);
        using (no_grad()) Assert.Equal(loss.item<float>(), model.Loss(tokens_BT, targets_BT).item<float>());
    }

    [Fact]
    public void Where_no_target_counts_the_loss_and_its_gradients_are_zero()
    {
        using Decoder model = new(Tiny, 1);
        Tensor loss = model.Loss(Tokens(1, 5, 61), full([1, 5], Decoder.IgnoredTarget, ScalarType.Int64));
        loss.backward();
        Assert.Equal(0, loss.item<float>());
        Assert.All(model.Parameters(), p => Assert.Equal(0, p.Parameter.grad!.abs().max().item<float>()));
    }

    [Fact]
    public void Dropout_leaves_out_whole_tokens_in_training_only_and_its_state_can_be_restored()
    {
        using Decoder model = new(Tiny with { Dropout = 0.5, NumDecoderLayers = 1 }, 1), without = new(Tiny with { NumDecoderLayers = 1 }, 1);
        Tensor tokens_BT = Tokens(4, 50, 61);
        model.eval();
        Assert.True(model.Forward(tokens_BT).allclose(without.Forward(tokens_BT)));
        model.train();
        byte[] state = model.DropoutState;
        Tensor first_BTV = model.Forward(tokens_BT), second_BTV = model.Forward(tokens_BT);
        Assert.False(first_BTV.allclose(second_BTV));
        model.DropoutState = state;
        Assert.True(first_BTV.allclose(model.Forward(tokens_BT), rtol: 0, atol: 0));
        // Without its MLP a token's logits are those of a model whose linear2 is zero.
        using (no_grad()) without.Parameters().Single(p => p.Name.EndsWith("linear2.weight", StringComparison.Ordinal)).Parameter.zero_();
        Tensor left_BT = first_BTV.sub(without.Forward(tokens_BT)).abs().amax([-1]).lt(1e-6);
        Assert.InRange(left_BT.sum().item<long>(), 70, 130);
    }

    [Fact]
    public void Dropout_keeps_the_expected_size_of_the_mlp()
    {
        using Decoder model = new(Tiny with { Dropout = 0.3, NumDecoderLayers = 1 }, 1);
        model.train();
        using (no_grad()) model.Parameters().Single(p => p.Name.EndsWith("linear2.weight", StringComparison.Ordinal)).Parameter.mul_(0.001);
        // So small a branch passes the last norm almost linearly, so that the mean over many masks is the output without one.
        Tensor tokens_BT = full([1, 4000], 7, ScalarType.Int64);
        Tensor mean_V = model.Forward(tokens_BT).mean([0, 1]);
        model.eval();
        Tensor whole_V = model.Forward(tokens_BT).mean([0, 1]);
        using (no_grad()) model.Parameters().Single(p => p.Name.EndsWith("linear2.weight", StringComparison.Ordinal)).Parameter.zero_();
        Tensor none_V = model.Forward(tokens_BT).mean([0, 1]);
        double share = (mean_V.@double() - none_V).dot((whole_V - none_V).@double()).item<double>() / (whole_V - none_V).@double().square().sum().item<double>();
        Assert.Equal(1, share, 0.1);
    }

    [Fact]
    public void Live_tensors_stay_level_over_repeated_steps()
    {
        using Decoder model = new(Tiny with { Dropout = 0.1 }, 1);
        model.train();
        Tensor tokens_BT = Tokens(2, 8, 61), targets_BT = Tokens(2, 8, 61, 4);
        long? level = null;
        for (int i = 0; i < 50; i++)
        {
            using (NewDisposeScope())
            {
                model.Loss(tokens_BT, targets_BT).backward();
                foreach ((_, Tensor parameter) in model.Parameters()) parameter.grad = null;
                using (no_grad()) model.LossPerToken(tokens_BT, targets_BT);
                model.Forward(tokens_BT);
            }
            level ??= DisposeScopeManager.Statistics.ThreadTotalLiveCount;
            Assert.Equal(level, DisposeScopeManager.Statistics.ThreadTotalLiveCount);
        }
    }

    [Fact]
    public void A_tiny_model_learns_a_text_by_heart()
    {
        using Decoder model = new(Tiny, 1);
        Tensor text_BT = Tokens(1, 33, 61);
        Tensor tokens_BT = text_BT[.., ..32], targets_BT = text_BT[.., 1..];
        using optim.Optimizer optimizer = optim.AdamW(model.Parameters().Select(p => (TorchSharp.Modules.Parameter)p.Parameter), lr: 3e-3);
        float loss = 0;
        for (int i = 0; i < 150; i++)
        {
            using DisposeScope step = NewDisposeScope();
            optimizer.zero_grad();
            Tensor value = model.Loss(tokens_BT, targets_BT);
            value.backward();
            optimizer.step();
            loss = value.item<float>();
        }
        Assert.InRange(loss, 0, 0.05f);
    }

    private static Tensor Tokens(int rows, int count, int vocabulary, ulong seed = 3)
    {
        using Generator generator = new(seed, CPU);
        return randint(0, vocabulary, [rows, count], ScalarType.Int64, generator: generator);
    }
}
