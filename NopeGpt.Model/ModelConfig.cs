using System.ComponentModel;
using System.Globalization;
using System.Text.Json;
using System.Text.Json.Nodes;
using System.Text.Json.Serialization;

namespace NopeGpt.Model;

/// <summary>The architecture and the sizes of a <see cref="Decoder"/>. The first seven keys are the config.json of the Python package
/// nope-gpt and always written; the others choose another architecture and are written where they are not NoPE GPT's, so that either
/// side loads the other's folders. The defaults are that package's pretraining script.</summary>
public sealed record ModelConfig
{
    /// <summary>Ids run from 0 to this less one. It must be the tokenizer's size.</summary>
    [JsonPropertyName("vocabulary_size"), Description("Tokens of the vocabulary; in a run 0 takes the tokenizer's.")]
    public int VocabularySize { get; init; } = 50_257;

    /// <summary>Width of the residual stream, called d below.</summary>
    [JsonPropertyName("embedding_dimensions"), Description("Width of the residual stream.")]
    public int EmbeddingDimensions { get; init; } = 1024;

    /// <summary>Query heads of each block. They divide d.</summary>
    [JsonPropertyName("num_q_heads"), Description("Query heads of each block; they divide the width.")]
    public int NumQHeads { get; init; } = 16;

    /// <summary>Key and value heads of each block. Consecutive query heads share one, so they divide the query heads.</summary>
    [JsonPropertyName("num_kv_heads"), Description("Key and value heads of each block; they divide the query heads.")]
    public int NumKvHeads { get; init; } = 4;

    /// <summary>Number of blocks, called L below.</summary>
    [JsonPropertyName("num_decoder_layers"), Description("Number of blocks.")]
    public int NumDecoderLayers { get; init; } = 16;

    /// <summary>Width of the MLP's hidden layer as a multiple of d: 1, 2 or 4.</summary>
    [JsonPropertyName("hidden_ratio"), Description("Width of the MLP's hidden layer as a multiple of the width: 1, 2 or 4.")]
    public int HiddenRatio { get; init; } = 4;

    /// <summary>Probability, from 0 to below 1, that the MLP of a block is left out for a token during training.</summary>
    [JsonPropertyName("dropout"), Description("Probability that a block's MLP is left out for a token in training.")]
    public double Dropout { get; init; }

    /// <summary>How a token's place in the text reaches the network.</summary>
    [JsonPropertyName("positions"), Description("How a token's place reaches the network: none (NoPE), rope (rotary) or learned (a table).")]
    public Positions Positions { get; init; } = Positions.None;

    /// <summary>Most tokens that the model sees at once: rows of the table of learned positions, or the length that it was trained for. 0: no limit of its own.</summary>
    [JsonPropertyName("context_length"), Description("Most tokens that the model sees at once; learned positions need it. 0: no limit of its own.")]
    public int ContextLength { get; init; }

    /// <summary>Base of the rotary angles, theta^(-2i/D) (Su et al. 2021).</summary>
    [JsonPropertyName("rope_theta"), Description("Base of the rotary angles.")]
    public double RopeTheta { get; init; } = 10_000;

    [JsonPropertyName("norm"), Description("Normalisation before each branch and the head: rms_norm or layer_norm.")]
    public Norm Norm { get; init; } = Norm.RmsNorm;

    /// <summary>Added to the mean square (or variance) under the root. The reference leaves it to PyTorch, which takes float32's epsilon, 2^-23.</summary>
    [JsonPropertyName("norm_epsilon"), Description("Added to the mean square under the root of the normalisation.")]
    public double NormEpsilon { get; init; } = ReferenceEpsilon;

    /// <summary>Layer normalisation adds a trained bias. RMSNorm has none.</summary>
    [JsonPropertyName("norm_bias"), Description("The layer normalisation has a bias.")]
    public bool NormBias { get; init; }

    [JsonPropertyName("mlp"), Description("The MLP: silu, swiglu (gated) or gelu (tanh form).")]
    public Mlp Mlp { get; init; } = Mlp.Silu;

