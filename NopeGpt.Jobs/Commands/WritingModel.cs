using System.CommandLine;
using NopeGpt.Jobs.Inference;

namespace NopeGpt.Jobs.Commands;

/// <summary>The model that a command writes texts with.</summary>
/// <param name="Folders">Folders or files to try, best first.</param>
/// <param name="Adapter">The folder of a LoRA adapter to attach, or null.</param>
/// <param name="TokenizerPlaces">Where the file of a tokenizer that names a published encoding may lie.</param>
internal sealed record WritingModel(IReadOnlyList<string> Folders, string? Adapter, IReadOnlyList<string> TokenizerPlaces)
{
    public static Option<string?> AdapterOption() => CommonOptions.Text("--adapter", "DIR", "Folder of a LoRA adapter to attach.", aliases: "--lora_path");

    /// <summary>What is wrong is added to the problems.</summary>
    public static WritingModel Read(Arguments arguments, Option<string?> checkpoint, Option<string?> adapter, Option<string?> tiktoken, Option<string?> root)
    {
        IReadOnlyList<string> folders = CheckpointOption.Resolve(arguments, root, checkpoint.Name, arguments.Text(checkpoint));
        try { folders = [.. folders.Take(1).Select(LoadedModel.Complete), .. folders.Skip(1)]; }
        catch (ModelException e) { arguments.Add(checkpoint.Name, arguments.Text(checkpoint)!, e.Message); }
        return new(folders, AdapterArgument.Read(arguments, adapter.Name, arguments.Text(adapter)), arguments.TokenizerPlaces(tiktoken, root));
    }

    /// <summary>The first that can be used.</summary>
    public LoadedModel Load(ComputeDevice device)
    {
        for (int i = 0; ; i++)
        {
            try { return LoadedModel.Load(Folders[i], device, TokenizerPlaces, Adapter); }
            catch (ModelException e) when (e.Failure == ModelFailure.Unusable && i + 1 < Folders.Count)
            {
                Console.Error.WriteLine($"{e.Message}; the checkpoint before it is taken");
            }
        }
    }
}
