using System.CommandLine;
using NopeGpt.Jobs.Inference;
using NopeGpt.Model;
using NopeGpt.Model.Storage;

namespace NopeGpt.Jobs.Commands;

/// <summary>`nopegpt import`: makes a model of another program one of ours.</summary>
internal sealed class ImportVerb() : Verb("import", "Make a folder of ours (config.json, model.safetensors, tokenizer.json) from a model of another program.")
{
    private readonly Argument<string?> _source = new("SOURCE")
    {
        Description = "Folder with config.json and safetensors (NoPE GPT, GPT-2, Llama, lilLM), one file of a GPT-2, or a llama2.c .bin file.", Arity = ArgumentArity.ExactlyOne,
    };

    private readonly Option<string?> _out = OutputFolder.Create("New folder for the model.");
    private readonly Option<string?> _tokenizer = CommonOptions.Text("--tokenizer", "FILE", "The model's tokenizer: a tokenizer.json, a .tiktoken file or llama2.c's tokenizer.bin. Default: the one that lies with the model.");
    private readonly Option<string?> _tiktoken = CommonOptions.Tiktoken(), _root = CommonOptions.Root();

    private readonly Option<bool> _json = CommonOptions.Json();

    public override IReadOnlyList<Argument<string?>> Positions => [_source];

    public override IReadOnlyList<Option> Options => [_out, _tokenizer, _tiktoken, _root, _json];

    public override Func<CancellationToken, Task<int>> Read(Arguments arguments)
    {
        string? source = arguments.Text(_source), tokenizer = arguments.Text(_tokenizer);
        if (source is not null && !Directory.Exists(source) && !File.Exists(source)) arguments.Add(_source.Name, source, "there is no such folder or file");
        if (tokenizer is not null && !File.Exists(tokenizer)) arguments.Add(_tokenizer.Name, tokenizer, "there is no such file");
        string folder = OutputFolder.Read(arguments, _out);
        IReadOnlyList<string> places = arguments.TokenizerPlaces(_tiktoken, _root);
        bool json = arguments.Flag(_json);
        return Abandonable(() =>
        {
            ComputeDevice.Start(arguments.TorchLibrary, "cpu", threads: 0);
            using Decoder model = Checkpoint.LoadModel(source!);
            int size = model.Config.VocabularySize;
            Checkpoint.SaveModel(folder, model, aside => ModelTokenizer.Put(tokenizer ?? ModelTokenizer.Beside(source!, size), aside, size, places));
            OutputFolder.Tell(json, folder, model, $"{folder} has the model: {model.CountParameters():#,0} parameters; `nopegpt inspect {folder}` shows it");
            return ExitCode.Done;
        }, folder);
    }
}
