using System.CommandLine;
using System.Text.Json;
using System.Text.Json.Nodes;
using NopeGpt.Jobs.Configuration;
using NopeGpt.Model;

namespace NopeGpt.Jobs.Commands;

/// <summary>The options that describe a run of the training loop: a preset, then a file, then single settings, then the reference's names.</summary>
internal sealed class TrainingRecipe
{
    /// <summary>What most runs set, in the order of the help.</summary>
    private static readonly string[] Usual =
    [
        "finetune.base_checkpoint_path", "finetune.dataset_subsets", "finetune.method", "finetune.num_epochs", "finetune.max_tokens_per_sample", "finetune.filter_long_samples", "finetune.train_on_inputs",
        "finetune.lora_rank", "finetune.lora_alpha", "finetune.lora_dropout", "finetune.freeze_token_embeddings",
        "data.dataset", "data.tokens_per_sample", "data.num_eval_samples",
        "training.batch_size", "training.gradient_accumulation_steps", "training.max_steps", "training.eval_interval", "training.checkpoint_interval",
        "optimizer.optimizer", "optimizer.learning_rate", "optimizer.schedule", "optimizer.warmup_steps", "optimizer.max_gradient_norm",
        "model.embedding_dimensions", "model.num_q_heads", "model.num_kv_heads", "model.num_decoder_layers", "model.hidden_ratio", "model.dropout",
        "name", "device", "threads", "seed",
    ];

    private readonly Option<string?> _preset = CommonOptions.Text("--preset", "NAME", $"Recipe to start from ({string.Join(", ", Presets.All.Select(p => p.Name))}); what else is given changes it.");
    private readonly Option<string?> _model = CommonOptions.Text("--model_preset", "NAME", $"Architecture and sizes to start from ({string.Join(", ", ModelPresets.All.Select(p => p.Name))}). The vocabulary is the data set's.");
    private readonly Option<string?> _config = CommonOptions.Text("--config", "FILE", "JSON with settings of a run, or a run.json; --preset comes before it and options after it.");
    private readonly RunKind _kind;
    private readonly RunOptions _settings;

    /// <param name="verbs">The verb's own options.</param>
    public TrainingRecipe(RunKind kind, IEnumerable<Option> verbs)
    {
        (_kind, Reference) = (kind, new(kind));
        _settings = new(kind, [.. verbs.Concat(Starts).Select(o => o.Name[2..])], Reference.Aliases) { Reword = ReferenceNames.Reword };
    }

    public IReadOnlyList<Option> Options => [.. Starts, .. _settings.Options, .. Reference.Options];

    /// <summary>Where the settings come from.</summary>
    public IReadOnlyList<Option> Starts => _kind == RunKind.Pretrain ? [_preset, _model, _config] : [_config];

    public ReferenceNames Reference { get; }

    /// <summary>The model preset that is named; null for none, or one that is not known.</summary>
    public ModelPreset? ModelPreset(Arguments arguments) => arguments.Text(_model) is { } name ? ModelPresets.All.FirstOrDefault(p => p.Name.Equals(name, StringComparison.OrdinalIgnoreCase)) : null;

    /// <summary>What the options say.</summary>
    public RunConfig Read(Arguments arguments) => Change(arguments, Start(arguments));

    /// <summary>A config with what the options of single settings say.</summary>
    public RunConfig Change(Arguments arguments, RunConfig start)
    {
        RunConfig config = _settings.Read(arguments, start);
        config = Reference.Read(arguments, config, _settings.Given(arguments).Select(o => o.Setting.Path).ToHashSet());
        if (config.Optimizer is { LowMemoryOptimizer: true, Optimizer: not OptimizerKind.Adafactor })
            Console.Error.WriteLine("note: --low_memory_optimizer is for --optimizer adafactor; the others have no such form");
        return config;
    }

    /// <summary>The settings that are given on the command line.</summary>
    public IEnumerable<(Setting Setting, Option Option)> Given(Arguments arguments) => _settings.Given(arguments);

