using NopeGpt.Jobs;
using NopeGpt.Model;

namespace NopeGpt.Web.Components.Parts;

/// <summary>What a pretraining run asks for, before it starts.</summary>
/// <param name="Parameters">Null while the vocabulary is not known.</param>
/// <param name="Tokens">Training tokens of the whole run.</param>
/// <param name="Epochs">Times that the data set is seen; null where its size is not known.</param>
/// <param name="Flops">Floating-point operations of the whole run.</param>
/// <param name="Seconds">From the measured speed of another run on this machine, by the operations for each token; null without one.</param>
internal sealed record RunEstimate(long? Parameters, double Tokens, double? Epochs, double? Flops, double? Seconds)
{
    /// <param name="datasets">The facts of the data sets that the runs name.</param>
    /// <param name="measured">A run that has been, and its speed in tokens per second.</param>
    public static RunEstimate Of(RunConfig config, DatasetFacts datasets, (RunConfig Config, double TokensPerSecond)? measured)
    {
        long? samples = datasets.Find(config.Data.Dataset) is { Tokens: > 0 } known ? known.Tokens / Math.Max(1, config.Data.TokensPerSample) : null;
        double tokens = (double)(RunLength.Scheduled(config, samples) ?? 0) * RunLength.TokensPerStep(config);
        ModelConfig? model = Whole(config, datasets);
        double? perToken = model?.FlopsPerToken(config.Data.TokensPerSample);
        double? seconds = null;
        if (perToken is { } wanted && measured is { } run && Whole(run.Config, datasets)?.FlopsPerToken(run.Config.Data.TokensPerSample) is { } then)
            seconds = tokens / run.TokensPerSecond * wanted / then;
        return new RunEstimate(model?.ParameterCount, tokens, datasets.Find(config.Data.Dataset) is { Tokens: > 0 } data ? tokens / data.Tokens : null, perToken * tokens, seconds);
    }

    // A vocabulary of 0 is the data set's.
    private static ModelConfig? Whole(RunConfig config, DatasetFacts datasets)
    {
        int vocabulary = config.Model.VocabularySize > 0 ? config.Model.VocabularySize : datasets.Find(config.Data.Dataset)?.Vocabulary ?? 0;
        ModelConfig model = config.Model with { VocabularySize = vocabulary };
        return vocabulary > 0 && !model.Problems().Any() ? model : null;
    }
}
