using System.ComponentModel;
using System.ComponentModel.DataAnnotations;
using System.Text.Json.Serialization;
using NopeGpt.Data;
using NopeGpt.Data.Chat;
using NopeGpt.Model;
using NopeGpt.Model.Optimizers;

namespace NopeGpt.Jobs;

/// <summary>What a run does.</summary>
public enum RunKind
{
    /// <summary>Makes a data set: corpus, tokenizer and token file.</summary>
    Prepare,

    /// <summary>Trains a model from its initialisation.</summary>
    Pretrain,

    /// <summary>Measures a checkpoint on the data's holdout and writes samples.</summary>
    Evaluate,

    /// <summary>Trains a tokenizer on text.</summary>
    Tokenizer,

    /// <summary>Trains a model further on conversations.</summary>
    Finetune,

    /// <summary>Writes a model in the layout of another program.</summary>
    Export,
}

/// <summary>What kinds of runs have in common.</summary>
public static class RunKinds
{
    /// <summary>True for a run of the training loop: it has steps, evaluations and checkpoints.</summary>
    public static bool Trains(this RunKind kind) => kind is RunKind.Pretrain or RunKind.Finetune;

    /// <summary>True for a run that computes with a model, on a device; others prepare or write files beside it.</summary>
    public static bool NeedsDevice(this RunKind kind) => kind.Trains() || kind == RunKind.Evaluate;
}

/// <summary>Everything that decides what a run does: the form binds to it, run.json stores it, the API carries it and the trainer reads it.
/// Property names in JSON and on the command line are these in snake_case.</summary>
public sealed record RunConfig
{
    [Description("What the run does: prepare, pretrain, finetune, evaluate, tokenizer or export.")]
    public RunKind Kind { get; init; } = RunKind.Pretrain;

    [Description("A name for people; letters, digits, spaces and -_.,:+() up to 80 characters.")]
    public string Name { get; init; } = "";

    [Description("Start of every random number of the run. The same seed, data and machine give the same run.")]
    public ulong Seed { get; init; } = 1337;

    [Description("auto, cpu, cuda or cuda:N; several joined by commas (cuda:0,cuda:1), or cuda*N for any N free GPUs, train a replica of the model on each. auto takes a free GPU where there is one that libtorch can use, else the CPU.")]
    public string Device { get; init; } = "auto";

    /// <summary>Devices that the run trains on, with a replica on each.</summary>
    [JsonIgnore]
    public int DeviceCount => DeviceRequest.Parse(Device)?.Count ?? 1;

    [Description("CPU threads for the arithmetic; 0 takes all cores."), Range(0, 1024)]
    public int Threads { get; init; }

    /// <summary>Sizes of the network (pretrain).</summary>
    public ModelConfig Model { get; init; } = new() { VocabularySize = 0, EmbeddingDimensions = 192, NumQHeads = 6, NumKvHeads = 2, NumDecoderLayers = 4 };

    /// <summary>What it learns from (pretrain, evaluate; of fine-tuning the holdout's size).</summary>
    public DataConfig Data { get; init; } = new();

    /// <summary>The optimizer and its schedule (pretrain, finetune).</summary>
    public OptimizerConfig Optimizer { get; init; } = new();

    /// <summary>Length, batch, evaluation and checkpoints (pretrain, finetune).</summary>
    public TrainingConfig Training { get; init; } = new();

    /// <summary>Base, conversations and method (finetune).</summary>
    public FinetuneConfig Finetune { get; init; } = new();

    /// <summary>The data set to make (prepare).</summary>
    public PrepareConfig Prepare { get; init; } = new();

    /// <summary>The checkpoint to measure (evaluate).</summary>
    public EvaluateConfig Evaluate { get; init; } = new();

    /// <summary>The tokenizer to train (tokenizer).</summary>
    public TokenizerConfig Tokenizer { get; init; } = new();

    /// <summary>The model to write for other programs (export).</summary>
    public ExportConfig Export { get; init; } = new();