    /// <summary>lilLM's and Llama's rule for the hidden layer: two thirds of hidden_ratio·d, rounded up to a multiple of this. 0: hidden_ratio·d.</summary>
    [JsonPropertyName("hidden_multiple_of"), Description("Two thirds of hidden_ratio times the width, rounded up to a multiple of this, is the MLP's hidden layer. 0: no such rounding.")]
    public int HiddenMultipleOf { get; init; }

    /// <summary>Width of the MLP's hidden layer as it is, for models that follow neither rule. 0: by the rules.</summary>
    [JsonPropertyName("hidden_size"), Description("Width of the MLP's hidden layer where no rule gives it. 0: by hidden_ratio or hidden_multiple_of.")]
    public int HiddenSize { get; init; }

    /// <summary>The projections of attention and MLP have biases. The head never has one.</summary>
    [JsonPropertyName("linear_bias"), Description("The projections of attention and MLP have biases.")]
    public bool LinearBias { get; init; }

    /// <summary>The head is the embedding. Otherwise it is a matrix of its own.</summary>
    [JsonPropertyName("tied_head"), Description("The head shares the embedding's weights.")]
    public bool TiedHead { get; init; } = true;

    /// <summary>The embedding is padded to a multiple of this many rows, for speed on GPUs. The padding gets no probability, in training or drawing. 0: none.</summary>
    [JsonPropertyName("vocabulary_multiple_of"), Description("The embedding's rows are padded to a multiple of this; the padding is never drawn. 0: no padding.")]
    public int VocabularyMultipleOf { get; init; }

    [JsonPropertyName("attention_dropout"), Description("Probability that an attention weight is left out in training.")]
    public double AttentionDropout { get; init; }

    [JsonPropertyName("residual_dropout"), Description("Probability that an element of a branch's output, or of the embedding, is left out in training.")]
    public double ResidualDropout { get; init; }

    [JsonPropertyName("initialization"), Description("How a new model's parameters are drawn: default, or as a reference system does: nope_gpt, light_gpt, lil_lm, gpt2.")]
    public Initialization Initialization { get; init; } = Initialization.Default;

    internal const double ReferenceEpsilon = 1.1920928955078125e-7;

    // Upper limits. They lie far above any model that fits a machine, and keep every product below within 64 bits.
    private const int MaxVocabulary = 1 << 24;
    private const int MaxDimensions = 1 << 16;
    private const int MaxLayers = 1 << 12;

    /// <summary>Width of one head, d / query heads. 0 where the config has problems.</summary>
    [JsonIgnore]
    public int HeadDimensions => NumQHeads > 0 ? EmbeddingDimensions / NumQHeads : 0;

    /// <summary>Width of a token's keys (and of its values): kv heads x head width.</summary>
    [JsonIgnore]
    public int KvDimensions => HeadDimensions * NumKvHeads;

    /// <summary>Width of the MLP's hidden layer.</summary>
    [JsonIgnore]
    public int HiddenDimensions => HiddenRatio * EmbeddingDimensions;

    /// <summary>Trainable parameters, the tied head counted once: V·d + L(2d² + 2·d·kv + 2·ratio·d² + 2d) + d.</summary>
    [JsonIgnore]
    public long ParameterCount
    {
        get
        {
            long d = EmbeddingDimensions;
            long block = (2 * d * d) + (2 * d * KvDimensions) + (2 * d * HiddenDimensions) + (2 * d);
            return (VocabularySize * d) + (NumDecoderLayers * block) + d;
        }
    }

    /// <summary>Floating-point operations to train on one token, forward and backward: 6N + 12·L·heads·hd·T
    /// (PaLM, Chowdhery et al. 2022, appendix B).</summary>
    /// <param name="contextLength">Tokens per sequence, T.</param>
    public double FlopsPerToken(int contextLength) =>
        (6.0 * ParameterCount) + (12.0 * NumDecoderLayers * NumQHeads * HeadDimensions * contextLength);

