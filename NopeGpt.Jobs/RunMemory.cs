using NopeGpt.Data;
using NopeGpt.Jobs.Inference;
using NopeGpt.Jobs.Training;
using NopeGpt.Model;
using NopeGpt.Model.Replicas;
using NopeGpt.Model.Storage.Layouts;

namespace NopeGpt.Jobs;

/// <summary>Bytes of tensors on each device at the step's peak; what the allocator wastes comes on top.</summary>
/// <param name="Devices">How many train together.</param>
/// <param name="Activations">What a step takes beside the rest (<see cref="StepMemory"/>), less gradients that come only when it is gone.</param>
/// <param name="Checkpoint">Weights and optimizer state of all devices.</param>
/// <param name="CachePerToken">Keys and values of one token when the model writes.</param>
internal sealed record EstimatedMemory(int Devices, long Weights, long Gradients, long Optimizer, long Activations, long Total, long Checkpoint, long CachePerToken)
{
    /// <summary>Of training all weights in float32.</summary>
    /// <param name="length">Tokens of a sample.</param>
    public static EstimatedMemory Of(RunConfig config, int length, bool cpu)
    {
        int devices = config.DeviceCount;
        ModelMemory whole = ModelMemory.Of(config.Model);
        long state = config.Optimizer.Optimizer switch { OptimizerKind.Adafactor => whole.AdafactorState, OptimizerKind.Muon => whole.MuonState, _ => whole.AdamWState };
        DeviceShare each = ModelMemory.PerDevice(config.Model, devices, (Sharding)config.Training.ShardingLevel, state);
        long activations = StepMemory.Of(config.Model, config.Training.BatchSize, length, config.Training.ActivationCheckpointing, cpu)
            .PeakWith(each.Gradients, held: devices > 1 || config.Training.GradientAccumulationSteps > 1) - each.Gradients;
        return new(devices, each.Weights, each.Gradients, each.Optimizer, activations, each.Weights + each.Gradients + each.Optimizer + activations,
            whole.Weights + state, whole.CachePerToken);
    }
}

/// <summary>Memory that a run needs of each of its devices, in bytes, from shapes alone: nothing is loaded.</summary>
internal static class RunMemory
{
    /// <summary>Of the process itself: the runtime and libtorch with its threads' memory.</summary>
    public const long CpuOverhead = 300_000_000;

    /// <summary>Of a process on a GPU: the CUDA context with libtorch's kernels, and the workspaces of its libraries.</summary>
    public const long CudaOverhead = 800_000_000;

    private const int Float = sizeof(float);

    /// <summary>What the run needs of each GPU, or of this machine's memory with all its replicas.</summary>
    /// <param name="after">The run's predecessors: an evaluation without a checkpoint measures the last one's.</param>
    /// <returns>Null where it cannot be told: what the run reads is not there, or damaged, which the trainer will say in its own words.</returns>
    public static long? Of(RunConfig config, IReadOnlyList<string> after, Store store, bool cpu)
    {
        try
        {
            long? tensors = config.Kind switch
            {
                RunKind.Pretrain => Training(Whole(config, store), config.Data.TokensPerSample, cpu),
                RunKind.Finetune => Finetuning(config, store, cpu),
                RunKind.Evaluate => Evaluation(config, after, store, cpu),
                _ => 0,
            };
            return tensors is null ? null : checked((cpu ? CpuOverhead : CudaOverhead) + ((cpu ? config.DeviceCount : 1) * tensors));
        }
        catch (OverflowException) { return long.MaxValue; }
        catch (Exception e) when (e is IOException or InvalidDataException or ArgumentException or UnauthorizedAccessException or NotSupportedException or UserException) { return null; }
    }

    // A vocabulary of 0 is the data set's.
    private static RunConfig Whole(RunConfig config, Store store)
    {
        if (config.Model.VocabularySize > 0) return config;
        using TokenFile file = TrainingData.Open(config.Data.Dataset, config.Data.RawTokens, store);
        return config with { Model = config.Model with { VocabularySize = file.VocabularySize } };
    }