    /// <summary>A run of this kind with its defaults, which are those of the properties but for fine-tuning.</summary>
    public static RunConfig For(RunKind kind) => kind == RunKind.Finetune ? FinetuneConfig.Start : new() { Kind = kind };

    /// <summary>Everything that is wrong with the values themselves, all at once; empty when sound. What needs the store (files that exist,
    /// a tokenizer that matches) is checked by <see cref="RunConfigChecks"/>.</summary>
    public IReadOnlyList<Problem> Problems() => RunConfigChecks.Values(this);
}

/// <summary>What a model learns from.</summary>
public sealed record DataConfig
{
    [Description("A data set of the store by name, or the path of a token file; empty in an evaluate run takes the checkpoint's own.")]
    public string Dataset { get; init; } = "";

    [Description("Tokens in one training sample: the context the model learns with."), Range(8, 1_048_576)]
    public int TokensPerSample { get; init; } = 256;

    [Description("Samples that are held out of training and used for evaluation."), Range(1, 1_000_000)]
    public int NumEvalSamples { get; init; } = 64;

    [Description("More data sets to mix in, each as NAME=WEIGHT or PATH=WEIGHT; data.dataset has the weight 1, and samples come from each in proportion.")]
    public IReadOnlyList<string> Mixture { get; init; } = [];

    [Description("Samples run on from document to document; otherwise each is of one document, cut where it is longer and filled where it is shorter.")]
    public bool Packed { get; init; } = true;

    [Description("Token files given by their path are nanoGPT's: uint16 ids without a header. The tokenizer.json that made them lies beside them.")]
    public bool RawTokens { get; init; }
}

/// <summary>The optimizers that a run can choose of.</summary>
public enum OptimizerKind
{
    /// <summary>Two moments for every weight: 8 bytes.</summary>
    Adamw,

    /// <summary>A row and a column of second moments for every matrix; steps in proportion to the weights.</summary>
    Adafactor,

    /// <summary>Orthogonalized momentum for the hidden matrices, 4 bytes a weight; AdamW for embeddings, head, norms and biases.</summary>
    Muon,
}

/// <summary>The optimizer and its learning rate. The defaults are our recipe; docs/experiments.md has what it was compared with.</summary>
public sealed record OptimizerConfig
{
    [Description("muon (orthogonalized momentum for the hidden matrices, adamw for the rest), adamw (a usual learning_rate is 2e-3 for small models, 6e-4 for those of 100M), or adafactor (nearly no memory, steps in proportion to the weights; usually 1e-2).")]
    public OptimizerKind Optimizer { get; init; } = OptimizerKind.Muon;

    [Description("Peak learning rate."), Range(1e-8, 10.0)]
    public double LearningRate { get; init; } = 5e-3;

    [Description("How the rate changes: constant, linear, cosine or warmup_stable_decay.")]
    public LearningRateSchedule Schedule { get; init; } = LearningRateSchedule.Linear;

    [Description("Steps over which the rate rises from 0 to its peak."), Range(0, 1_000_000_000)]
    public int WarmupSteps { get; init; } = 20;

    [Description("The rate at the end as a part of the peak (linear, cosine, warmup_stable_decay)."), Range(0.0, 1.0)]
    public double MinimumRatio { get; init; }

    [Description("Part of the steps spent falling at the end (warmup_stable_decay)."), Range(0.0, 1.0)]
    public double DecayFraction { get; init; } = 0.2;

    [Description("Memory of the first moment (adamw, muon)."), Range(0.0, 0.999999)]
    public double Beta1 { get; init; } = 0.9;

    [Description("Memory of the second moment (adamw, muon)."), Range(0.0, 0.9999999)]
    public double Beta2 { get; init; } = 0.95;

    [Description("Added to the root of the second moment (adamw, muon)."), Range(1e-16, 1.0)]
    public double Epsilon { get; init; } = 1e-8;

    [Description("Weight decay (adamw, muon)."), Range(0.0, 10.0)]
    public double WeightDecay { get; init; } = 0.1;

