using TorchSharp;
using static TorchSharp.torch;

namespace NopeGpt.Model.Tests;

/// <summary>Tiny models of many architectures, those of the reference systems and mixtures, for tests that hold for all.</summary>
internal static class TinyArchitectures
{
    private static readonly ModelConfig Base = new() { VocabularySize = 61, EmbeddingDimensions = 24, NumQHeads = 6, NumKvHeads = 2, NumDecoderLayers = 2, HiddenRatio = 2 };

    private static readonly Dictionary<string, ModelConfig> Configs = new()
    {
        ["nope-gpt"] = Base,
        ["nope, one key head"] = Base with { NumKvHeads = 1, NumDecoderLayers = 3 },
        ["nope, layer norm, gelu"] = Base with { NumKvHeads = 6, Norm = Norm.LayerNorm, NormBias = true, NormEpsilon = 1e-5, Mlp = Mlp.Gelu, LinearBias = true },
        ["lil-lm"] = Base with
        {
            Positions = Positions.Rope, ContextLength = 20, Mlp = Mlp.Swiglu, HiddenRatio = 4, HiddenMultipleOf = 8, NormEpsilon = 1e-6, TiedHead = false,
        },
        ["rope, layer norm, one head"] = Base with { Positions = Positions.Rope, NumQHeads = 1, NumKvHeads = 1, Norm = Norm.LayerNorm, RopeTheta = 500, LinearBias = true },
        ["gpt2"] = Base with
        {
            Positions = Positions.Learned, ContextLength = 20, NumKvHeads = 6, Norm = Norm.LayerNorm, NormBias = true, NormEpsilon = 1e-5, Mlp = Mlp.Gelu, LinearBias = true,
        },
        ["learned, grouped, padded vocabulary"] = Base with { Positions = Positions.Learned, ContextLength = 13, VocabularyMultipleOf = 16 },
    };

    public static IEnumerable<string> Names => Configs.Keys;

    /// <summary>A model with random parameters, biases and gains too. All are large enough that a wrong mask or place changes the logits.</summary>
    public static Decoder Model(string name, Random random)
    {
        Decoder model = new(Configs[name], (ulong)random.Next());
        using Generator generator = new((ulong)random.Next(), CPU);
        using (no_grad())
        using (NewDisposeScope())
        {
            foreach ((string parameter, Tensor value) in model.Parameters())
                value.normal_(parameter.Contains("norm", StringComparison.Ordinal) && value.dim() == 1 ? 1 : 0, 0.25, generator);
        }
        model.eval();
        return model;
    }
}
