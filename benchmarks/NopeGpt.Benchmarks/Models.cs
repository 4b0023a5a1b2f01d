using NopeGpt.Model;

namespace NopeGpt.Benchmarks;

/// <summary>The models that are measured: two of NoPE GPT's form, and one of each other architecture at the size of the larger.</summary>
internal static class Models
{
    public static readonly ModelConfig Quickstart = new() { VocabularySize = 4096, EmbeddingDimensions = 192, NumQHeads = 6, NumKvHeads = 2, NumDecoderLayers = 4 };

    public static readonly ModelConfig Nope = new() { VocabularySize = 8192, EmbeddingDimensions = 384, NumQHeads = 6, NumKvHeads = 2, NumDecoderLayers = 6 };

    public static readonly ModelConfig Gpt2 = ModelPresets.Find("gpt2").Config with
    {
        VocabularySize = 8192, EmbeddingDimensions = 384, NumQHeads = 6, NumKvHeads = 6, NumDecoderLayers = 5,
    };

    public static readonly ModelConfig LilLm = ModelPresets.Find("lil-lm").Config with
    {
        EmbeddingDimensions = 384, NumQHeads = 12, NumKvHeads = 6, NumDecoderLayers = 6,
    };

    public static IEnumerable<(string Name, ModelConfig Config)> All =>
    [
        ("NoPE, the quickstart's", Quickstart),
        ("NoPE", Nope),
        ("GPT-2's form (learned positions, LayerNorm, GELU, biases)", Gpt2),
        ("lilLM's form (rotary positions, SwiGLU)", LilLm),
    ];

    public static string Size(ModelConfig config) => $"{config.ParameterCount / 1e6:0.0}M";
}
