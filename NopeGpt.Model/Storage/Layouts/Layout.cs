using System.Text.Json.Nodes;
using static TorchSharp.torch;

namespace NopeGpt.Model.Storage.Layouts;

/// <summary>How one family of programs names and lays out a model: a mapping between its files and ours. It holds no state and reads no weights.</summary>
internal abstract class Layout
{
    /// <summary>Keys that any config.json of Hugging Face may have and that say nothing about the network.</summary>
    protected static readonly IReadOnlyList<string> HuggingFaceKeys =
    [
        "_name_or_path", "_num_labels", "_attn_implementation_autoset", "_commit_hash", "bad_words_ids", "begin_suppress_tokens", "bos_token_id", "chunk_size_feed_forward",
        "decoder_start_token_id", "diversity_penalty", "do_sample", "dtype", "early_stopping", "encoder_no_repeat_ngram_size", "eos_token_id",
        "exponential_decay_length_penalty", "finetuning_task", "forced_bos_token_id", "forced_eos_token_id", "gradient_checkpointing", "id2label",
        "initializer_range", "label2id", "length_penalty", "max_length", "min_length", "no_repeat_ngram_size", "num_beam_groups", "num_beams", "num_labels",
        "num_return_sequences", "output_attentions", "output_hidden_states", "output_past", "output_scores", "pad_token_id", "prefix", "pretraining_tp",
        "problem_type", "remove_invalid_values", "repetition_penalty", "return_dict", "return_dict_in_generate", "sep_token_id", "suppress_tokens",
        "task_specific_params", "temperature", "tf_legacy_loss", "tie_encoder_decoder", "tokenizer_class", "top_k", "top_p", "torch_dtype", "torchscript",
        "transformers.js_config", "transformers_version", "typical_p", "unk_token_id", "use_bfloat16", "use_cache",
    ];

    /// <summary>Every layout, in the order in which they are named.</summary>
    public static readonly IReadOnlyList<Layout> All = [new NopeGptLayout(), new Gpt2Layout(), new LilLmLayout(), new LlamaLayout(), new Llama2CLayout()];

    public abstract string Name { get; }

    /// <summary>The file's name of the embedding, without prefixes.</summary>
    public abstract string Embedding { get; }

    /// <summary>The file's name of the head, without prefixes. Where the head is tied it may be there, equal to the embedding.</summary>
    public abstract string Head { get; }

    /// <summary>A tensor's name without what wrappers of PyTorch (torch.compile, DataParallel) and the layout's own programs put before it.</summary>
    public virtual string BaseName(string raw)
    {
        raw = raw.Replace("_orig_mod.", "", StringComparison.Ordinal);
        return raw.StartsWith("module.", StringComparison.Ordinal) ? raw["module.".Length..] : raw;
    }

    /// <summary>The name under which an exported tensor is written.</summary>
    public virtual string FullName(string name) => name;

    /// <summary>A tensor's shape without dimensions that only its program gives it.</summary>
    public virtual IReadOnlyList<long> ShapeOf(SafetensorsEntry entry) => entry.Shape;

    /// <summary>A tensor that is there and holds no weights: a mask, a table of angles.</summary>
    public virtual bool Ignores(string name) => false;

    /// <summary>True where a tensor's name, without prefixes, is of this layout and of no other.</summary>
    public abstract bool Owns(string name);

    /// <summary>True where the config's keys are of this layout and of no other.</summary>
    public abstract bool Owns(ConfigReader config);

    /// <summary>The config that a file has or, where it has none, that the tensors' shapes tell without doubt.</summary>
    /// <exception cref="InvalidDataException">All that is wrong with it, or cannot be represented.</exception>
    public abstract ModelConfig ReadConfig(ConfigReader? config, FileTensors tensors);

    /// <summary>The tensors of a file.</summary>
    /// <param name="transposed">The projections lie as [in, out], in a layout that has both.</param>
    public abstract IEnumerable<LayoutTensor> Tensors(ModelConfig config, bool transposed);

    /// <summary>Whether the projections of a file lie as [in, out].</summary>
    public virtual bool IsTransposed(FileTensors tensors) => false;

    /// <summary>The options of a model that this layout cannot express.</summary>
    public abstract IEnumerable<Problem> Obstacles(ModelConfig config);

    /// <summary>Whether an exported file has its projections as [in, out].</summary>
    public virtual bool WritesTransposed => false;

    /// <summary>The config.json; null for a layout without one.</summary>
    public abstract JsonObject? WriteConfig(ModelConfig config, ExportOptions options);

    /// <summary>Writes the weights into a folder.</summary>
    /// <param name="tensors">The tensors under their full names.</param>
    public virtual void WriteWeights(string folder, ModelConfig config, IReadOnlyList<(string Name, Tensor Tensor)> tensors, ExportOptions options)
    {
        Dictionary<string, string> metadata = new() { ["format"] = "pt" };
        if (options.MaxShardBytes is { } most) ShardedSafetensors.Save(folder, tensors, most, metadata);
        else SafetensorsFile.Save(Path.Combine(folder, TensorSource.SingleName), tensors, metadata);
    }

    /// <summary>Any layout's file without a config.json, where the shapes do not tell enough.</summary>
    protected InvalidDataException NoConfig(FileTensors tensors) =>
        new($"{tensors.Source.Path}: the tensors are those of {Name}, and no config.json lies beside it; copy it from the model's source.");

    /// <summary>Options that a layout has no word for.</summary>
    protected static IEnumerable<Problem> Unless(string layout, params IEnumerable<(bool Fits, string Field, object Value, string Needed)> options) =>
        options.Where(o => !o.Fits).Select(o => new Problem(o.Field, o.Value is bool flag ? (flag ? "true" : "false") : Convert.ToString(o.Value, System.Globalization.CultureInfo.InvariantCulture)!, $"{layout} has only {o.Needed}"));

    /// <summary>The width of the hidden layer in our words: as a ratio where it is one.</summary>
    protected static ModelConfig Hidden(ModelConfig config, int size)
    {
        int d = config.EmbeddingDimensions;
        return d > 0 && size % d == 0 && size / d is 1 or 2 or 4 ? config with { HiddenRatio = size / d } : config with { HiddenSize = size };
    }

    /// <summary>The name that PyTorch has for a type.</summary>
    protected static string TypeName(ScalarType type) => type.ToString().ToLowerInvariant();

    protected static string Snake<T>(T value)
        where T : struct, Enum => System.Text.Json.JsonNamingPolicy.SnakeCaseLower.ConvertName(value.ToString());
}