    private static long Training(RunConfig config, int length, bool cpu)
    {
        EstimatedMemory whole = EstimatedMemory.Of(config, length, cpu);
        if (cpu || config.Training.Precision == Precision.Float32) return whole.Total;
        // Products and attention are kept in two bytes, and with them a copy of the weights; auto chooses such a type on all GPUs of the last years.
        return whole.Total - (long)(whole.Activations * (1 - Narrowed(config.Model))) + (ModelMemory.Of(config.Model).Weights / 2);
    }

    /// <summary>What is left of a block's activations where products are in two bytes; see <see cref="StepMemory"/> for what a GPU keeps.</summary>
    private static double Narrowed(ModelConfig model)
    {
        double d = model.EmbeddingDimensions, wide = ((model.Norm == Norm.RmsNorm ? 6 : 4) * d) + model.NumQHeads;
        double narrow = (2 * d) + (2 * model.KvDimensions) + ((model.Mlp == Mlp.Swiglu ? 4.0 : 2.0) * model.HiddenDimensions);
        return (wide + (narrow / 2)) / (wide + narrow);
    }

    private static long Finetuning(RunConfig config, Store store, bool cpu)
    {
        string folder = BaseCheckpoint.Find(config.Finetune.BaseCheckpointPath, store, warn: null);
        using ChatSet set = new(config with { Finetune = config.Finetune with { BaseCheckpointPath = folder } }, store);
        ModelConfig own = HubLayout.Recognise(folder).Config;
        ModelConfig model = own with { VocabularySize = Math.Max(own.VocabularySize, set.Tokenizer.VocabularySize) };
        int length = config.Finetune.Packing ? config.Finetune.MaxTokensPerSample : Math.Min(config.Finetune.MaxTokensPerSample, set.ContextLength);
        RunConfig whole = config with { Model = model };
        if (config.Finetune.Method == FinetuneMethod.Full) return Training(whole, length, cpu);
        // The base has neither gradients nor optimizer state; activations are as in training all weights.
        (long products, long embedding) = config.Finetune.Lora().CountTrained(own, model.VocabularySize);
        EstimatedMemory all = EstimatedMemory.Of(whole, length, cpu);
        long moments = config.Optimizer.Optimizer == OptimizerKind.Adafactor ? 0 : 2;
        return Training(whole, length, cpu) - all.Gradients - all.Optimizer + ((products + embedding) * (2 + moments) * Float);
    }

    /// <summary>Weights, one block's passage of a batch without gradients, a chunk of logits, and the cache of the texts that it writes.</summary>
    private static long? Evaluation(RunConfig config, IReadOnlyList<string> after, Store store, bool cpu)
    {
        string named = config.Evaluate.Checkpoint.Length > 0 ? config.Evaluate.Checkpoint : after.Count > 0 ? after[^1] : "";
        if (named.Length == 0) return null;
        RunConfig trained = RunConfigChecks.TrainedBy(named, store) ?? config;
        ModelConfig model = HubLayout.Recognise(CheckpointModel.Weights(BaseCheckpoint.Find(named, store, warn: null))).Config;
        ModelMemory memory = ModelMemory.Of(model);
        long tokens = (long)trained.Training.BatchSize * trained.Data.TokensPerSample;
        long passage = tokens * Float * ((8L * model.EmbeddingDimensions) + (3L * model.HiddenDimensions));
        // Where blocks are computed again a step reserves what a forward pass takes.
        StepMemory step = StepMemory.Of(model, trained.Training.BatchSize, trained.Data.TokensPerSample, recomputed: true, cpu);
        return memory.Weights + passage + (cpu ? step.Reserved : step.Head) + (memory.CachePerToken * (trained.Data.TokensPerSample + config.Evaluate.MaxTokens));
    }
}
