namespace NopeGpt.Model;

/// <summary>A named architecture with its sizes.</summary>
/// <param name="Name">What commands take.</param>
/// <param name="Description">One line for lists.</param>
public sealed record ModelPreset(string Name, string Description, ModelConfig Config);

/// <summary>The models of the reference systems in their published sizes, and a tiny one of each architecture.</summary>
public static class ModelPresets
{
    private static readonly ModelConfig NopeGpt = new();

    // LightGPT had no grouped heads, and each of its heads is 64 wide.
    private static readonly ModelConfig LightGpt = new() { NumQHeads = 16, NumKvHeads = 16, NumDecoderLayers = 24 };

    private static readonly ModelConfig LilLm = new()
    {
        VocabularySize = 8192, EmbeddingDimensions = 512, NumQHeads = 16, NumKvHeads = 8, NumDecoderLayers = 12, ContextLength = 512,
        Positions = Positions.Rope, NormEpsilon = 1e-6, Mlp = Mlp.Swiglu, HiddenMultipleOf = 128,
    };

    private static readonly ModelConfig Gpt2 = new()
    {
        VocabularySize = 50_257, EmbeddingDimensions = 768, NumQHeads = 12, NumKvHeads = 12, NumDecoderLayers = 12, ContextLength = 1024,
        Positions = Positions.Learned, Norm = Norm.LayerNorm, NormEpsilon = 1e-5, NormBias = true, Mlp = Mlp.Gelu, LinearBias = true,
    };

    public static IReadOnlyList<ModelPreset> All { get; } =
    [
        new("nope-gpt", "NoPE GPT, its pretraining script's defaults, 228M", NopeGpt),
        new("nope-gpt-400m", "NoPE GPT 400M base", NopeGpt with { EmbeddingDimensions = 1280, NumQHeads = 20, NumKvHeads = 5, NumDecoderLayers = 20 }),
        new("nope-gpt-400m-chat", "NoPE GPT 400M with the four chat tokens", NopeGpt with { VocabularySize = 50_261, EmbeddingDimensions = 1280, NumQHeads = 20, NumKvHeads = 5, NumDecoderLayers = 20 }),
        new("nope-gpt-tiny", "NoPE GPT for tests, minutes on a CPU", Tiny(NopeGpt)),
        new("light-gpt-small", "LightGPT Small, 354M", LightGpt),
        new("light-gpt-medium", "LightGPT Medium, 1.7B", LightGpt with { EmbeddingDimensions = 2048, NumQHeads = 32, NumKvHeads = 32, NumDecoderLayers = 32 }),
        new("light-gpt-tiny", "LightGPT for tests, minutes on a CPU", Tiny(LightGpt) with { NumKvHeads = 4 }),
        new("lil-lm", "lilLM, 40M", LilLm),
        new("lil-lm-tiny", "lilLM for tests, minutes on a CPU", Tiny(LilLm) with { HiddenMultipleOf = 32 }),
        new("gpt2", "GPT-2 small, 124M", Gpt2),
        new("gpt2-padded", "GPT-2 small with its vocabulary padded to 50,304 for speed, as Lightning nano-GPT has it", Gpt2 with { VocabularyMultipleOf = 128 }),
        new("gpt2-medium", "GPT-2 medium, 355M", Gpt2 with { EmbeddingDimensions = 1024, NumQHeads = 16, NumKvHeads = 16, NumDecoderLayers = 24 }),
        new("gpt2-large", "GPT-2 large, 774M", Gpt2 with { EmbeddingDimensions = 1280, NumQHeads = 20, NumKvHeads = 20, NumDecoderLayers = 36 }),
        new("gpt2-xl", "GPT-2 XL, 1.6B", Gpt2 with { EmbeddingDimensions = 1600, NumQHeads = 25, NumKvHeads = 25, NumDecoderLayers = 48 }),
        new("gpt2-tiny", "GPT-2 for tests, minutes on a CPU", Tiny(Gpt2) with { NumKvHeads = 4 }),
    ];

    /// <exception cref="ArgumentException">There is none of this name; the message names the nearest, or all.</exception>
    public static ModelPreset Find(string name) => All.FirstOrDefault(p => p.Name.Equals(name, StringComparison.OrdinalIgnoreCase))
        ?? throw new ArgumentException(
            NearestName.Of(name, All.Select(p => p.Name)) is string nearest
                ? $"there is no model preset '{name}'; did you mean {nearest}?"
                : $"there is no model preset '{name}'; choose one of {string.Join(", ", All.Select(p => p.Name))}.",
            nameof(name));

    private static ModelConfig Tiny(ModelConfig config) => config with
    {
        VocabularySize = 512, EmbeddingDimensions = 64, NumQHeads = 4, NumKvHeads = 2, NumDecoderLayers = 2, ContextLength = Math.Min(config.ContextLength, 128),
    };
}