    /// <summary>Everything that is wrong with the sizes. Empty: a model can be built.</summary>
    public IEnumerable<Problem> Problems()
    {
        List<Problem> problems = [];
        InRange("vocabulary_size", VocabularySize, 2, MaxVocabulary);
        InRange("embedding_dimensions", EmbeddingDimensions, 1, MaxDimensions);
        bool queries = InRange("num_q_heads", NumQHeads, 1, MaxDimensions);
        bool keys = InRange("num_kv_heads", NumKvHeads, 1, MaxDimensions);
        InRange("num_decoder_layers", NumDecoderLayers, 1, MaxLayers);
        if (queries && EmbeddingDimensions > 0 && EmbeddingDimensions % NumQHeads != 0)
            Add("embedding_dimensions", EmbeddingDimensions, $"does not divide among num_q_heads = {NumQHeads}: choose a multiple of {NumQHeads}");
        if (queries && keys && NumQHeads % NumKvHeads != 0)
            Add("num_q_heads", NumQHeads, $"does not divide among num_kv_heads = {NumKvHeads}: choose a multiple of {NumKvHeads}");
        if (HiddenRatio is not (1 or 2 or 4))
            Add("hidden_ratio", HiddenRatio, "is not a known ratio: choose 1, 2 or 4");
        if (!(Dropout >= 0 && Dropout < 1))
            Add("dropout", Dropout, "is not a probability below 1: choose a value from 0 to 0.99");
        return problems;

        bool InRange(string field, int value, int least, int most)
        {
            if (value >= least && value <= most) return true;
            Add(field, value, $"is out of range: choose a whole number from {least} to {most}");
            return false;
        }

        void Add(string field, IFormattable value, string message) =>
            problems.Add(new(field, value.ToString(null, CultureInfo.InvariantCulture), message));
    }

    /// <summary>Reads a config.json.</summary>
    /// <exception cref="InvalidDataException">The file is missing, is not JSON, lacks a key, has an unknown one, or its sizes do not fit.</exception>
    public static ModelConfig Read(string path)
    {
        string text;
        try
        {
            text = File.ReadAllText(path);
        }
        catch (Exception e) when (e is IOException or UnauthorizedAccessException)
        {
            throw new InvalidDataException($"{path}: the model's config.json cannot be read ({e.Message}); choose a folder that has one.", e);
        }
        ModelConfig? config;
        try
        {
            CheckKeys(path, JsonNode.Parse(text));
            config = JsonSerializer.Deserialize<ModelConfig>(text);
        }
        catch (JsonException e)
        {
            throw new InvalidDataException($"{path}: not a valid config.json ({e.Message}); write it again or copy it from its source.", e);
        }
        string[] problems = [.. config!.Problems().Select(p => p.ToString())];
        if (problems.Length > 0) throw new InvalidDataException($"{path}: {string.Join("; ", problems)}.");
        return config;
    }

    /// <summary>Writes a config.json that <see cref="Read"/> and the Python package nope-gpt read.</summary>
    public void Write(string path) => File.WriteAllText(path, JsonSerializer.Serialize(this, Indented) + "\n");

    private static readonly JsonSerializerOptions Indented = new() { WriteIndented = true };

    // An unknown key may ask for a network that this one is not, and a missing one would silently become our default.
    private static void CheckKeys(string path, JsonNode? json)
    {
        if (json is not JsonObject found)
            throw new InvalidDataException($"{path}: not a JSON object; a config.json holds the model's sizes by name.");
        string[] known = [.. ((JsonObject)JsonSerializer.SerializeToNode(new ModelConfig())!).Select(p => p.Key)];
        string[] missing = [.. known.Where(k => !found.ContainsKey(k))];
        string[] unknown = [.. found.Select(p => p.Key).Where(k => !known.Contains(k))];
        List<string> reasons = [];
        if (missing.Length > 0) reasons.Add($"lacks {string.Join(", ", missing)}");
        if (unknown.Length > 0) reasons.Add($"has the unknown {string.Join(", ", unknown)}");
        if (reasons.Count > 0)
            throw new InvalidDataException($"{path}: {string.Join(" and ", reasons)}; a NoPE GPT's config.json has exactly {string.Join(", ", known)}.");
    }
}
