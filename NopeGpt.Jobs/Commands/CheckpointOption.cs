using System.CommandLine;
using NopeGpt.Jobs.Inference;

namespace NopeGpt.Jobs.Commands;

/// <summary>How a command names a model: a folder in any layout of the model library, a file of one, or a run of the store.</summary>
internal static class CheckpointOption
{
    private const string What = "Model: a checkpoint folder, a folder from the Hub, a llama2.c file, or a run of the store: RUN_ID (its newest checkpoint) or RUN_ID/STEP.";

    public static Option<string?> Create() => CommonOptions.Text("--checkpoint", "DIR", What, required: true, aliases: "--checkpoint_path");

    public static Argument<string?> Position(string name) => new(name) { Description = What, Arity = ArgumentArity.ExactlyOne };

    /// <summary>The folders or files that the words mean, best first: a run's newest checkpoint, then those before it. What is wrong is added to the problems.</summary>
    /// <param name="field">What the words were given for, for the problem's sentence.</param>
    public static IReadOnlyList<string> Resolve(Arguments arguments, Option<string?> root, string field, string? words)
    {
        if (words is null) return [];
        try
        {
            if (words.Length > 0 && (Directory.Exists(words) || File.Exists(words))) return [Path.GetFullPath(words)];
            string[] parts = words.Split('/');
            if (parts.Length <= 2 && Store.IsName(parts[0])) return new ModelCatalog(arguments.Store(root)).Resolve(words);
            arguments.Add(field, words, "there is no such folder: name a checkpoint folder, or a run of the store by its id");
        }
        catch (ModelException e) { arguments.Add(field, words, e.Message); }
        catch (UserException e) { arguments.Add(field, words, e.Message); }
        return [];
    }
}
