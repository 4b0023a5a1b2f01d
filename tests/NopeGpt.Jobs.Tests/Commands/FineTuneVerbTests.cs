using System.Text.Json;
using NopeGpt.Jobs.Configuration;
using NopeGpt.Model.Optimizers;
using NopeGpt.Model.Storage;

namespace NopeGpt.Jobs.Tests.Commands;

public sealed class FineTuneVerbTests(FineTuneVerbTests.Fixture fixture) : IClassFixture<FineTuneVerbTests.Fixture>
{
    private readonly PreparedStore prepared = fixture.Prepared;

    /// <summary>A store with a base of two steps and conversations of its tokenizer.</summary>
    public sealed class Fixture : IAsyncLifetime, IDisposable
    {
        public const string Replies = "replies";

        public PreparedStore Prepared { get; } = new();

        /// <summary>The run of the base.</summary>
        public string Base { get; private set; } = "";

        public async Task InitializeAsync()
        {
            Prepared.Prepare(Replies, new PrepareConfig { Source = Prepared.TalksSource, Kind = PrepareKind.Chat, Tokenizer = Prepared.Store.DatasetFolder(PreparedStore.Stories) });
            (int code, string output, string errors) = await NopeGptProcess.RunAsync("pretrain", "--root", Prepared.Store.Root, "--dataset", PreparedStore.Stories, "--tokens-per-sample", "32", "--num_eval_samples", "4",
                "--embedding_dimensions", "32", "--num_q_heads", "4", "--num_kv_heads", "2", "--num_decoder_layers", "2", "--warmup_steps", "1", "--max_steps", "2", "--sample_tokens", "0", "--threads", "1", "--device", "cpu", "--json");
            Assert.True(code == 0, errors);
            Base = JsonDocument.Parse(output).RootElement.GetProperty("id").GetString()!;
        }

        public Task DisposeAsync() => Task.CompletedTask;

        public void Dispose() => Prepared.Dispose();
    }

    private string[] Small(params string[] more) =>
    [
        "fine-tune", "--root", prepared.Store.Root, "--base-checkpoint-path", fixture.Base, "--dataset_subsets", Fixture.Replies, "--max_tokens_per_sample", "96", "--num_eval_samples", "8", "--batch_size", "4", "--sample_tokens", "0",
        "--threads", "1", "--device", "cpu", .. more,
    ];

    [Fact]
    public async Task It_trains_an_adapter_that_generate_takes_and_goes_on_bit_for_bit()
    {
        string[] options = Small("--num_epochs", "1", "--lora_rank", "4", "--lora-alpha", "1.5", "--dropout", "0.1", "--eval_interval", "0", "--json");
        (int code, string output, string errors) = await NopeGptProcess.RunAsync(options);
        Assert.True(code == 0, errors);
        JsonElement document = JsonDocument.Parse(output).RootElement;
        RunFolder run = RunFolder.Open(document.GetProperty("folder").GetString()!);
        Assert.Equal("Completed", document.GetProperty("state").GetString());
        foreach (string name in new[] { "train/loss", "train/tokens_per_second", "train/mfu", "eval/loss", "eval/perplexity", "eval/bits_per_byte" })
            Assert.True(document.GetProperty("metrics").GetProperty(name).GetDouble() >= 0, name);
        RunConfig config = run.Read().Config;
        Assert.Equal((RunKind.Finetune, FinetuneMethod.Lora, 4, 1.5, 0.1, 404), (config.Kind, config.Finetune.Method, config.Finetune.LoraRank, config.Finetune.LoraAlpha, config.Finetune.LoraDropout, config.Model.VocabularySize));
        string adapter = Checkpoint.List(run.CheckpointsPath)[0].Path;
        (code, string byAdapter, errors) = await NopeGptProcess.RunAsync("generate", "--root", prepared.Store.Root, "--checkpoint_path", fixture.Base, "--lora_path", adapter, "--prompt", "Once", "--max_tokens", "9", "--seed", "3", "--json");
        Assert.True(code == 0, errors);
        (code, string byRun, errors) = await NopeGptProcess.RunAsync("generate", "--root", prepared.Store.Root, "--checkpoint_path", run.Id, "--prompt", "Once", "--max_tokens", "9", "--seed", "3", "--json");
        Assert.True(code == 0, errors);
        Assert.Equal(byAdapter, byRun);
        (code, _, errors) = await NopeGptProcess.RunAsync("fine-tune", "--root", prepared.Store.Root, "--resume", run.Id, "--lora_rank", "8");
        Assert.Equal(2, code);
        Assert.Contains("--lora_rank = 8", errors, StringComparison.Ordinal);
        (code, _, errors) = await NopeGptProcess.RunAsync("pretrain", "--root", prepared.Store.Root, "--resume", run.Id);
        Assert.Equal(2, code);
        Assert.Contains("kind finetune", errors, StringComparison.Ordinal);
    }

