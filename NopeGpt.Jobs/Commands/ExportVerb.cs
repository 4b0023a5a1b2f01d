using System.CommandLine;
using NopeGpt.Jobs.Inference;
using NopeGpt.Model.Storage.Layouts;
using static TorchSharp.torch;

namespace NopeGpt.Jobs.Commands;

/// <summary>`nopegpt export`: writes a model as other programs read it.</summary>
internal sealed class ExportVerb() : Verb("export", "Write a model in the layout of another program.")
{
    private static readonly Dictionary<string, ScalarType> Types = new()
    {
        ["float32"] = ScalarType.Float32, ["bfloat16"] = ScalarType.BFloat16, ["float16"] = ScalarType.Float16,
    };

    private readonly Argument<string?> _model = CheckpointOption.Position("DIR");
    private readonly Option<string?> _layout = CommonOptions.Text("--layout", "NAME", $"One of {string.Join(", ", HubLayout.Names)}.", required: true);
    private readonly Option<string?> _out = OutputFolder.Create("New folder for the files.");
    private readonly Option<string?> _type = CommonOptions.Text("--dtype", "TYPE", $"Type of the weights: {string.Join(", ", Types.Keys)}.", "float32");
    private readonly Option<string?> _shard = CommonOptions.Text("--max_shard_size", "MB", "Most megabytes in one file; more are written as shards with an index. Default: one file.");
    private readonly Option<string?> _tiktoken = CommonOptions.Tiktoken(), _root = CommonOptions.Root();

    private readonly Option<bool> _json = CommonOptions.Json();

    public override IReadOnlyList<Argument<string?>> Positions => [_model];

    public override IReadOnlyList<Option> Options => [_layout, _out, _type, _shard, _tiktoken, _root, _json];

    public override Func<CancellationToken, Task<int>> Read(Arguments arguments)
    {
        IReadOnlyList<string> folders = CheckpointOption.Resolve(arguments, _root, _model.Name, arguments.Text(_model));
        string layout = arguments.Text(_layout) ?? "", type = arguments.Text(_type) ?? "float32", folder = OutputFolder.Read(arguments, _out);
        if (layout.Length > 0 && !HubLayout.Names.Contains(layout)) arguments.Add(_layout.Name, layout, $"choose {string.Join(", ", HubLayout.Names)}");
        if (!Types.TryGetValue(type, out ScalarType scalar)) arguments.Add(_type.Name, type, $"choose {string.Join(", ", Types.Keys)}");
        int? megabytes = arguments.Whole(_shard, 1, int.MaxValue);
        IReadOnlyList<string> places = arguments.TokenizerPlaces(_tiktoken, _root);
        bool json = arguments.Flag(_json);
        return Abandonable(() =>
        {
            ComputeDevice.Start(arguments.TorchLibrary, "cpu", threads: 0);
            using ModelExport export = ModelExport.Open(folders[0], adapter: null, strength: 1, places);
            export.Write(layout, folder, scalar, megabytes * 1_000_000L, Console.Error.WriteLine);
            OutputFolder.Tell(json, folder, export.Model, $"{folder} has the model in the layout {layout}");
            return ExitCode.Done;
        }, folder);
    }
}
