using System.ComponentModel;
using System.ComponentModel.DataAnnotations;

namespace NopeGpt.Jobs;

#pragma warning disable CA1720 // The types' own names are what a person chooses.
/// <summary>The type in which an export writes weights.</summary>
public enum ExportType
{
    Float32,
    Bfloat16,
    Float16,
}
#pragma warning restore CA1720

/// <summary>The model that an export run writes for other programs.</summary>
public sealed record ExportConfig
{
    [Description("The model: a run's id (its newest checkpoint is taken), RUN_ID/STEP, a checkpoint folder or that of an imported model. Of a LoRA run it is the base with the adapter's changes in its weights.")]
    public string Checkpoint { get; init; } = "";

    [Description("An adapter of that model whose changes go into its weights: a LoRA run's id, RUN_ID/STEP, or a folder; empty for none.")]
    public string Adapter { get; init; } = "";

    [Description("How much of the adapter is added: 1 as it was trained."), Range(0.0, 1000.0)]
    public double Strength { get; init; } = 1;

    [Description("Whose files they are: nope-gpt, gpt2, lil-lm, llama or llama2.c.")]
    public string Layout { get; init; } = "nope-gpt";

    [Description("Type of the weights: float32, bfloat16 or float16.")]
    public ExportType Dtype { get; init; }

    [Description("Most megabytes in one file; more are written as shards with an index. 0 writes one file."), Range(0, int.MaxValue)]
    public int MaxShardSize { get; init; }

    [Description("The new folder; empty takes exports/NAME in the storage root, by the run's name, or its id where that makes no folder's name.")]
    public string Out { get; init; } = "";
}
