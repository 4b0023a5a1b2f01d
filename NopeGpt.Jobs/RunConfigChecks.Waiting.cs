using NopeGpt.Jobs.Inference;
using NopeGpt.Model;
using NopeGpt.Model.Storage.Layouts;

namespace NopeGpt.Jobs;

// What can be wrong with a run whose model is yet to be trained by a run before it.
public static partial class RunConfigChecks
{
    /// <summary>The network of a model that is there; null where nothing can be found out.</summary>
    internal static ModelConfig? ModelAt(string words, Store store)
    {
        try { return HubLayout.Recognise(CheckpointModel.Weights(BaseCheckpoint.Find(words, store, warn: null))).Config; }
        catch (Exception e) when (e is UserException or IOException or InvalidDataException or ArgumentException or NotSupportedException or UnauthorizedAccessException) { return null; }
    }

    /// <summary>What of a fine-tuning does not fit the network of its base.</summary>
    internal static void BaseWillFit(RunConfig config, ModelConfig model, List<Problem> problems)
    {
        if (model.Positions == Positions.Learned && config.Finetune.MaxTokensPerSample > model.ContextLength)
            Add(new Problem("finetune.max_tokens_per_sample", Text(config.Finetune.MaxTokensPerSample), $"is more than the {model.ContextLength} positions that the base has learned: choose at most that"));
        if (config.Finetune.Method != FinetuneMethod.Lora) return;
        foreach (Problem problem in config.Finetune.Lora().Problems(Known(model))) Add(problem with { Field = "finetune.lora_" + problem.Field });

        void Add(Problem problem)
        {
            if (problems.All(p => p.Field != problem.Field)) problems.Add(problem);
        }
    }

    /// <param name="model">Null where it is not known.</param>
    internal static void ExportWillFit(ExportConfig export, ModelConfig? model, bool isAdapter, List<Problem> problems)
    {
        if (!isAdapter && export.Adapter.Length == 0 && export.Strength != 1 && problems.All(p => p.Field != "export.strength")) NoAdapter(export, problems);
        if (model is not null && problems.All(p => p.Field != LayoutField)) LayoutFits(export.Layout, Known(model), problems);
    }

    /// <param name="modelWaits">The checkpoint is yet to be trained.</param>
    /// <param name="dataWaits">The data set is yet to be prepared.</param>
    internal static void MeasuredWillFit(RunConfig config, bool modelWaits, bool dataWaits, Store store, List<Problem> problems)
    {
        if (modelWaits && !dataWaits && config.Data.Dataset.Length > 0 && problems.All(p => p.Field != "data.dataset")) TokenFileFits(config with { Model = config.Model with { VocabularySize = 0 } }, store, problems);
    }

    // The vocabulary is the tokenizer's, which may be trained only then.
    private static ModelConfig Known(ModelConfig model) => model.VocabularySize == 0 ? model with { VocabularySize = AnyVocabulary } : model;
}
