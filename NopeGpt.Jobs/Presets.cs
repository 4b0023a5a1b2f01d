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
            new TrainingConfig { BatchSize = 4, MaxSteps = 1200, EvalInterval = 150, CheckpointInterval = 150 })),
        new("stories-tiny", "75 thousand parameters, a few seconds: to see that everything works.", Stories(
            new ModelConfig { VocabularySize = 0, EmbeddingDimensions = 48, NumQHeads = 4, NumKvHeads = 2, NumDecoderLayers = 2 },
            new TrainingConfig { BatchSize = 8, MaxSteps = 120, EvalInterval = 40, CheckpointInterval = 40, SampleTokens = 30 }) with
            { Data = new DataConfig { Dataset = "stories-tiny", TokensPerSample = 64, NumEvalSamples = 16 } }),
        new("nope-gpt", "NoPE GPT's own recipe: all defaults of its pretraining script. Prepare its data first: hub:HuggingFaceFW/fineweb:sample-10BT with r50k_base.", Reference),
    ];

    /// <summary>Every setting of the reference's pretraining script, also where ours has the same default, so that ours can change.</summary>
    private static RunConfig Reference => new()
    {
        Kind = RunKind.Pretrain,
        Name = "NoPE GPT",
        Model = ModelPresets.Find("nope-gpt").Config with { VocabularySize = 0, Dropout = 0, Initialization = Initialization.NopeGpt },
        Data = new DataConfig { Dataset = "fineweb-10bt", TokensPerSample = 4096, NumEvalSamples = 2048, Packed = true },
        Optimizer = new OptimizerConfig
        {
            Optimizer = OptimizerKind.Adafactor, LearningRate = 1e-2, Schedule = LearningRateSchedule.Constant, WarmupSteps = 0, LowMemoryOptimizer = false,
            Beta2Decay = -0.8, Epsilon1 = 1.1920928955078125e-7, Epsilon2 = 1e-3, ClippingThreshold = 1, AdafactorWeightDecay = 0, MaxGradientNorm = 10,
        },
        Training = new TrainingConfig
        {
            BatchSize = 2, GradientAccumulationSteps = 128, MaxSteps = 20_000, EvalInterval = 100, CheckpointInterval = 100, ShardingLevel = 2, ActivationCheckpointing = false,
        },
    };

    /// <exception cref="UserException">There is no preset of that name.</exception>
    public static Preset Find(string name) => All.FirstOrDefault(p => p.Name == name)
        ?? throw new UserException($"there is no preset '{name}'{(Settings.Nearest(name, All.Select(p => p.Name)) is { } near ? $"; did you mean {near}?" : "")}: known are {string.Join(", ", All.Select(p => p.Name))}");

    private static RunConfig Stories(ModelConfig model, TrainingConfig training) => new()
    {
        Kind = RunKind.Pretrain,
        Name = "Story model",
        Model = model,
        Training = training,
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