    /// <summary>A problem of a setting, under the name of its option.</summary>
    public Problem Named(Problem problem) => _settings.Named(problem);

    public void WriteHelp(RunHelp help, IReadOnlyList<Option> verbs)
    {
        ILookup<string, (Setting Setting, Option Option)> byPath = _settings.All.ToLookup(o => o.Setting.Path);
        foreach ((string title, string section) in new[] { ("Fine-tuning", "finetune"), ("Data", "data"), ("Training", "training"), ("Optimizer", "optimizer"), ("Model", "model"), ("Run", "") })
            help.Group(title, Usual.SelectMany(path => byPath[path]).Where(o => o.Setting.Section == section));
        help.Group("Start and result", [.. Starts, .. verbs]);
        foreach (IGrouping<string, (Setting Setting, Option Option)> section in _settings.All.Where(o => !Usual.Contains(o.Setting.Path)).GroupBy(o => o.Setting.Section))
            help.Group($"Advanced: {(section.Key.Length == 0 ? "run" : section.Key)}", section);
        help.Group("Names of NoPE GPT's script that are called otherwise here", [.. Reference.Options, .. Reference.Renamed]);
    }

    /// <summary>The recipe and the file that the options change.</summary>
    private RunConfig Start(Arguments arguments)
    {
        RunConfig start = RunConfig.For(_kind);
        try
        {
            if (Given(arguments, _preset) is { } name) start = Presets.Find(name).Config;
        }
        catch (UserException e) { arguments.Add(_preset.Name, arguments.Text(_preset)!, e.Message); }
        if (arguments.Text(_config) is { } file && ReadJson(arguments, file) is { } json)
        {
            List<Problem> wrong = [];
            json.TryAdd("kind", RunOptions.Words(_kind));
            using JsonDocument document = JsonDocument.Parse(json.ToJsonString());
            start = Given(arguments, _preset) is not null ? Settings.Bind(start, document.RootElement, wrong) : Settings.Bind(document.RootElement, wrong);
            foreach (Problem problem in wrong) arguments.Add(problem with { Field = $"{file}: {problem.Field}" });
            if (start.Kind != _kind)
                arguments.Add($"{file}: kind", RunOptions.Words(start.Kind), $"this command {(_kind == RunKind.Pretrain ? "trains a model from its initialisation" : "trains a model further")}: use a configuration of the kind {RunOptions.Words(_kind)}");
        }
        try
        {
            if (Given(arguments, _model) is { } architecture) start = start with { Model = ModelPresets.Find(architecture).Config with { VocabularySize = 0 } };
        }
        catch (ArgumentException e) { arguments.Add(_model.Name, arguments.Text(_model)!, e.Message.Split(" (Parameter")[0]); }
        return start with { Kind = _kind };
    }

    /// <summary>Null also for an option that this kind of run does not have.</summary>
    private string? Given(Arguments arguments, Option<string?> option) => Starts.Contains(option) ? arguments.Text(option) : null;

    /// <summary>The settings in a file: its object, or the config of a run.json.</summary>
    private JsonObject? ReadJson(Arguments arguments, string file)
    {
        try
        {
            JsonNode? json = JsonNode.Parse(File.ReadAllText(file));
            if (json is JsonObject record && record.ContainsKey("format_version") && record["config"] is JsonObject config) return config;
            if (json is JsonObject settings) return settings;
            arguments.Add(_config.Name, file, "must hold a JSON object with settings: {\"training\": {\"max_steps\": 1000}, ...}");
        }
        catch (JsonException e) { arguments.Add(_config.Name, file, $"is not JSON ({e.Message.TrimEnd('.')}): mend it"); }
        catch (Exception e) when (e is IOException or UnauthorizedAccessException or ArgumentException or NotSupportedException) { arguments.Add(_config.Name, file, $"cannot be read ({e.Message.TrimEnd('.')})"); }
        return null;
    }
}
