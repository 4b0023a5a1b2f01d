using System.Text.Json.Nodes;
using System.Text.RegularExpressions;
using NormKind = NopeGpt.Model.Norm;

namespace NopeGpt.Model.Storage.Layouts;

/// <summary>GPT-2 as Hugging Face writes it (projections as [in, out]), as the reference systems and nanoGPT do ([out, in]), and under the variable
/// names of OpenAI's TensorFlow checkpoints (model/h0/attn/c_attn/w, [1, in, out]). The fused query, key and value projection tells which.</summary>
/// <remarks>Dropout rates that a config does not name are 0: they act in training only. Without a config the sizes follow from the shapes,
/// and a head is 64 wide, as in every GPT-2 that was published.</remarks>
internal sealed partial class Gpt2Layout : Layout
{
    private const double Epsilon = 1e-5;
    private const int HeadWidth = 64;

    private static readonly string[] VocabularyKeys = ["vocab_size", "n_vocab"], ContextKeys = ["n_positions", "n_ctx", "block_size"];

    public override string Name => "gpt2";

    public override string Embedding => "wte.weight";

    public override string Head => "lm_head.weight";

    public override bool WritesTransposed => true;

    public override string BaseName(string raw)
    {
        if (TensorFlowName().Match(raw) is { Success: true } match) return FromTensorFlow(match.Groups[1].Value);
        string name = base.BaseName(raw);
        foreach (string prefix in (string[])["model.", "transformer."])
            if (name.StartsWith(prefix, StringComparison.Ordinal)) name = name[prefix.Length..];
        return name;
    }

    public override string FullName(string name) => name == Head ? name : "transformer." + name;

    public override IReadOnlyList<long> ShapeOf(SafetensorsEntry entry) => entry.Shape is [1, _, _] ? [entry.Shape[1], entry.Shape[2]] : entry.Shape;

    public override bool Ignores(string name) => MaskName().IsMatch(name);

    public override bool Owns(string name) => name is "wte.weight" or "wpe.weight" || BlockName().IsMatch(name);

    public override bool Owns(ConfigReader config) => config.Has("n_embd") || config.Has("block_size");

    public override ModelConfig ReadConfig(ConfigReader? config, FileTensors tensors)
    {
        if (config is null) return FromShapes(tensors);
        config.TextIs("model_type", ["gpt2"], "is another network");
        RefuseOtherHeads(config);
        config.TextIs("activation_function", ["gelu_new", "gelu_pytorch_tanh"], "is not GELU in its tanh form");
        config.FlagIs("scale_attn_weights", true, "leaves the attention's scores unscaled");
        config.FlagIs("scale_attn_by_inverse_layer_idx", false, "scales the attention's scores by the layer");
        config.FlagIs("add_cross_attention", false, "attends to an encoder");
        config.FlagIs("is_encoder_decoder", false, "attends to an encoder");
        config.Empty("pruned_heads", "leaves out heads");
        config.Empty("quantization_config", "has quantised weights");
        config.Ignore(HuggingFaceKeys);
        config.Ignore("reorder_and_upcast_attn", "summary_activation", "summary_first_dropout", "summary_proj_to_labels", "summary_type", "summary_use_proj", "is_decoder", "cross_attention_hidden_size", "return_dict");
        int vocabulary = config.Integer(VocabularyKeys, out string vocabularyKey), context = config.Integer(ContextKeys, out string contextKey), inner = config.Integer("n_inner", 0);
        int d = config.Integer("n_embd"), heads = config.Integer("n_head"), layers = config.Integer("n_layer");
        bool bias = config.Flag("bias", true), tied = config.Flag("tie_word_embeddings", true);
        double dropout = config.Number("dropout", 0), attention = config.Number("attn_pdrop", dropout), residual = config.Number("resid_pdrop", dropout);
        if (config.Number("embd_pdrop", residual) != residual) config.Refuse("embd_pdrop", $"differs from resid_pdrop = {residual}, and here they are one: make them equal");
        ModelConfig result = Sized(vocabulary, context, d, heads, layers, bias) with
        {
            NormEpsilon = config.Number("layer_norm_epsilon", Epsilon), TiedHead = tied,
            AttentionDropout = attention, ResidualDropout = residual,
        };
        return config.Finish(Name, inner == 0 ? result : Hidden(result, inner), new Dictionary<string, string>
        {
            ["vocabulary_size"] = vocabularyKey, ["embedding_dimensions"] = "n_embd", ["num_q_heads"] = "n_head", ["num_kv_heads"] = "n_head", ["num_decoder_layers"] = "n_layer",
            ["context_length"] = contextKey, ["hidden_size"] = "n_inner", ["norm_epsilon"] = "layer_norm_epsilon", ["attention_dropout"] = "attn_pdrop", ["residual_dropout"] = "resid_pdrop",
        });
    }

    public override IEnumerable<LayoutTensor> Tensors(ModelConfig config, bool transposed)
    {
        yield return new(Embedding, CanonicalNames.Embedding);
        yield return new("wpe.weight", CanonicalNames.Positions);
        for (int i = 0; i < config.NumDecoderLayers; i++)
        {
            string theirs = $"h.{i}.", ours = CanonicalNames.Layer(i);
            IEnumerable<LayoutTensor> block =
            [
                .. Norm(theirs + "ln_1", ours + "norm1"), .. Projection("attn.c_attn", "stage1.q_proj", "stage1.k_proj", "stage1.v_proj"), .. Projection("attn.c_proj", "stage1.out_proj"),
                .. Norm(theirs + "ln_2", ours + "norm2"), .. Projection("mlp.c_fc", "stage2.linear1"), .. Projection("mlp.c_proj", "stage2.linear2"),
            ];
            foreach (LayoutTensor tensor in block) yield return tensor;

            IEnumerable<LayoutTensor> Projection(string name, params string[] parts)
            {
                yield return new($"{theirs}{name}.weight", [.. parts.Select(p => $"{ours}{p}.weight")], transposed);
                if (config.LinearBias) yield return new($"{theirs}{name}.bias", [.. parts.Select(p => $"{ours}{p}.bias")]);
            }
        }
        foreach (LayoutTensor tensor in Norm("ln_f", CanonicalNames.FinalNorm)) yield return tensor;
        if (!config.TiedHead) yield return new(Head, CanonicalNames.Head);

        IEnumerable<LayoutTensor> Norm(string theirs, string ours)
        {
            yield return new(theirs + ".weight", ours + ".weight");
            if (config.NormBias) yield return new(theirs + ".bias", ours + ".bias");
        }
    }

