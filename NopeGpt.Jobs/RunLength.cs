using NopeGpt.Model.Replicas;

namespace NopeGpt.Jobs;

/// <summary>How many optimizer steps a training run has. It ends at the first of its limits.</summary>
public static class RunLength
{
    /// <summary>Steps of a run that gives no limit.</summary>
    public const int DefaultSteps = 500;

    /// <summary>Steps that the learning rate's schedule goes over: max_steps, or where that is 0 what the other limits make.</summary>
    /// <param name="trainingSamples">Samples of one epoch; null where the data is not known.</param>
    /// <returns>0: only max_minutes ends the run. Null: max_epochs counts, and the data is not known.</returns>
    public static long? Scheduled(RunConfig config, long? trainingSamples)
    {
        if (config.Training.MaxSteps > 0) return config.Training.MaxSteps;
        if (Epochs(config) > 0 && trainingSamples is null) return null;
        return new[] { ByTokens(config), ByEpochs(config, trainingSamples) }.Min() ?? (config.Training.MaxMinutes > 0 ? 0 : DefaultSteps);
    }

    /// <summary>The step after which the run ends; <see cref="long.MaxValue"/> where only the time ends it.</summary>
    public static long Last(RunConfig config, long trainingSamples)
    {
        long? steps = Scheduled(config, trainingSamples);
        return new[] { steps > 0 ? steps : null, ByTokens(config), ByEpochs(config, trainingSamples) }.Min() ?? long.MaxValue;
    }

    /// <summary>Training tokens of one optimizer step.</summary>
    public static long TokensPerStep(RunConfig config) => SamplesPerStep(config) * config.Data.TokensPerSample;

    /// <summary>Samples of one optimizer step.</summary>
    public static long SamplesPerStep(RunConfig config) =>
        (long)config.Training.BatchSize * Accumulation.Over(config.Training.GradientAccumulationSteps, config.DeviceCount).PerDevice * config.DeviceCount;

    /// <summary>Times that the data is gone through at most; 0 = no limit.</summary>
    private static double Epochs(RunConfig config) => config.Kind != RunKind.Finetune ? config.Training.MaxEpochs : config.Training.MaxSteps > 0 ? 0 : config.Finetune.NumEpochs;

    // Sizes below 1 are a problem of their own.
    // Conversations are of any length: the loop itself counts their tokens.
    private static long? ByTokens(RunConfig config) =>
        config.Kind != RunKind.Finetune && config.Training.MaxTokens > 0 ? (config.Training.MaxTokens + Math.Max(1, TokensPerStep(config)) - 1) / Math.Max(1, TokensPerStep(config)) : null;

    private static long? ByEpochs(RunConfig config, long? trainingSamples) => Epochs(config) is > 0 and var epochs && trainingSamples is { } samples
        ? Math.Max(1, (long)Math.Ceiling(epochs * samples / Math.Max(1, SamplesPerStep(config)))) : null;
}
