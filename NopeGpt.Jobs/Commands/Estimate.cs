using NopeGpt.Model;

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
            EstimatedMemory.Of(config, config.Data.TokensPerSample, cpu),
            new(perToken, perToken / 3, perToken * config.Data.TokensPerSample, perToken * perStep, perToken * run),
            new(perStep, run, tokens, tokens > 0 ? (double)run / tokens : null, advised, (advised + perStep - 1) / perStep),
            new(rate, utilisation, speed, perStep / speed, run / speed));
    }
}

/// <param name="PerToken">Forward and backward: 6N + 12·layers·heads·head width·tokens a sample (PaLM, appendix B).</param>
/// <param name="ForwardPerToken">A third of it.</param>
internal sealed record EstimatedFlops(double PerToken, double ForwardPerToken, double PerSample, double PerStep, double Run);

/// <param name="Dataset">Tokens of the data set; null where none is named.</param>
internal sealed record EstimatedTokens(long PerStep, long Run, long? Dataset, double? Epochs, long Advised, long AdvisedSteps);

internal sealed record EstimatedTime(double MatrixRate, double Utilisation, double TokensPerSecond, double StepSeconds, double RunSeconds);
