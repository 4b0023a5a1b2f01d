using System.ComponentModel;
using System.Globalization;
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
    private const int MaxHidden = 1 << 18;
    private const int MaxContext = 1 << 24;

    /// <summary>Width of one head, d / query heads. 0 where the config has problems.</summary>
    [JsonIgnore]
    public int HeadDimensions => NumQHeads > 0 ? EmbeddingDimensions / NumQHeads : 0;

    /// <summary>Width of a token's keys (and of its values): kv heads x head width.</summary>
    [JsonIgnore]
    public int KvDimensions => HeadDimensions * NumKvHeads;

    /// <summary>Width of the MLP's hidden layer, called h below: hidden_size; or two thirds of hidden_ratio·d, rounded up to a multiple of
    /// hidden_multiple_of; or hidden_ratio·d.</summary>
    [JsonIgnore]
    public int HiddenDimensions
    {
        get
        {
            if (HiddenSize > 0) return HiddenSize;
            long width = (long)HiddenRatio * EmbeddingDimensions;
            // lilLM's int(2/3 * width), rounded as it rounds.
            return (int)(HiddenMultipleOf > 0 ? RoundUp((long)(2.0 / 3 * width), HiddenMultipleOf) : width);
        }
    }

    /// <summary>Rows of the embedding and of the head, padding included.</summary>
    [JsonIgnore]
    public int PaddedVocabularySize => VocabularyMultipleOf > 0 ? (int)RoundUp(VocabularySize, VocabularyMultipleOf) : VocabularySize;

    /// <summary>Trainable parameters, padding included and a tied head counted once.</summary>
    [JsonIgnore]
    public long ParameterCount => Parameters.Total;

    /// <summary>Trainable parameters by part.</summary>
    [JsonIgnore]
    public ParameterParts Parameters => ParameterParts.Of(this);

    /// <summary>Floating-point operations to train on one token, forward and backward: 6N + 12·L·heads·hd·T
    /// (PaLM, Chowdhery et al. 2022, appendix B).</summary>
    /// <param name="contextLength">Tokens per sequence, T.</param>
    public double FlopsPerToken(int contextLength) =>
        (6.0 * ParameterCount) + (12.0 * NumDecoderLayers * NumQHeads * HeadDimensions * contextLength);

    /// <summary>The same network in one spelling: what acts in training only, padding, and options that another one makes idle are at their defaults, and
    /// the hidden layer is given by its width. Two configs with equal ones compute the same from the same weights.</summary>
    [JsonIgnore]
    internal ModelConfig Computed => this with
    {
        HiddenRatio = 4, HiddenMultipleOf = 0, HiddenSize = HiddenDimensions, VocabularyMultipleOf = 0, Dropout = 0, AttentionDropout = 0, ResidualDropout = 0,
        Initialization = Initialization.Default, RopeTheta = Positions == Positions.Rope ? RopeTheta : 10_000, ContextLength = Positions == Positions.Learned ? ContextLength : 0,
    };

    private static long RoundUp(long value, long multiple) => (value + multiple - 1) / multiple * multiple;

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
        InRange("hidden_size", HiddenSize, 0, MaxHidden);
        InRange("hidden_multiple_of", HiddenMultipleOf, 0, MaxHidden);
        if (HiddenSize == 0 && HiddenRatio is not (1 or 2 or 4))
            Add("hidden_ratio", HiddenRatio, "is not a known ratio: choose 1, 2 or 4");
        if (HiddenSize > 0 && HiddenMultipleOf > 0)
            Add("hidden_multiple_of", HiddenMultipleOf, $"cannot round where hidden_size = {HiddenSize} is the width: set one of them to 0");
        InRange("context_length", ContextLength, 0, MaxContext);
        InRange("vocabulary_multiple_of", VocabularyMultipleOf, 0, MaxVocabulary);
        if (Positions == Positions.Learned && ContextLength == 0)
            Add("context_length", ContextLength, "leaves no room for positions = learned: choose how many tokens the model sees at once");
        if (Positions == Positions.Rope && queries && EmbeddingDimensions % NumQHeads == 0 && HeadDimensions % 2 != 0)
            Add("embedding_dimensions", EmbeddingDimensions, $"gives heads of the odd width {HeadDimensions}, and positions = rope turns pairs of channels: choose a multiple of {2 * NumQHeads}");
        if (NormBias && Norm != Norm.LayerNorm)
            Add("norm_bias", NormBias, "needs norm = layer_norm, as an RMSNorm has no bias: choose that, or false");
        Positive("rope_theta", RopeTheta, "10000");
        Positive("norm_epsilon", NormEpsilon, "1e-5");
        Probability("dropout", Dropout);
        Probability("attention_dropout", AttentionDropout);
        Probability("residual_dropout", ResidualDropout);
        return problems;

        bool InRange(string field, int value, int least, int most)
        {
            if (value >= least && value <= most) return true;
            Add(field, value, $"is out of range: choose a whole number from {least} to {most}");
            return false;
        }

        void Positive(string field, double value, string example)
        {
            if (!(value > 0 && double.IsFinite(value))) Add(field, value, $"is not a number above 0: choose one such as {example}");
        }

        void Probability(string field, double value)
        {
            if (!(value >= 0 && value < 1)) Add(field, value, "is not a probability below 1: choose a value from 0 to 0.99");
        }

        void Add(string field, object value, string message) =>
            problems.Add(new(field, value is bool ? (true.Equals(value) ? "true" : "false") : ((IFormattable)value).ToString(null, CultureInfo.InvariantCulture), message));
    }

    /// <summary>Reads a config.json. The first seven keys must be there; of the others those that are not have their defaults.</summary>
    /// <exception cref="InvalidDataException">The file is missing, is not JSON, lacks a key, has an unknown or doubled one, or its values do not fit.</exception>
    public static ModelConfig Read(string path) => ModelConfigFile.Read(path);

    /// <summary>Writes a config.json that <see cref="Read"/> reads, and the Python package nope-gpt where the architecture is its own.</summary>
    public void Write(string path) => File.WriteAllText(path, ModelConfigFile.Serialize(this));
}