    [Description("Tensors of at least so many dimensions decay: 2 leaves norms and biases out, 0 takes all (adamw, muon)."), Range(0, 2)]
    public int DecayDimensions { get; init; } = 2;

    [Description("Memory of the gradients of hidden matrices (muon)."), Range(0.0, 0.999999)]
    public double Momentum { get; init; } = 0.95;

    [Description("Root mean square of a hidden matrix's step at learning rate 1; adamw's steps, and so those of all else, have about 0.2 (muon)."), Range(1e-6, 100.0)]
    public double UpdateScale { get; init; } = 0.2;

    [Description("Newton-Schulz iterations that orthogonalize a step (muon)."), Range(1, 20)]
    public int OrthogonalIterations { get; init; } = 5;

    [Description("Step one tensor at a time, which needs less memory on a GPU; a CPU needs none anyway (adafactor).")]
    public bool LowMemoryOptimizer { get; init; }

    [Description("A step weighs step^beta2_decay in the second moments (adafactor)."), Range(-10.0, 0.0)]
    public double Beta2Decay { get; init; } = -0.8;

    [Description("Least root of a second moment (adafactor)."), Range(1e-30, 1.0)]
    public double Epsilon1 { get; init; } = 1.1920928955078125e-7;

    [Description("Least root mean square of a tensor that its steps are in proportion to (adafactor)."), Range(0.0, 1.0)]
    public double Epsilon2 { get; init; } = 1e-3;

    [Description("Root mean square to which an update is cut (adafactor)."), Range(1.0, 1e6)]
    public double ClippingThreshold { get; init; } = 1;

    [Description("Weight decay on every tensor (adafactor)."), Range(0.0, 10.0)]
    public double AdafactorWeightDecay { get; init; }

    [Description("Gradients are scaled down to this global norm."), Range(1e-6, 1e6)]
    public double MaxGradientNorm { get; init; } = 1.0;

    /// <summary>The constants of the chosen optimizer.</summary>
    internal OptimizerOptions Options() => Optimizer switch
    {
        OptimizerKind.Adamw => AdamW(),
        OptimizerKind.Muon => new MuonOptions { Momentum = Momentum, Scale = UpdateScale, Iterations = OrthogonalIterations, WeightDecay = WeightDecay, Others = AdamW() },
        OptimizerKind.Adafactor => new AdafactorOptions
        {
            Beta2Decay = Beta2Decay, Epsilon1 = Epsilon1, Epsilon2 = Epsilon2, ClippingThreshold = ClippingThreshold, WeightDecay = AdafactorWeightDecay,
            LowMemory = LowMemoryOptimizer,
        },
        _ => throw new InvalidOperationException($"there is no optimizer {Optimizer}"),
    };

    private AdamWOptions AdamW() => new() { Beta1 = Beta1, Beta2 = Beta2, Epsilon = Epsilon, WeightDecay = WeightDecay, DecayDimensions = DecayDimensions };
}

/// <summary>Length, batch, evaluation and checkpoints of a training run.</summary>
public sealed record TrainingConfig
{
    [Description("Samples in one micro-batch."), Range(1, 65_536)]
    public int BatchSize { get; init; } = 8;

    [Description("Micro-batches in one optimizer step, all devices together."), Range(1, 65_536)]
    public int GradientAccumulationSteps { get; init; } = 1;

    [Description("Optimizer steps of the run, over which the schedule goes. 0 takes as many as max_tokens and max_epochs make, or 500 where no limit is given."), Range(0, 1_000_000_000)]
    public int MaxSteps { get; init; }

    [Description("What several devices divide among them: 0 nothing, 2 gradients and optimizer state, 3 parameters too, gathered block by block. One device has nothing to divide."), Range(0, 3)]
    public int ShardingLevel { get; init; } = 2;

    [Description("Keep of each block only its input and compute the block again in the backward pass: about a third slower, much less memory for activations, and the same result to the bit.")]
    public bool ActivationCheckpointing { get; init; }