    [Fact]
    public async Task Everything_wrong_is_told_at_once_under_the_options_names()
    {
        (int code, _, string errors) = await NopeGptProcess.RunAsync(Small("--method", "dpo", "--lora_dropout", "2", "--checkpoint_path", "x", "--max_gradient_norm", "0", "--num_dataset_processes", "4"));
        Assert.Equal(2, code);
        foreach (string says in new[] { "--method = dpo: is not there yet", "--lora_dropout = 2", "--checkpoint_path = x: checkpoints lie in the run's folder", "--max_gradient_norm = 0", "--num_dataset_processes = 4" })
            Assert.Contains(says, errors, StringComparison.Ordinal);
        (code, _, errors) = await NopeGptProcess.RunAsync("fine-tune", "--root", prepared.Store.Root);
        Assert.Equal(2, code);
        Assert.Equal(2, errors.Split('\n', StringSplitOptions.RemoveEmptyEntries).Length);
        Assert.Contains("--base_checkpoint_path", errors, StringComparison.Ordinal);
        Assert.Contains("--dataset_subsets", errors, StringComparison.Ordinal);
    }

    [Fact]
    public async Task It_goes_into_the_queue_with_every_option_of_the_reference()
    {
        (int code, string output, string errors) = await NopeGptProcess.RunAsync(Small("--queue", "--json", "--filter_long_samples", "--gradient_accumulation_steps", "3", "--learning_rate", "2e-4", "--optimizer", "adafactor", "--low_memory_optimizer",
            "--max_gradient_norm", "2", "--num_epochs", "3", "--freeze_token_embeddings", "--activation_checkpointing", "--eval_interval", "7", "--checkpoint_interval", "9", "--train_on_inputs", "--seed", "5"));
        Assert.True(code == 0, errors);
        RunFolder run = RunFolder.Open(JsonDocument.Parse(output).RootElement.GetProperty("folder").GetString()!);
        Assert.True(run.AsksForQueue);
        RunConfig config = run.Read().Config;
        Assert.Equal((true, true, true, 3.0), (config.Finetune.FilterLongSamples, config.Finetune.FreezeTokenEmbeddings, config.Finetune.TrainOnInputs, config.Finetune.NumEpochs));
        Assert.Equal((3, true, 7, 9, 5UL), (config.Training.GradientAccumulationSteps, config.Training.ActivationCheckpointing, config.Training.EvalInterval, config.Training.CheckpointInterval, config.Seed));
        Assert.Equal((OptimizerKind.Adafactor, 2e-4, true, 2.0), (config.Optimizer.Optimizer, config.Optimizer.LearningRate, config.Optimizer.LowMemoryOptimizer, config.Optimizer.MaxGradientNorm));
        Assert.Equal([Fixture.Replies], config.Finetune.DatasetSubsets);
    }

    [Fact]
    public async Task The_help_has_the_kinds_own_defaults_and_every_setting_that_applies()
    {
        (int code, string help, string errors) = await NopeGptProcess.RunAsync("fine-tune", "--help");
        Assert.Equal((0, ""), (code, errors));
        foreach (string says in new[] { "\nFine-tuning:\n", "--method <lora|full>", "--lora_rank <N>", "default: 8]", "default: 0.001]", "--resume <ID>" }) Assert.Contains(says, help, StringComparison.Ordinal);
        foreach (Setting setting in Settings.All.Where(s => s.Path != "kind" && RunConfigChecks.Applies(s, RunKind.Finetune))) Assert.Contains($"--{setting.Name} ", help.Replace($"--{setting.Path} ", $"--{setting.Name} ", StringComparison.Ordinal), StringComparison.Ordinal);
        Assert.DoesNotContain("--tokens_per_sample", help, StringComparison.Ordinal);
        Assert.All(help.Split('\n'), line => Assert.InRange(line.Length, 0, 130));
    }
}
