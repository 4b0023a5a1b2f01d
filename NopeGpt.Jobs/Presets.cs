using NopeGpt.Jobs.Configuration;
using NopeGpt.Model;
using NopeGpt.Model.Optimizers;

namespace NopeGpt.Jobs;

/// <summary>A recipe that is known to work.</summary>
public sealed record Preset(string Name, string Description, RunConfig Config);

/// <summary>The recipes in code. A test checks every one.</summary>
public static class Presets
{
    public static IReadOnlyList<Preset> All { get; } =
    [
        new("stories", "1.2 million parameters, about four minutes on two CPU cores: writes short stories.", Stories(
            new ModelConfig { VocabularySize = 0, EmbeddingDimensions = 128, NumQHeads = 4, NumKvHeads = 2, NumDecoderLayers = 4 },
            new TrainingConfig { BatchSize = 4, MaxSteps = 1500, EvalInterval = 150, CheckpointInterval = 150 })),
        new("stories-tiny", "75 thousand parameters, a few seconds: to see that everything works.", Stories(
            new ModelConfig { VocabularySize = 0, EmbeddingDimensions = 48, NumQHeads = 4, NumKvHeads = 2, NumDecoderLayers = 2 },
            new TrainingConfig { BatchSize = 8, MaxSteps = 120, EvalInterval = 40, CheckpointInterval = 40, SampleTokens = 30 }) with
            { Data = new DataConfig { Dataset = "stories-tiny", TokensPerSample = 64, NumEvalSamples = 16 }, Optimizer = Recipe with { WarmupSteps = 10 } }),
    ];

    /// <summary>The optimizer of every preset; see docs/experiments.md for what was compared.</summary>
    private static OptimizerConfig Recipe => new() { LearningRate = 8e-3, Schedule = LearningRateSchedule.Cosine, WarmupSteps = 100, MinimumRatio = 0.05 };

    /// <exception cref="UserException">There is no preset of that name.</exception>
    public static Preset Find(string name) => All.FirstOrDefault(p => p.Name == name)
        ?? throw new UserException($"there is no preset '{name}'{(Settings.Nearest(name, All.Select(p => p.Name)) is { } near ? $"; did you mean {near}?" : "")}: known are {string.Join(", ", All.Select(p => p.Name))}");

    private static RunConfig Stories(ModelConfig model, TrainingConfig training) => new()
    {
        Kind = RunKind.Pretrain,
        Name = "Story model",
        Model = model,
        Training = training,
        Optimizer = Recipe,
        Data = new DataConfig { Dataset = "stories", TokensPerSample = 256, NumEvalSamples = 64 },
    };
}

/// <summary>From nothing to a model that one can talk to: three runs, each after the one before.</summary>
public static class Quickstart
{
    public static IReadOnlyList<string> Sizes { get; } = ["tiny", "default"];

    /// <summary>Prepare, pretrain, evaluate.</summary>
    /// <exception cref="UserException">An unknown size.</exception>
    public static IReadOnlyList<RunConfig> Runs(string size)
    {
        (string preset, long bytes, int vocabulary) = size switch
        {
            "default" => ("stories", 8_000_000L, 4096),
            "tiny" => ("stories-tiny", 300_000L, 512),
            _ => throw new UserException($"there is no quickstart of size '{size}': choose {string.Join(" or ", Sizes)}"),
        };
        RunConfig pretrain = Presets.Find(preset).Config;
        return
        [
            new RunConfig { Kind = RunKind.Prepare, Name = "Story corpus", Prepare = new PrepareConfig { Source = "stories", CorpusBytes = bytes, VocabularySize = vocabulary, Dataset = pretrain.Data.Dataset } },
            pretrain,
            new RunConfig { Kind = RunKind.Evaluate, Name = "Story model: what it learned", Data = pretrain.Data, Evaluate = new EvaluateConfig { MaxTokens = size == "tiny" ? 40 : 200 } },
        ];
    }
}
