using System.Text.Json;
using System.Text.Json.Nodes;

namespace NopeGpt.Model.Storage.Layouts;

/// <summary>LlamaForCausalLM of Hugging Face. Its rotary pairs lie half a head apart, so the rows of the query and key projections are exchanged.</summary>
internal sealed class LlamaLayout : RotaryLayout
{
    private const double Epsilon = 1e-6;
    private const int DefaultContext = 2048;

    public override string Name => "llama";

    public override string Embedding => "embed_tokens.weight";

    public override string Head => "lm_head.weight";

    protected override string Blocks => "layers.";

    protected override IReadOnlyList<string> BlockNames =>
    [
        "input_layernorm", "self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj", "self_attn.o_proj",
        "post_attention_layernorm", "mlp.gate_proj", "mlp.down_proj", "mlp.up_proj",
    ];

    protected override string FinalNorm => "norm";

    protected override bool SplitHalves => true;

    public override string BaseName(string raw)
    {
        string name = base.BaseName(raw);
        return name.StartsWith("model.", StringComparison.Ordinal) ? name["model.".Length..] : name;
    }

    public override string FullName(string name) => name == Head ? name : "model." + name;

    public override bool Ignores(string name) => name.EndsWith("rotary_emb.inv_freq", StringComparison.Ordinal);

    public override bool Owns(ConfigReader config) => config.Has("num_attention_heads") || config.Has("intermediate_size");

    public override ModelConfig ReadConfig(ConfigReader? config, FileTensors tensors)
    {
        if (config is null) throw NoConfig(tensors);
        config.TextIs("model_type", ["llama"], "is another network");
        config.ListHolds("architectures", ["LlamaForCausalLM", "LlamaModel"], "is no language model of Llama");
        config.TextIs("hidden_act", ["silu", "swish"], "is not SiLU");
        config.Empty("quantization_config", "has quantised weights");
        config.Empty("pruned_heads", "leaves out heads");
        config.Empty("sliding_window", "attends to a window only");
        config.FlagIs("rope_interleaved", false, "has its rotary pairs side by side");
        config.FlagIs("add_cross_attention", false, "attends to an encoder");
        config.FlagIs("is_encoder_decoder", false, "attends to an encoder");
        config.Ignore(HuggingFaceKeys);
        config.Ignore("is_decoder", "cross_attention_hidden_size", "is_llama_config", "max_sequence_length");
        int heads = config.Integer("num_attention_heads"), d = config.Integer("hidden_size"), hidden = config.Integer("intermediate_size");
        int width = heads > 0 ? d / heads : 0, given = config.Integer("head_dim", width);
        if (given != width) config.Refuse("head_dim", $"differs from hidden_size / num_attention_heads = {width}, and here a head has that width: only such models can be loaded");
        if (hidden == 0) config.Refuse("intermediate_size", "is not positive: copy the config.json from the model's source");
        bool bias = config.Flag("attention_bias", false);
        if (config.Flag("mlp_bias", false) != bias) config.Refuse(bias ? "attention_bias" : "mlp_bias", "stands alone, and here attention and MLP have biases both or neither: only such models can be loaded");
        ModelConfig sizes = new()
        {
            VocabularySize = config.Integer("vocab_size"), EmbeddingDimensions = d, NumQHeads = heads, NumKvHeads = config.Integer("num_key_value_heads", heads),
            NumDecoderLayers = config.Integer("num_hidden_layers"), ContextLength = config.Integer("max_position_embeddings", DefaultContext), NormEpsilon = config.Number("rms_norm_eps", Epsilon),
            Positions = Positions.Rope, RopeTheta = RotaryBase(config), Mlp = Mlp.Swiglu, LinearBias = bias, TiedHead = config.Flag("tie_word_embeddings", false),
            AttentionDropout = config.Number("attention_dropout", 0),
        };
        return config.Finish(Name, Hidden(sizes, hidden), new Dictionary<string, string>
        {
            ["vocabulary_size"] = "vocab_size", ["embedding_dimensions"] = "hidden_size", ["num_q_heads"] = "num_attention_heads", ["num_kv_heads"] = "num_key_value_heads",
            ["num_decoder_layers"] = "num_hidden_layers", ["context_length"] = "max_position_embeddings", ["hidden_size"] = "intermediate_size", ["norm_epsilon"] = "rms_norm_eps",
        });
    }

    public override IEnumerable<Problem> Obstacles(ModelConfig config) => [.. base.Obstacles(config), .. NeedsContext(config)];

    public override JsonObject? WriteConfig(ModelConfig config, ExportOptions options) => new()
    {
        ["architectures"] = new JsonArray("LlamaForCausalLM"),
        ["model_type"] = "llama",
        ["vocab_size"] = config.VocabularySize,
        ["hidden_size"] = config.EmbeddingDimensions,
        ["intermediate_size"] = config.HiddenDimensions,
        ["num_hidden_layers"] = config.NumDecoderLayers,
        ["num_attention_heads"] = config.NumQHeads,
        ["num_key_value_heads"] = config.NumKvHeads,
        ["head_dim"] = config.HeadDimensions,
        ["hidden_act"] = "silu",
        ["max_position_embeddings"] = config.ContextLength,
        ["rms_norm_eps"] = config.NormEpsilon,
        ["rope_theta"] = config.RopeTheta,
        ["rope_scaling"] = null,
        ["attention_bias"] = config.LinearBias,
        ["mlp_bias"] = config.LinearBias,
        ["attention_dropout"] = config.AttentionDropout,
        ["tie_word_embeddings"] = config.TiedHead,
        ["bos_token_id"] = options.BeginningId,
        ["eos_token_id"] = options.EndOfTextId,
        ["torch_dtype"] = TypeName(options.Type),
    };

    // Older files have rope_theta and rope_scaling, newer ones both under rope_parameters.
    private static double RotaryBase(ConfigReader config)
    {
        double theta = config.Number("rope_theta", Theta);
        foreach (string key in (string[])["rope_scaling", "rope_parameters"])
        {
            if (config.Object(key) is not { } scaling) continue;
            foreach (JsonProperty property in scaling.EnumerateObject())
            {
                if (property.NameEquals("rope_theta") && property.Value.ValueKind == JsonValueKind.Number && property.Value.TryGetDouble(out double inner)) theta = inner;
                else if (!(property.NameEquals("rope_type") || property.NameEquals("type")) || property.Value.ValueKind != JsonValueKind.String || !property.Value.ValueEquals("default"))
                    config.Refuse(key, "changes the rotary angles: only null and the type default can be loaded");
            }
        }
        return theta;
    }
}
