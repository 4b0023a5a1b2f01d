using NopeGpt.Model.Native;
using NopeGpt.Model.Storage;
using NopeGpt.Tests;
using TorchSharp;
using static TorchSharp.torch;

namespace NopeGpt.Model.Tests;

/// <summary>Growing a model's vocabulary.</summary>
public sealed class ResizeTests : IDisposable
{
    private static readonly ModelConfig Tiny = new() { VocabularySize = 61, EmbeddingDimensions = 192, NumQHeads = 6, NumKvHeads = 2, NumDecoderLayers = 1 };

    private readonly DisposeScope _scope;

    public ResizeTests()
    {
        TorchRuntime.Load();
        _scope = NewDisposeScope();
    }

    public void Dispose() => _scope.Dispose();

    [Theory]
    [InlineData(true, 0)]
    [InlineData(false, 0)]
    [InlineData(true, 32)]
    [InlineData(false, 64)]
    public void Old_tokens_keep_their_logits_and_new_ones_are_drawn_from_N_0_1_over_d(bool tied, int multiple)
    {
        ModelConfig config = Tiny with { TiedHead = tied, VocabularyMultipleOf = multiple };
        using Decoder model = new(config, 1), again = new(config, 1), other = new(config, 1);
        (Tensor tokens_BT, Tensor targets_BT) = LoraTests.Batch(61, 2);
        Tensor before_BTV = model.Forward(tokens_BT);
        model.Loss(tokens_BT, targets_BT).backward();

        model.ResizeVocabulary(100, 5);
        again.ResizeVocabulary(100, 5);
        other.ResizeVocabulary(100, 6);
        Assert.Equal(config with { VocabularySize = 100 }, model.Config);
        Assert.Equal(model.Config.ParameterCount, model.CountParameters());
        Assert.Equal(model.WeightsHash(), again.WeightsHash());
        Assert.NotEqual(model.WeightsHash(), other.WeightsHash());
        Assert.True(model.Forward(tokens_BT)[.., .., ..61].allclose(before_BTV, rtol: 1e-5, atol: 1e-6));
        int tables = 0;
        foreach ((string name, Tensor parameter) in model.Parameters().Where(p => p.Name is "token_embeddings.weight" or "token_classifier.linear.weight"))
        {
            tables++;
            Assert.Equal([model.Config.PaddedVocabularySize, 192], parameter.shape);
            Assert.InRange(parameter[61..100].std().item<float>() * Math.Sqrt(192), 0.97, 1.03);
            Assert.InRange(parameter[61..100].mean().item<float>(), -0.005, 0.005);
            Assert.True(parameter.requires_grad);
            Assert.Null(parameter.grad);
        }
        Assert.Equal(tied ? 1 : 2, tables);
    }

    [Fact]
    public void A_grown_model_trains_and_is_saved_and_loaded_with_its_new_tokens()
    {
        using Decoder model = new(Tiny, 1);
        model.ResizeVocabulary(65, 2);
        (Tensor tokens_BT, Tensor targets_BT) = LoraTests.Batch(65, 3);
        tokens_BT[0, 0] = targets_BT[1, 1] = tensor(64L);
        model.Loss(tokens_BT, targets_BT).backward();
        Tensor gradient = model.Parameters().Single(p => p.Name == "token_embeddings.weight").Parameter.grad!;
        Assert.Equal([65, 192], gradient.shape);
        Assert.NotEqual(0, gradient[64].abs().sum().item<float>());

        using TemporaryFolder folder = new();
        model.Config.Write(folder["config.json"]);
        SafetensorsFile.Save(folder["model.safetensors"], model.Parameters());
        using Decoder loaded = Checkpoint.LoadModel(folder.Path);
        Assert.Equal(65, loaded.Config.VocabularySize);
        Assert.Equal(model.WeightsHash(), loaded.WeightsHash());
    }

    [Fact]
    public void A_vocabulary_never_shrinks_and_does_not_change_under_an_adapter()
    {
        using Decoder model = new(Tiny, 1);
        string hash = model.WeightsHash();
        Assert.Contains("61", Assert.Throws<ArgumentException>(() => model.ResizeVocabulary(60, 1)).Message);
        Assert.Contains("out of range", Assert.Throws<ArgumentException>(() => model.ResizeVocabulary(int.MaxValue, 1)).Message);
        model.ResizeVocabulary(61, 1);
        using Adapter adapter = Adapter.Create(model, new(), 1);
        model.Attach(adapter);
        Assert.Contains("Detach", Assert.Throws<InvalidOperationException>(() => model.ResizeVocabulary(62, 1)).Message);
        Assert.Equal(hash, model.WeightsHash());
    }

    [Fact]
    public void The_hash_of_a_model_covers_its_architecture_and_every_weight_but_not_how_it_is_trained()
    {
        using Decoder model = new(Tiny, 1), dropout = new(Tiny with { Dropout = 0.5, AttentionDropout = 0.1, ResidualDropout = 0.1 }, 1);
        using Decoder rotary = new(Tiny with { Positions = Positions.Rope }, 1);
        string hash = model.WeightsHash();
        Assert.Equal(64, hash.Length);
        Assert.Equal(hash, dropout.WeightsHash());
        Assert.NotEqual(hash, rotary.WeightsHash());
        foreach ((string name, Tensor parameter) in model.Parameters())
        {
            using IDisposable quiet = no_grad();
            Tensor last = parameter.view(-1)[^1], old = last.clone();
            last.add_(1);
            Assert.True(hash != model.WeightsHash(), name);
            last.copy_(old);
            Assert.Equal(hash, model.WeightsHash());
        }
    }
}