    public override bool IsTransposed(FileTensors tensors) =>
        tensors.Names.Where(n => n.EndsWith("attn.c_attn.weight", StringComparison.Ordinal)).Select(tensors.Shape).FirstOrDefault() is [long rows, long columns] && columns == 3 * rows;

    public override IEnumerable<Problem> Obstacles(ModelConfig config) => Unless(
        Name,
        (config.Positions == Positions.Learned, "positions", Snake(config.Positions), "learned"),
        (config.Norm == NormKind.LayerNorm, "norm", Snake(config.Norm), "layer_norm"),
        (config.Norm != NormKind.LayerNorm || config.NormBias, "norm_bias", config.NormBias, "normalisations with a bias"),
        (config.Mlp == Mlp.Gelu, "mlp", Snake(config.Mlp), "gelu"),
        (config.LinearBias, "linear_bias", config.LinearBias, "projections with a bias"),
        (config.NumKvHeads == config.NumQHeads, "num_kv_heads", config.NumKvHeads, $"as many as num_q_heads = {config.NumQHeads}"));

    public override JsonObject? WriteConfig(ModelConfig config, ExportOptions options) => new()
    {
        ["architectures"] = new JsonArray("GPT2LMHeadModel"),
        ["model_type"] = "gpt2",
        ["activation_function"] = "gelu_new",
        ["vocab_size"] = config.VocabularySize,
        ["n_positions"] = config.ContextLength,
        ["n_ctx"] = config.ContextLength,
        ["n_embd"] = config.EmbeddingDimensions,
        ["n_layer"] = config.NumDecoderLayers,
        ["n_head"] = config.NumQHeads,
        ["n_inner"] = config.HiddenDimensions == 4 * config.EmbeddingDimensions ? null : config.HiddenDimensions,
        ["layer_norm_epsilon"] = config.NormEpsilon,
        ["attn_pdrop"] = config.AttentionDropout,
        ["resid_pdrop"] = config.ResidualDropout,
        ["embd_pdrop"] = config.ResidualDropout,
        ["tie_word_embeddings"] = config.TiedHead,
        ["bos_token_id"] = options.BeginningId,
        ["eos_token_id"] = options.EndOfTextId,
        ["torch_dtype"] = TypeName(options.Type),
    };

    private static ModelConfig Sized(int vocabulary, int context, int d, int heads, int layers, bool bias) => new()
    {
        VocabularySize = vocabulary, EmbeddingDimensions = d, NumQHeads = heads, NumKvHeads = heads, NumDecoderLayers = layers, HiddenRatio = 4,
        Positions = Positions.Learned, ContextLength = context, Norm = NormKind.LayerNorm, NormEpsilon = Epsilon, NormBias = bias, Mlp = Mlp.Gelu, LinearBias = bias,
    };

    // The other models of Hugging Face with this body have another head, or none.
    private static void RefuseOtherHeads(ConfigReader config) =>
        config.ListHolds("architectures", ["GPT2LMHeadModel", "GPT2Model", "GPT2DoubleHeadsModel"], "is no language model of GPT-2");

    private ModelConfig FromShapes(FileTensors tensors)
    {
        tensors.TakeHeadForEmbedding();
        if (tensors.Shape(Embedding) is not [long vocabulary, long d] || tensors.Shape("wpe.weight") is not [long context, _] || tensors.Layers == 0 || d % HeadWidth != 0)
            throw NoConfig(tensors);
        ModelConfig config = Sized(Clamp(vocabulary), Clamp(context), Clamp(d), Clamp(d / HeadWidth), tensors.Layers, bias: true);
        Problem[] problems = [.. config.Problems()];
        return problems.Length == 0 ? config : throw new InvalidDataException($"{tensors.Source.Path}: no config.json lies beside it, and the shapes give {string.Join<Problem>("; ", problems)}.");
    }

    private static int Clamp(long size) => (int)Math.Min(size, int.MaxValue);

    private static string FromTensorFlow(string name)
    {
        string[] parts = name.Split('/');
        if (parts[0] is ['h', .. { Length: > 0 } number] && number.All(char.IsAsciiDigit)) parts[0] = "h." + number;
        parts[^1] = parts[^1] switch { "w" or "g" => "weight", "b" => "bias", "wte" or "wpe" => parts[^1] + ".weight", string other => other };
        return string.Join('.', parts);
    }

    [GeneratedRegex("^(?:.*/)?model/(.+?)(?::0)?$")]
    private static partial Regex TensorFlowName();

    [GeneratedRegex(@"^h\.[0-9]+\.attn\.(?:bias|masked_bias)$")]
    private static partial Regex MaskName();

    [GeneratedRegex(@"^h\.[0-9]+\.(?:ln_[12]|attn\.c_attn|attn\.c_proj|mlp\.c_fc|mlp\.c_proj)\.")]
    private static partial Regex BlockName();
}
