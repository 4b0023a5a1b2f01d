using NopeGpt.Jobs.Inference;
using NopeGpt.Model.Storage;

namespace NopeGpt.Jobs;

/// <summary>Finds the model that a fine-tuning begins from, or an export writes.</summary>
internal static class BaseCheckpoint
{
    /// <summary>The config with the base as a folder or file, so that no later checkpoint of its run can take its place; itself where it has none.</summary>
    /// <param name="warn">Gets a sentence for each damaged checkpoint that is passed over.</param>
    /// <exception cref="UserException">There is no such base.</exception>
    public static RunConfig Found(RunConfig config, Store store, Action<string> warn) => config.Kind == RunKind.Finetune
        ? config with { Finetune = config.Finetune with { BaseCheckpointPath = Find(config.Finetune.BaseCheckpointPath, store, warn) } } : config;

    /// <summary>The folder, or the file of a model, that the words name: a run's newest checkpoint, RUN_ID/STEP, or a path.</summary>
    /// <param name="warn">Null: whether the newest checkpoint is whole is not looked at.</param>
    /// <exception cref="UserException">There is none; the message says why, with the cure.</exception>
    public static string Find(string words, Store store, Action<string>? warn)
    {
        if (warn is not null && RunFolder.TryOpen(store, words, out RunFolder? run))
            return Checkpoint.NewestValid(run.CheckpointsPath, warn) ?? throw new UserException($"run {words} has no checkpoint yet: train it first, or name another");
        if (Path.Exists(words)) return Path.TrimEndingDirectorySeparator(Path.GetFullPath(words));
        string[] parts = words.Split('/');
        if (parts.Length > 2 || !Store.IsName(parts[0])) throw new UserException("there is no such folder: name a run's id, RUN_ID/STEP, a checkpoint folder or that of an imported model");
        try { return new ModelCatalog(store).Resolve(words)[0]; }
        catch (ModelException e) { throw new UserException(e.Message); }
    }
}
