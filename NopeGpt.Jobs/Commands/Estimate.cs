using NopeGpt.Model;
using NopeGpt.Model.Replicas;

namespace NopeGpt.Jobs.Commands;

/// <summary>What a run takes. The names in JSON are these in snake_case.</summary>
/// <param name="AspectRatio">Width over layers.</param>
/// <param name="HeadDimensions">Width over query heads.</param>
internal sealed record Estimate(long Parameters, ParameterParts Parts, double AspectRatio, int HeadDimensions, EstimatedMemory Memory, EstimatedFlops Flops, EstimatedTokens Tokens, EstimatedTime Time)
{
    /// <summary>Of the tokens that Hoffmann et al. (2022, "Training Compute-Optimal Large Language Models") find best for a given amount of arithmetic.</summary>
    private const int TokensPerParameter = 20;

    public static Estimate Of(RunConfig config, long? tokens, double rate, double utilisation, bool cpu)
    {
        ModelConfig model = config.Model;
        long perStep = RunLength.TokensPerStep(config), run = perStep * (RunLength.Scheduled(config, tokens / config.Data.TokensPerSample) ?? 0);
        double perToken = model.FlopsPerToken(config.Data.TokensPerSample), speed = rate * utilisation / perToken;
        long advised = TokensPerParameter * model.ParameterCount;
        return new(
            model.ParameterCount, model.Parameters, (double)model.EmbeddingDimensions / model.NumDecoderLayers, model.HeadDimensions,
            MemoryOf(config, cpu),
            new(perToken, perToken / 3, perToken * config.Data.TokensPerSample, perToken * perStep, perToken * run),
            new(perStep, run, tokens, tokens > 0 ? (double)run / tokens : null, advised, (advised + perStep - 1) / perStep),
            new(rate, utilisation, speed, perStep / speed, run / speed));
    }

    private static EstimatedMemory MemoryOf(RunConfig config, bool cpu)
    {
        int devices = config.DeviceCount;
        ModelMemory whole = ModelMemory.Of(config.Model);
        long state = config.Optimizer.Optimizer switch { OptimizerKind.Adafactor => whole.AdafactorState, OptimizerKind.Muon => whole.MuonState, _ => whole.AdamWState };
        DeviceShare each = ModelMemory.PerDevice(config.Model, devices, (Sharding)config.Training.ShardingLevel, state);
        long activations = StepMemory.Of(config.Model, config.Training.BatchSize, config.Data.TokensPerSample, config.Training.ActivationCheckpointing, cpu)
            .PeakWith(each.Gradients, held: devices > 1 || config.Training.GradientAccumulationSteps > 1) - each.Gradients;
        return new(devices, each.Weights, each.Gradients, each.Optimizer, activations, each.Weights + each.Gradients + each.Optimizer + activations,
            whole.Weights + state, whole.CachePerToken);
    }
}

/// <summary>Bytes of tensors on each device at the step's peak; what the allocator wastes comes on top.</summary>
/// <param name="Devices">How many train together.</param>
/// <param name="Activations">What a step takes beside the rest (<see cref="StepMemory"/>), less gradients that come only when it is gone.</param>
/// <param name="Checkpoint">Weights and optimizer state of all devices.</param>
/// <param name="CachePerToken">Keys and values of one token when the model writes.</param>
internal sealed record EstimatedMemory(int Devices, long Weights, long Gradients, long Optimizer, long Activations, long Total, long Checkpoint, long CachePerToken);

/// <param name="PerToken">Forward and backward: 6N + 12·layers·heads·head width·tokens a sample (PaLM, appendix B).</param>
/// <param name="ForwardPerToken">A third of it.</param>
internal sealed record EstimatedFlops(double PerToken, double ForwardPerToken, double PerSample, double PerStep, double Run);

/// <param name="Dataset">Tokens of the data set; null where none is named.</param>
internal sealed record EstimatedTokens(long PerStep, long Run, long? Dataset, double? Epochs, long Advised, long AdvisedSteps);

internal sealed record EstimatedTime(double MatrixRate, double Utilisation, double TokensPerSecond, double StepSeconds, double RunSeconds);
