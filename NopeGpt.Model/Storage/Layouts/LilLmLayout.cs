using System.Text.Json.Nodes;

namespace NopeGpt.Model.Storage.Layouts;

/// <summary>lilLM (CohleM/lilLM): Llama's shape with names of its own; rotary pairs are adjacent, as ours. Its one dropout rate is that of the
/// attention and of the branches; here the embedding is dropped with the latter.</summary>
internal sealed class LilLmLayout : RotaryLayout
{
    private const int MultipleOf = 128, ContextLength = 512;
    private const double Epsilon = 1e-6;

    public override string Name => "lil-lm";

    public override string Embedding => "tok_emb.weight";

    public override string Head => "lm_head.weight";

    protected override string Blocks => "transformer_blocks.";

    protected override IReadOnlyList<string> BlockNames => ["attn_norm", "attn.wq", "attn.wk", "attn.wv", "attn.wo", "ffn_norm", "ffn.w1", "ffn.w2", "ffn.w3"];

    protected override string FinalNorm => "norm";

    protected override string Gain => ".gain";

    public override bool Ignores(string name) => name == "freq_cis" || name.EndsWith(".attn.mask", StringComparison.Ordinal);

    public override bool Owns(ConfigReader config) => config.Has("q_heads") || (config.Has("d_model") && config.Has("n_layers"));

    public override ModelConfig ReadConfig(ConfigReader? config, FileTensors tensors)
    {
        if (config is null) throw NoConfig(tensors);
        config.Ignore("max_batch_size", "flash");
        int hidden = config.Integer("hidden_dim", 0), multiple = config.Integer("multiple_of", MultipleOf);
        double dropout = config.Number("dropout", 0);
        if (hidden == 0 && multiple < 1) config.Refuse("multiple_of", "is not positive: write the number that the hidden layer is a multiple of");
        ModelConfig sizes = new()
        {
            VocabularySize = config.Integer("vocab_size"), EmbeddingDimensions = config.Integer("d_model"), NumQHeads = config.Integer("q_heads"), NumKvHeads = config.Integer("kv_heads"),
            NumDecoderLayers = config.Integer("n_layers"), ContextLength = config.Integer("max_seq_len", ContextLength), NormEpsilon = config.Number("eps", Epsilon),
            Positions = Positions.Rope, RopeTheta = Theta, Mlp = Mlp.Swiglu, AttentionDropout = dropout, ResidualDropout = dropout,
        };
        return config.Finish(Name, hidden == 0 ? sizes with { HiddenMultipleOf = multiple } : Hidden(sizes, hidden), new Dictionary<string, string>
        {
            ["vocabulary_size"] = "vocab_size", ["embedding_dimensions"] = "d_model", ["num_q_heads"] = "q_heads", ["num_kv_heads"] = "kv_heads", ["num_decoder_layers"] = "n_layers",
            ["context_length"] = "max_seq_len", ["hidden_size"] = "hidden_dim", ["hidden_multiple_of"] = "multiple_of", ["norm_epsilon"] = "eps", ["attention_dropout"] = "dropout", ["residual_dropout"] = "dropout",
        });
    }

    public override IEnumerable<Problem> Obstacles(ModelConfig config) =>
    [
        .. base.Obstacles(config), .. NeedsContext(config), .. NeedsTheta(config), .. NeedsNoBias(config),
        .. Unless(Name, (config.TiedHead, "tied_head", config.TiedHead, "a head that is the embedding")),
    ];

    public override JsonObject? WriteConfig(ModelConfig config, ExportOptions options)
    {
        bool byRule = config.HiddenSize == 0 && config.HiddenMultipleOf > 0 && config.HiddenRatio == 4;
        return new()
        {
            ["vocab_size"] = config.VocabularySize,
            ["d_model"] = config.EmbeddingDimensions,
            ["n_layers"] = config.NumDecoderLayers,
            ["max_seq_len"] = config.ContextLength,
            ["q_heads"] = config.NumQHeads,
            ["kv_heads"] = config.NumKvHeads,
            // lilLM has one rate, and drops attention weights even when it answers.
            ["dropout"] = config.AttentionDropout == config.ResidualDropout ? config.ResidualDropout : 0.0,
            ["hidden_dim"] = byRule ? null : config.HiddenDimensions,
            ["multiple_of"] = byRule ? config.HiddenMultipleOf : MultipleOf,
            ["eps"] = config.NormEpsilon,
        };
    }
}
