using System.ComponentModel;
using System.ComponentModel.DataAnnotations;
using System.Text.Json.Serialization;
using NopeGpt.Data.Chat;
using NopeGpt.Model;
using NopeGpt.Model.Optimizers;

namespace NopeGpt.Jobs;

/// <summary>What fine-tuning trains of a base.</summary>
public enum FinetuneMethod
{
    /// <summary>Low-rank products beside the base's weights, which stay as they are.</summary>
    Lora,

    /// <summary>All of the base's weights.</summary>
    Full,
}

/// <summary>What a fine-tuning learns from, and what of its base it trains.</summary>
public sealed record FinetuneConfig
{
    [Description("The model to begin from: a run's id (its newest checkpoint is taken), RUN_ID/STEP, a checkpoint folder, or the folder of an imported model.")]
    public string BaseCheckpointPath { get; init; } = "";

    [Description("The conversations to learn from: chat data sets of the store by name, or paths of their token files; several are trained on together.")]
    public IReadOnlyList<string> DatasetSubsets { get; init; } = [];

    [Description("lora (low-rank products beside the base's weights: little memory, checkpoints of some megabytes) or full (all weights).")]
    public FinetuneMethod Method { get; init; } = FinetuneMethod.Lora;

    [Description("Times that the conversations are gone through, parts count; 0 = no limit. Not looked at where training.max_steps is given."), Range(0.0, 1_000_000)]
    public double NumEpochs { get; init; } = 2;

    [Description("Tokens of a conversation at most. A longer one ends before the first message that does not fit."), Range(8, 1_048_576)]
    public int MaxTokensPerSample { get; init; } = 8192;

    [Description("Leave conversations out that are too long, instead of cutting them.")]
    public bool FilterLongSamples { get; init; }

    [Description("Learn all messages, those of users and system too; otherwise the assistant's alone.")]
    public bool TrainOnInputs { get; init; }

    [Description("Several conversations share a row of max_tokens_per_sample tokens; otherwise each has a row of its own.")]
    public bool Packing { get; init; }

    [Description("Rank of the low-rank products (lora)."), Range(1, 65_536)]
    public int LoraRank { get; init; } = 8;

    [Description("Factor of the low-rank products, not divided by the rank (lora)."), Range(1e-6, 1e6)]
    public double LoraAlpha { get; init; } = 2;

    [Description("Probability that an element of what goes into a low-rank product is left out in training (lora)."), Range(0.0, 0.99)]
    public double LoraDropout { get; init; }

    [Description("The embedding, and a head that is not tied to it, stay as they are; otherwise they train (lora).")]
    public bool FreezeTokenEmbeddings { get; init; }

    /// <summary>The data sets one by one: an entry may name several with commas between them, as the reference's option does.</summary>
    [JsonIgnore]
    public IReadOnlyList<string> Datasets =>
        [.. DatasetSubsets.SelectMany(entry => File.Exists(entry) ? [entry] : entry.Split(',', StringSplitOptions.TrimEntries | StringSplitOptions.RemoveEmptyEntries))];

    /// <summary>What the adapter of a LoRA run is made with.</summary>
    internal LoraConfig Lora() => new() { Rank = LoraRank, Alpha = LoraAlpha, Dropout = LoraDropout, FreezeTokenEmbeddings = FreezeTokenEmbeddings };

    /// <summary>How conversations become samples.</summary>
    internal ChatSampleOptions Samples() => new()
    {
        MaxTokens = MaxTokensPerSample, FilterLongSamples = FilterLongSamples, Labels = TrainOnInputs ? ChatLabels.Everything : ChatLabels.Reply,
    };

    /// <summary>A run of the kind with its defaults: a base has been trained already, so that smaller steps of an optimizer that keeps to the gradients do.</summary>
    internal static RunConfig Start => new()
    {
        Kind = RunKind.Finetune,
        Optimizer = new OptimizerConfig { Optimizer = OptimizerKind.Adamw, LearningRate = 1e-3, WarmupSteps = 0, Schedule = LearningRateSchedule.Linear, WeightDecay = 0 },
        Training = new TrainingConfig { BatchSize = 4, SamplePrompts = ["Tell me a story."] },
    };
}
