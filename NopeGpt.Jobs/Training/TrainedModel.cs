using NopeGpt.Model;
using NopeGpt.Model.Storage;
using static TorchSharp.torch;

namespace NopeGpt.Jobs.Training;

/// <summary>The model that a run trains: new, or a base with what fine-tuning adds to it. What of it trains is in the model itself
/// (<see cref="Decoder.TrainedParameters"/>).</summary>
internal static class TrainedModel
{
    /// <param name="config">With the base as a folder, where there is one.</param>
    /// <param name="from">The checkpoint to go on from; null begins.</param>
    /// <exception cref="UserException">The checkpoint is of another run's sizes.</exception>
    /// <exception cref="InvalidDataException">A file is damaged, or the base is another than the one that the adapter was begun with.</exception>
    public static Decoder Open(RunConfig config, ITrainingSet data, string? from, Device device)
    {
        Decoder model = config.Kind == RunKind.Pretrain ? Pretrained(config, data, from, device)
            : config.Finetune.Method == FinetuneMethod.Full ? Whole(config, data, from, device) : Adapted(config, data, from, device);
        (model.Precision, model.ActivationCheckpointing) = (config.Training.Precision, config.Training.ActivationCheckpointing);
        return model;
    }

    private static Decoder Pretrained(RunConfig config, ITrainingSet data, string? from, Device device)
    {
        ModelConfig wanted = config.Model.VocabularySize == 0 ? config.Model with { VocabularySize = data.Tokenizer.VocabularySize } : config.Model;
        return from is null ? new(wanted, config.Seed, device) : Fitting(Checkpoint.LoadModel(from, device), wanted, from);
    }

    private static Decoder Whole(RunConfig config, ITrainingSet data, string? from, Device device)
    {
        // Since the beginning the vocabulary is in run.json.
        if (from is not null) return Fitting(Checkpoint.LoadModel(from, device), config.Model, from);
        Decoder model = Checkpoint.LoadModel(config.Finetune.BaseCheckpointPath, device);
        return Prepared(model, () =>
        {
            model.ResizeVocabulary(Vocabulary(model, data), config.Seed);
            model.SeedDropout(config.Seed);
        });
    }

    private static Decoder Adapted(RunConfig config, ITrainingSet data, string? from, Device device)
    {
        Decoder model = Checkpoint.LoadModel(config.Finetune.BaseCheckpointPath, device);
        return Prepared(model, () =>
        {
            model.Attach(from is null ? Adapter.Create(model, config.Finetune.Lora(), config.Seed, Vocabulary(model, data)) : Adapter.Load(from, model));
            model.SeedDropout(config.Seed);
        });
    }

    /// <summary>Grown where the conversations have markers that the base does not know. A base may have more tokens than its tokenizer: padding.</summary>
    private static int Vocabulary(Decoder model, ITrainingSet data) => Math.Max(model.Config.VocabularySize, data.Tokenizer.VocabularySize);

    private static Decoder Fitting(Decoder model, ModelConfig wanted, string from) => Prepared(model, () =>
    {
        if (model.Config != wanted) throw new UserException($"{from} has other sizes ({model.Config}) than this run's config: delete that folder, or start a new run");
    });

    private static Decoder Prepared(Decoder model, Action prepare)
    {
        try
        {
            prepare();
            return model;
        }
        catch
        {
            foreach (AttachedAdapter attached in model.Adapters) attached.Adapter.Dispose();
            model.Dispose();
            throw;
        }
    }
}
