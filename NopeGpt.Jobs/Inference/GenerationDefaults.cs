namespace NopeGpt.Jobs.Inference;

/// <summary>What a text is written with where nothing else is asked for; the rest stands in SamplingOptions.</summary>
internal static class GenerationDefaults
{
    public const int MaxTokens = 200;
}