    [Description("Type of the arithmetic: float32, bfloat16, float16 (with a scale of the loss that follows its overflows), or auto, which takes bfloat16 or float16 on GPUs with units for it, else float32. Weights, gradients and optimizer state are float32 with all of them.")]
    public Precision Precision { get; init; } = Precision.Auto;

    [Description("Ends the run when so many tokens are trained on; 0 = no limit."), Range(0, 1_000_000_000_000_000)]
    public long MaxTokens { get; init; }

    [Description("Ends the run when the data was gone through so often, parts count; 0 = no limit."), Range(0.0, 1_000_000)]
    public double MaxEpochs { get; init; }

    [Description("Ends the run after so many minutes of work, all its attempts together, with its state saved; 0 = no limit."), Range(0.0, 10_000_000)]
    public double MaxMinutes { get; init; }

    [Description("Steps between evaluations on the holdout; 0 = not by steps. There is always one at the end."), Range(0, 1_000_000_000)]
    public int EvalInterval { get; init; } = 100;

    [Description("Minutes between evaluations; 0 = not by time."), Range(0.0, 1_000_000)]
    public double EvalMinutes { get; init; }

    [Description("Steps between checkpoints; 0 = not by steps. One is always written at the end and when the run is stopped."), Range(0, 1_000_000_000)]
    public int CheckpointInterval { get; init; } = 100;

    [Description("Minutes between checkpoints; 0 = not by time."), Range(0.0, 1_000_000)]
    public double CheckpointMinutes { get; init; }

    [Description("Newest checkpoints kept; older ones are deleted, the one with the best evaluation never."), Range(1, 10_000)]
    public int KeepCheckpoints { get; init; } = 3;

    [Description("A checkpoint is written at every so many steps and never deleted; 0 = none is."), Range(0, 1_000_000_000)]
    public int KeepEvery { get; init; }

    [Description("Warns of a loss that lies so many spreads above the recent median (a spread is 1.4826 times the median deviation, a standard deviation of normal noise); 0 = never."), Range(0.0, 1e6)]
    public double LossAlarm { get; init; } = 6;

    [Description("Minutes without any progress after which the run is reported as stalled; 0 = never."), Range(0.0, 100_000)]
    public double StallMinutes { get; init; } = 10;

    [Description("Texts that the model continues at every evaluation, so that its progress can be read.")]
    public IReadOnlyList<string> SamplePrompts { get; init; } = ["Once upon a time"];

    [Description("Tokens of each sample text."), Range(0, 4096)]
    public int SampleTokens { get; init; } = 60;
}

/// <summary>What the records of a source are taken for.</summary>
public enum PrepareKind
{
    /// <summary>What the columns tell: pairs before conversations, and those before text.</summary>
    Auto,

    /// <summary>Plain documents to pretrain on.</summary>
    Text,

    /// <summary>Conversations or instructions with their answers.</summary>
    Chat,

    /// <summary>Pairs of a better and a worse answer.</summary>
    Preference,
}

/// <summary>The data set that a prepare run makes.</summary>
public sealed record PrepareConfig
{
    /// <summary>The source that the program makes itself.</summary>
    public const string Stories = "stories";

    [Description("stories (made by the program, no download), the path of a file, a folder or a pattern (txt, jsonl, json, csv, parquet, each also .gz or .zst), or a data set of the Hub: hub:OWNER/NAME, with :SUBSET, :SUBSET:SPLIT or @REVISION behind it.")]
    public string Source { get; init; } = Stories;

    [Description("Size of the story corpus in bytes (only for stories)."), Range(10_000, 100_000_000_000)]
    public long CorpusBytes { get; init; } = 8_000_000;

    [Description("What the records are: auto (by their columns), text, chat or preference.")]
    public PrepareKind Kind { get; init; }

    [Description("Which column is which part, as part=column,...: text, messages, system, prompt, input, completion, chosen, rejected. Empty takes well-known names.")]
    public string Columns { get; init; } = "";

    [Description("The column that holds the text, short for columns text=...; empty takes text, content and other well-known names.")]
    public string TextColumn { get; init; } = "";

