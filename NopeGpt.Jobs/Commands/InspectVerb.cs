using System.CommandLine;
using System.Globalization;
using System.Text;
using System.Text.Json;
using System.Text.Json.Nodes;
using NopeGpt.Jobs.Configuration;
using NopeGpt.Model;
using NopeGpt.Model.Storage;
using NopeGpt.Model.Storage.Layouts;

namespace NopeGpt.Jobs.Commands;

/// <summary>`nopegpt inspect`: what a model on disk is, without loading it.</summary>
internal sealed class InspectVerb() : Verb("inspect", "Print a model's layout, config, parameter counts and memory. The weights are not loaded.")
{
    private readonly Argument<string?> _model = CheckpointOption.Position("DIR");
    private readonly Option<string?> _context = CommonOptions.Text("--context_length", "N", "Tokens of the text whose cache is counted. Default: what the model was trained with, else 1024.");
    private readonly Option<string?> _root = CommonOptions.Root();
    private readonly Option<bool> _json = CommonOptions.Json();

    public override IReadOnlyList<Argument<string?>> Positions => [_model];

    public override IReadOnlyList<Option> Options => [_context, _root, _json];

    public override Func<CancellationToken, Task<int>> Read(Arguments arguments)
    {
        IReadOnlyList<string> folders = CheckpointOption.Resolve(arguments, _root, _model.Name, arguments.Text(_model));
        int? context = arguments.Whole(_context, 1, 1 << 24);
        bool json = arguments.Flag(_json);
        return Abandonable(() =>
        {
            JsonObject report = Report(HubLayout.Recognise(folders[0]), context);
            Console.WriteLine(json ? report.ToJsonString(Settings.Json) : Words(report));
            return ExitCode.Done;
        });
    }

    private static JsonObject Report(RecognisedModel model, int? context)
    {
        ModelConfig config = model.Config;
        ModelMemory memory = ModelMemory.Of(config);
        ParameterParts parts = config.Parameters;
        int tokens = context ?? (config.ContextLength > 0 ? config.ContextLength : Inference.LoadedModel.UsualContext);
        JsonObject report = new()
        {
            ["path"] = model.Path,
            ["layout"] = model.Layout,
            ["files"] = new JsonArray([.. model.WeightFiles.Select(f => JsonValue.Create(Path.GetFileName(f)))]),
            ["stored_bytes"] = model.WeightBytes,
            ["config"] = JsonSerializer.SerializeToNode(config),
            ["parameters"] = new JsonObject
            {
                ["total"] = parts.Total, ["embedding"] = parts.Embedding, ["positions"] = parts.Positions, ["attention"] = parts.Attention,
                ["mlp"] = parts.Mlp, ["norms"] = parts.Norms, ["head"] = parts.Head,
            },
            ["memory"] = new JsonObject
            {
                ["weights"] = memory.Weights,
                ["cache_per_token"] = memory.CachePerToken,
                ["cache_tokens"] = tokens,
                ["cache"] = memory.CachePerToken * tokens,
                ["training_adamw"] = memory.Weights + memory.Gradients + memory.AdamWState,
                ["training_muon"] = memory.Weights + memory.Gradients + memory.MuonState,
                ["training_adafactor"] = memory.Weights + memory.Gradients + memory.AdafactorState,
            },
        };
        if (Directory.Exists(model.Path) && Checkpoint.TrainerState(model.Path) is { } trainer)
        {
            JsonObject saved = [];
            foreach (string key in (string[])["step", "tokens", "loss", "tokens_per_sample"])
                if (trainer[key] is JsonValue value) saved[key] = value.DeepClone();
            report["training"] = saved;
        }
        return report;
    }

    private static string Words(JsonObject report)
    {
        StringBuilder text = new();
        Line("path", report["path"]!.GetValue<string>());
        Line("layout", report["layout"]!.GetValue<string>());
        Line("files", $"{string.Join(", ", report["files"]!.AsArray().Select(f => f!.GetValue<string>()))} ({Bytes(report["stored_bytes"]!)})");
        foreach (string section in (string[])["config", "parameters", "memory", "training"])
        {
            if (report[section] is not JsonObject values) continue;
            text.Append('\n').Append(section).Append('\n');
            foreach ((string name, JsonNode? value) in values) Line("  " + name, Shown(section, name, value!));
        }
        return text.ToString().TrimEnd('\n');

        void Line(string name, string value) => text.Append(CultureInfo.InvariantCulture, $"{name,-26}{value}\n");
    }

    private static string Shown(string section, string name, JsonNode value) =>
        section == "memory" && name != "cache_tokens" ? Bytes(value)
        : value is JsonValue number && number.TryGetValue(out long whole) ? whole.ToString(section == "config" ? "0" : "#,0", CultureInfo.InvariantCulture)
        : value.GetValueKind() == JsonValueKind.String ? value.GetValue<string>()
        : value.ToJsonString();

    private static string Bytes(JsonNode value)
    {
        double bytes = value.GetValue<long>();
        return bytes >= 1e9 ? string.Create(CultureInfo.InvariantCulture, $"{bytes / 1e9:0.00} GB")
            : bytes >= 1e6 ? string.Create(CultureInfo.InvariantCulture, $"{bytes / 1e6:0.0} MB")
            : string.Create(CultureInfo.InvariantCulture, $"{bytes / 1e3:0.0} kB");
    }
}
