using System.CommandLine;
using NopeGpt.Jobs.Inference;

namespace NopeGpt.Jobs.Commands;

/// <summary>The model that a command writes texts with.</summary>
internal static class WritingModel
{
    public static Option<string?> Option() =>
        CommonOptions.Text("--checkpoint", "DIR", "Checkpoint folder, or a run of the store: RUN_ID (its newest checkpoint) or RUN_ID/STEP.", required: true, aliases: "--checkpoint_path");

    /// <summary>The folders to try, best first. What is wrong is added to the problems.</summary>
    public static IReadOnlyList<string> Folders(Arguments arguments, Option<string?> option, Option<string?> root)
    {
        if (arguments.Text(option) is not { } checkpoint) return [];
        try
        {
            if (checkpoint.Length > 0 && (Directory.Exists(checkpoint) || File.Exists(checkpoint))) return [LoadedModel.Complete(Path.GetFullPath(checkpoint))];
            string[] parts = checkpoint.Split('/');
            if (parts.Length <= 2 && Store.IsName(parts[0])) return new ModelCatalog(arguments.Store(root)).Resolve(checkpoint);
            arguments.Add(option.Name, checkpoint, "there is no such folder: name a checkpoint folder, or a run of the store by its id");
        }
        catch (ModelException e) { arguments.Add(option.Name, checkpoint, e.Message); }
        catch (UserException e) { arguments.Add(option.Name, checkpoint, e.Message); }
        return [];
    }

    /// <summary>The first that can be used.</summary>
    /// <param name="tokenizerPlaces">Where the file of a published encoding is looked for.</param>
    public static LoadedModel Load(IReadOnlyList<string> folders, ComputeDevice device, IReadOnlyList<string> tokenizerPlaces)
    {
        for (int i = 0; ; i++)
        {
            try { return LoadedModel.Load(folders[i], device, tokenizerPlaces); }
            catch (ModelException e) when (e.Failure == ModelFailure.Unusable && i + 1 < folders.Count)
            {
                Console.Error.WriteLine($"{e.Message}; the checkpoint before it is taken");
            }
        }
    }
}