    [Description("How an instruction and its input are put to the model: plain, or template for Stanford Alpaca's prompts (chat).")]
    public AlpacaPrompt AlpacaPrompt { get; init; }

    [Description("An assistant's <tool_call>...</tool_call> text is a call of tools, as in SmolTalk's apigen-80k; only for data that nobody can have forged (chat).")]
    public bool ToolCallMarkup { get; init; }

    [Description("Ends with the document that reaches so many tokens; 0 takes the whole source (text)."), Range(0, 100_000_000_000_000)]
    public long MaxTokens { get; init; }

    [Description("A tokenizer of the store by name, a published encoding (r50k_base, p50k_base, cl100k_base, o200k_base), or the path of one; empty trains one on the text.")]
    public string Tokenizer { get; init; } = "";

    [Description("Tokens of the byte-level BPE vocabulary that is trained on the text."), Range(257, 1_000_000)]
    public int VocabularySize { get; init; } = 4096;

    [Description("Bytes of text that the tokenizer is trained on at most; 0 takes all."), Range(0, 100_000_000_000_000)]
    public long TokenizerBytes { get; init; } = 1_000_000_000;

    [Description("Where each document gets its end-of-text token: after, before or none (text).")]
    public EndOfText EndOfText { get; init; } = EndOfText.After;

    [Description("Threads that encode; 0 takes all cores. The result is the same for any number."), Range(0, 1024)]
    public int Workers { get; init; }

    [Description("Name of the data set and of its tokenizer in the store.")]
    public string Dataset { get; init; } = "";
}

/// <summary>What an evaluate run measures.</summary>
public sealed record EvaluateConfig
{
    [Description("A run's id (its newest checkpoint is taken) or a checkpoint folder; empty takes the run that this one waits for.")]
    public string Checkpoint { get; init; } = "";

    [Description("Texts that the checkpoint continues.")]
    public IReadOnlyList<string> Prompts { get; init; } = ["Once upon a time", "One day", "There was a"];

    [Description("Tokens of each continuation at most."), Range(1, 4096)]
    public int MaxTokens { get; init; } = 200;
}

/// <summary>The tokenizer that a tokenizer run trains: a byte-level BPE.</summary>
public sealed record TokenizerConfig
{
    [Description("Name of the tokenizer in the store.")]
    public string Name { get; init; } = "";

    [Description("The text to train on: stories (made by the program), the path of a file, a folder or a pattern (txt, jsonl, json, csv, parquet, each also .gz or .zst), or a data set of the Hub: hub:OWNER/NAME, with :SUBSET, :SUBSET:SPLIT or @REVISION behind it.")]
    public string Source { get; init; } = "";

    [Description("The column that holds the text; empty takes text, conversations or other columns with well-known names.")]
    public string TextColumn { get; init; } = "";

    [Description("Tokens of the vocabulary, special tokens included. Fewer come out where the text has no more pairs to merge."), Range(257, 1_000_000)]
    public int VocabularySize { get; init; } = 8192;

    [Description("A pair that occurs less often in the text does not become a token."), Range(0, 1_000_000_000)]
    public int MinimumFrequency { get; init; } = 2;

    [Description("Special tokens; they get the first ids in this order. <|endoftext|> must be among them.")]
    public IReadOnlyList<string> SpecialTokens { get; init; } = [Data.Tokenization.Tokenizer.EndOfText];

    [Description("Cut words as GPT-2 does: a number of any length is one word. Otherwise at most three digits are, as in newer tokenizers.")]
    public bool Gpt2Words { get; init; }

    [Description("Bytes of text to read at most; 0 reads all of it. A few hundred megabytes are enough for most vocabularies."), Range(0, 100_000_000_000_000)]
    public long MaximumBytes { get; init; } = 1_000_000_000;

    /// <summary>The same, as the trainer takes it.</summary>
    internal Data.Tokenization.BytePairOptions Options() => new() { VocabularySize = VocabularySize, MinimumFrequency = MinimumFrequency, SpecialTokens = SpecialTokens, Gpt2Words = Gpt2Words };
}
