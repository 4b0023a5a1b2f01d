using NopeGpt.Jobs;
using NopeGpt.Jobs.Configuration;
using NopeGpt.Model;

namespace NopeGpt.Web.Components.Parts;

/// <summary>The form of a new training run, from a model's initialisation or from a base: a starting configuration, what was typed over it, and all that is wrong with it.</summary>
internal sealed class RunForm
{
    // What decides a run's size, time and result; everything else has a default that is rarely touched.
    private static readonly string[] BasicPaths =
    [
        "name", "finetune.base_checkpoint_path", "finetune.dataset_subsets", "finetune.method", "finetune.num_epochs", "finetune.max_tokens_per_sample", "finetune.lora_rank", "data.dataset", "training.max_steps", "training.batch_size", "data.tokens_per_sample", "optimizer.learning_rate",
        "model.embedding_dimensions", "model.num_decoder_layers", "model.num_q_heads", "model.num_kv_heads", "training.eval_interval", "training.checkpoint_interval",
    ];

    // Names that are short in code and unclear in a form.
    private static readonly Dictionary<string, string> Labels = new(StringComparer.Ordinal)
    {
        ["model.embedding_dimensions"] = "Width",
        ["model.num_decoder_layers"] = "Layers",
        ["model.num_q_heads"] = "Query heads",
        ["model.num_kv_heads"] = "Key and value heads",
        ["model.mlp"] = "MLP",
        ["model.rope_theta"] = "RoPE theta",
        ["model.hidden_multiple_of"] = "Hidden layer a multiple of",
        ["model.hidden_size"] = "Width of the hidden layer",
        ["model.vocabulary_multiple_of"] = "Vocabulary a multiple of",
        ["prepare.dataset"] = "Name",
        ["prepare.kind"] = "What the records are",
        ["prepare.max_tokens"] = "Tokens at most",
        ["prepare.tokenizer_bytes"] = "Bytes that the tokenizer is trained on",
        ["prepare.corpus_bytes"] = "Bytes of stories",
        ["finetune.base_checkpoint_path"] = "Base",
        ["finetune.dataset_subsets"] = "Conversations",
        ["finetune.num_epochs"] = "Epochs",
        ["finetune.max_tokens_per_sample"] = "Tokens of a conversation at most",
        ["finetune.lora_rank"] = "Rank of the adapter",
        ["training.max_steps"] = "Steps",
        ["data.dataset"] = "Data set",
        ["data.num_eval_samples"] = "Held out samples",
        ["training.eval_interval"] = "Steps between evaluations",
        ["training.checkpoint_interval"] = "Steps between checkpoints",
        ["training.keep_checkpoints"] = "Checkpoints kept",
        ["tokenizer.source"] = "Text",
        ["tokenizer.text_column"] = "Column of the text",
        ["tokenizer.gpt2_words"] = "GPT-2's words",
        ["tokenizer.maximum_bytes"] = "Bytes to read at most",
    };

    private readonly Store _store;
    private readonly Dictionary<string, string> _typed = new(StringComparer.Ordinal);
    private RunConfig _start;

    public RunForm(Store store, RunConfig start)
    {
        _store = store;
        _start = start;
        Check();
    }

    /// <summary>What the run trains from: pretrain, or finetune.</summary>
    public RunKind Kind => _start.Kind.Trains() ? _start.Kind : RunKind.Pretrain;

    public IEnumerable<Setting> Basic => BasicPaths.Select(p => Settings.All.First(s => s.Path == p)).Where(s => RunConfigChecks.Applies(s, Kind));

    public IEnumerable<Setting> Advanced => Settings.All.Where(s => s.Path != "kind" && RunConfigChecks.Applies(s, Kind) && !BasicPaths.Contains(s.Path));

    public RunConfig Config { get; private set; } = new();

    public IReadOnlyList<Problem> Problems { get; private set; } = [];

    /// <summary>learning_rate -> Learning rate.</summary>
    public static string Label(Setting setting) => Labels.TryGetValue(setting.Path, out string? label) ? label : char.ToUpperInvariant(setting.Name[0]) + setting.Name[1..].Replace('_', ' ');

    public string Text(Setting setting) => _typed.TryGetValue(setting.Path, out string? typed) ? typed : ConfigTable.Text(Settings.Get(Config, setting));

    public void Type(Setting setting, string text)
    {
        _typed[setting.Path] = text;
        Check();
    }

    /// <summary>Begins anew from another configuration.</summary>
    public void Take(RunConfig start)
    {
        _typed.Clear();
        _start = start;
        Check();
    }

    /// <summary>The problems of one field. Checks may name a field without its section.</summary>
    public IEnumerable<Problem> ProblemsOf(Setting setting) => Problems.Where(p => p.Field == setting.Path || p.Field == setting.Name);

    private void Check()
    {
        List<Problem> problems = [];
        RunConfig config = _start with { Kind = Kind };
        foreach ((string path, string text) in _typed) config = Settings.BindText(config, path, text, problems);
        Config = config;
        // A field that cannot be read keeps its old value, of which there is nothing more to say.
        Problems = [.. problems, .. RunConfigChecks.All(config, _store).Where(p => problems.All(q => q.Field != p.Field))];
    }
}
