using System.CommandLine;
using System.Text.Json;
using NopeGpt.Jobs.Configuration;
using NopeGpt.Model;
using NopeGpt.Model.Native;
using NopeGpt.Model.Storage;

namespace NopeGpt.Jobs.Commands;

/// <summary>`nopegpt score`: how well a model predicts given ids.</summary>
internal sealed class ScoreVerb() : Verb("score", "Print the loss, the perplexity and each target's log-probability of a batch of ids as JSON on stdout.")
{
    private readonly Option<string?> _checkpoint = CheckpointOption.Create();
    private readonly Option<string?> _adapter = WritingModel.AdapterOption();
    private readonly Option<string?> _batch = CommonOptions.Text("--batch", "FILE", "{\"tokens\": [[...]], \"targets\": [[...]]}: rows of ids and the id that should follow each; -100 leaves one out.", required: true);
    private readonly Option<string?> _root = CommonOptions.Root(), _device = CommonOptions.Device(), _threads = CommonOptions.Threads();
    private readonly Option<bool> _json = CommonOptions.Flag("--json", "As without it: the output is JSON.");

    public override IReadOnlyList<Option> Options => [_checkpoint, _adapter, _batch, _root, _device, _threads, _json];

    public override Func<CancellationToken, Task<int>> Read(Arguments arguments)
    {
        IReadOnlyList<string> folders = CheckpointOption.Resolve(arguments, _root, _checkpoint.Name, arguments.Text(_checkpoint));
        string? batch = arguments.Text(_batch), adapter = AdapterArgument.Read(arguments, _adapter.Name, arguments.Text(_adapter));
        if (batch is not null && !File.Exists(batch)) arguments.Add(_batch.Name, batch, "there is no such file");
        (string device, int threads) = (arguments.Device(_device), arguments.Whole(_threads, 0, 1024) ?? 0);
        return Abandonable(() => Run(folders[0], adapter, batch!, ComputeDevice.Start(arguments.TorchLibrary, device, threads)));
    }

    // One line: a batch has thousands of numbers.
    private static readonly JsonSerializerOptions Json = new(Settings.Json) { WriteIndented = false, DefaultIgnoreCondition = System.Text.Json.Serialization.JsonIgnoreCondition.Never };

    private static int Run(string folder, string? adapter, string batchFile, ComputeDevice device)
    {
        ScoreBatch batch = ScoreBatch.Read(batchFile);
        using Decoder model = Checkpoint.LoadModel(folder, device.Device);
        using Adapter? attached = adapter is null ? null : Adapter.Load(adapter, model);
        if (attached is not null) model.Attach(attached);
        TorchRuntime.SetThreads(device.ThreadsFor(model.Config.ParameterCount));
        Console.WriteLine(JsonSerializer.Serialize(batch.Run(model, folder, batchFile), Json));
        return ExitCode.Done;
    }
}
