using System.CommandLine;
using NopeGpt.Jobs.Inference;

namespace NopeGpt.Jobs.Commands;

/// <summary>`nopegpt merge`: a model with an adapter's changes in its own weights.</summary>
internal sealed class MergeVerb() : Verb("merge", "Write a model whose weights have a LoRA adapter's changes in them.")
{
    private readonly Argument<string?> _model = CheckpointOption.Position("CHECKPOINT");
    private readonly Argument<string?> _adapter = new("ADAPTER") { Description = "Folder of the adapter, made on that model.", Arity = ArgumentArity.ExactlyOne };
    private readonly Option<string?> _out = OutputFolder.Create("New folder for the merged model.");
    private readonly Option<string?> _strength = CommonOptions.Text("--strength", "X", "How much of the adapter is added: 1 as it was trained.", "1");
    private readonly Option<string?> _tiktoken = CommonOptions.Tiktoken(), _root = CommonOptions.Root();

    private readonly Option<bool> _json = CommonOptions.Json();

    public override IReadOnlyList<Argument<string?>> Positions => [_model, _adapter];

    public override IReadOnlyList<Option> Options => [_out, _strength, _tiktoken, _root, _json];

    public override Func<CancellationToken, Task<int>> Read(Arguments arguments)
    {
        IReadOnlyList<string> folders = CheckpointOption.Resolve(arguments, _root, _model.Name, arguments.Text(_model));
        string adapterFolder = AdapterArgument.Read(arguments, _adapter.Name, arguments.Text(_adapter)) ?? "";
        string folder = OutputFolder.Read(arguments, _out);
        double strength = arguments.Number(_strength, 0, 1000) ?? 1;
        IReadOnlyList<string> places = arguments.TokenizerPlaces(_tiktoken, _root);
        bool json = arguments.Flag(_json);
        return Abandonable(() =>
        {
            ComputeDevice.Start(arguments.TorchLibrary, "cpu", threads: 0);
            using ModelExport merged = ModelExport.Open(folders[0], adapterFolder, strength, places);
            merged.Save(folder, Console.Error.WriteLine);
            OutputFolder.Tell(json, folder, merged.Model, $"{folder} has the merged model: {merged.Model.CountParameters():#,0} parameters, vocabulary {merged.Model.Config.VocabularySize}");
            return ExitCode.Done;
        }, folder);
    }
}
