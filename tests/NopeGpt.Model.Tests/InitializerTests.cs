using NopeGpt.Model.Native;
using TorchSharp;
using static TorchSharp.torch;

namespace NopeGpt.Model.Tests;

public sealed class InitializerTests : IDisposable
{
    // L = 8 and d = 256, so that 0.02 / sqrt(2L) = 0.005 and 1 / sqrt(d) = 0.0625; h = 1024, so that linear2's 1 / sqrt(h) = 0.03125.
    private static readonly ModelConfig Everything = new()
    {
        VocabularySize = 500, EmbeddingDimensions = 256, NumQHeads = 4, NumKvHeads = 4, NumDecoderLayers = 8, Positions = Positions.Learned, ContextLength = 300,
        Norm = Norm.LayerNorm, NormBias = true, Mlp = Mlp.Swiglu, LinearBias = true, TiedHead = false, VocabularyMultipleOf = 64,
    };

    private readonly DisposeScope _scope;

    public InitializerTests()
    {
        TorchRuntime.Load();
        _scope = NewDisposeScope();
    }

    public void Dispose() => _scope.Dispose();

    [Theory]
    [InlineData(Initialization.Default, 0.02, 0.02, 0.0625, 0.005, 0.005, 0, 0)]
    [InlineData(Initialization.LilLm, 0.0625, 0.0625, 0.0625, 0.005, 0.005, 0, 0)]
    [InlineData(Initialization.Gpt2, 0.02, 0.02, 0.02, 0.02, 0.02, 0, 0)]
    public void Normal_schemes_have_the_spread_of_their_table(
        Initialization scheme, double embedding, double head, double inner, double attention, double mlp, double bias, double mean)
    {
        using Decoder model = new(Everything with { Initialization = scheme }, 1);
        foreach ((string name, Tensor parameter) in model.Parameters())
        {
            if (name.Contains("norm", StringComparison.Ordinal)) AssertAll(name, parameter, name.EndsWith("bias", StringComparison.Ordinal) ? 0 : 1);
            else if (name.EndsWith("bias", StringComparison.Ordinal)) AssertAll(name, parameter, bias);
            else
            {
                double expected = name.Contains("embeddings", StringComparison.Ordinal) ? embedding
                    : name.Contains("token_classifier", StringComparison.Ordinal) ? head
                    : name.Contains("out_proj", StringComparison.Ordinal) ? attention
                    : name.Contains("linear2", StringComparison.Ordinal) ? mlp : inner;
                AssertMoments(name, parameter, mean, expected);
                // A normal distribution has 4.55 % beyond two deviations, a uniform one none.
                Assert.InRange(parameter.abs().gt(2 * expected).to(ScalarType.Float32).mean().item<float>(), 0.040f, 0.051f);
            }
        }
    }

    [Theory]
    [InlineData(Initialization.NopeGpt)]
    [InlineData(Initialization.LightGpt)]
    public void The_references_of_PyTorchs_defaults_have_a_wide_embedding_and_uniform_projections(Initialization scheme)
    {
        using Decoder model = new(Everything with { Initialization = scheme }, 1);
        foreach ((string name, Tensor parameter) in model.Parameters())
        {
            if (name.Contains("norm", StringComparison.Ordinal)) AssertAll(name, parameter, name.EndsWith("bias", StringComparison.Ordinal) ? 0 : 1);
            else if (name.Contains("embeddings", StringComparison.Ordinal)) AssertMoments(name, parameter, 0, 1);
            else
            {
                double bound = name.Contains("linear2", StringComparison.Ordinal) ? 1 / Math.Sqrt(Everything.HiddenDimensions) : 0.0625;
                Assert.InRange(parameter.abs().max().item<float>(), 0.9 * bound, bound);
                if (parameter.dim() == 2) AssertMoments(name, parameter, 0, bound / Math.Sqrt(3));
            }
        }
    }

    [Fact]
    public void A_tied_head_starts_as_the_embedding_of_its_scheme()
    {
        foreach ((Initialization scheme, double expected) in ((Initialization, double)[])[(Initialization.Default, 0.02), (Initialization.NopeGpt, 1), (Initialization.LilLm, 0.0625), (Initialization.Gpt2, 0.02)])
        {
            using Decoder model = new(Everything with { TiedHead = true, Initialization = scheme, NumDecoderLayers = 1 }, 1);
            AssertMoments(scheme.ToString(), model.Parameters().Single(p => p.Name == "token_embeddings.weight").Parameter, 0, expected);
            Assert.DoesNotContain(model.Parameters(), p => p.Name == "token_classifier.linear.weight");
        }
    }

    private static void AssertAll(string name, Tensor parameter, double value) => Assert.True(parameter.eq(value).all().item<bool>(), name);

    private static void AssertMoments(string name, Tensor parameter, double mean, double deviation)
    {
        Assert.True(Math.Abs(parameter.std().item<float>() - deviation) <= 0.03 * deviation, $"{name}: {parameter.std().item<float>()} is not {deviation}");
        Assert.True(Math.Abs(parameter.mean().item<float>() - mean) <= 0.03 * deviation, name);
    }
}
