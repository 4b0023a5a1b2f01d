using System.Text.Json;
using NopeGpt.Jobs.Configuration;
using NopeGpt.Model.Optimizers;

namespace NopeGpt.Jobs.Tests.Commands;

public sealed class PretrainVerbTests(PreparedStore prepared) : IClassFixture<PreparedStore>
{
    /// <summary>A run of a second.</summary>
    private string[] Small(params string[] more) =>
    [
        "pretrain", "--root", prepared.Store.Root, "--dataset", PreparedStore.Stories, "--tokens-per-sample", "32", "--num_eval_samples=8", "--embedding_dimensions", "32", "--num_q_heads", "4", "--num_kv_heads", "2",
        "--num_decoder_layers", "2", "--batch_size", "4", "--warmup_steps", "2", "--eval_interval", "0", "--sample_tokens", "0", "--threads", "1", "--device", "cpu", .. more,
    ];

    [Fact]
    public async Task It_trains_in_the_foreground_and_prints_one_document()
    {
        (int code, string output, string errors) = await NopeGptProcess.RunAsync(Small("--max-steps", "12", "--training.gradient_accumulation_steps", "2", "--name", "by hand", "--seed", "7", "--json"));
        Assert.Equal(0, code);
        JsonElement document = JsonDocument.Parse(output).RootElement;
        string id = document.GetProperty("id").GetString()!;
        Assert.Equal(("Completed", prepared.Store.RunFolder(id), 0), (document.GetProperty("state").GetString(), document.GetProperty("folder").GetString(), document.GetProperty("exit_code").GetInt32()));
        JsonElement metrics = document.GetProperty("metrics");
        foreach (string name in new[] { "train/loss", "train/learning_rate", "train/gradient_norm", "train/tokens_per_second", "train/mfu", "time/data_ms", "time/forward_ms", "time/backward_ms", "time/optimizer_ms", "time/other_ms", "system/memory_bytes", "eval/loss", "eval/perplexity", "eval/bits_per_byte" })
            Assert.True(metrics.GetProperty(name).GetDouble() >= 0, name);
        Assert.Equal(12 * 2 * 4 * 32, metrics.GetProperty("train/tokens").GetDouble());
        RunConfig config = RunFolder.Open(prepared.Store.RunFolder(id)).Read().Config;
        Assert.Equal(("by hand", 7UL, 12, 2, 32, 400), (config.Name, config.Seed, config.Training.MaxSteps, config.Training.GradientAccumulationSteps, config.Data.TokensPerSample, config.Model.VocabularySize));
        Assert.Contains("step 12/12  loss ", errors, StringComparison.Ordinal);
        Assert.Contains("tokens/s", errors, StringComparison.Ordinal);
        Assert.Contains("0 s left", errors, StringComparison.Ordinal);
        Assert.Contains("evaluation loss", await File.ReadAllTextAsync(RunFolder.Open(prepared.Store.RunFolder(id)).LogPath), StringComparison.Ordinal);
    }

    [Theory]
    [InlineData("TERM")]
    [InlineData("INT")]
    public async Task A_signal_saves_and_ends_with_3_and_resume_goes_on(string signal)
    {
        string name = $"stopped by {signal}";
        using NopeGptProcess process = new(Small("--max_steps", "100000", "--name", name, "--checkpoint_interval", "100000", "--json"));
        RunFolder run = await NamedAsync(name);
        await UntilAsync(() => run.Events().OfType<MetricsEvent>().Any(m => m.Step >= 3));
        process.Signal(signal);
        (int code, string output, string errors) = await process.EndAsync();
        Assert.True(code == ExitCode.StoppedAndSaved, errors);
        Assert.Equal("Interrupted", JsonDocument.Parse(output).RootElement.GetProperty("state").GetString());
        long saved = run.Events().OfType<CheckpointEvent>().Single().Step;
        // A run that goes on has its own settings; the test's own way to make it shorter.
        RunRecord record = run.Read();
        run.Write(record with { Config = record.Config with { Training = record.Config.Training with { MaxSteps = (int)saved + 5 } } });
        (code, output, errors) = await NopeGptProcess.RunAsync("pretrain", "--root", prepared.Store.Root, "--resume", run.Id, "--batch_size", "4", "--json");
        Assert.True(code == 0, errors);
        Assert.Equal("Completed", JsonDocument.Parse(output).RootElement.GetProperty("state").GetString());
        Assert.Equal(saved, run.Events().OfType<StartedEvent>().Last().FromStep);
        (code, _, errors) = await NopeGptProcess.RunAsync("pretrain", "--root", prepared.Store.Root, "--resume", run.Path);
        Assert.Equal(0, code);
        Assert.Contains("is completed: there is nothing left to do", errors, StringComparison.Ordinal);
        Assert.Equal(2, run.Events().OfType<StartedEvent>().Count());
        (code, _, errors) = await NopeGptProcess.RunAsync("pretrain", "--root", prepared.Store.Root, "--resume", run.Id, "--batch-size", "8", "--preset", "stories");
        Assert.Equal(2, code);
        Assert.Contains($"--batch_size = 8: run {run.Id} has 4, and a run goes on with its own settings", errors, StringComparison.Ordinal);
        Assert.Contains("--preset: a run that goes on has its own settings", errors, StringComparison.Ordinal);
    }

    [Fact]
    public async Task Every_mistake_is_named_at_once_and_no_run_is_made()
    {
        int before = Directory.GetDirectories(prepared.Store.RunsFolder).Length;
        (int code, string output, string errors) = await NopeGptProcess.RunAsync(
            "pretrain", "--root", prepared.Store.Root, "--dataset", PreparedStore.Stories, "--embedding_dimensions", "32", "--num_kv_heads", "2", "--max_steps", "-3", "--learning_rate", "fast", "--hidden_ratio", "3", "--num-q-heads=5", "--dropout", "1", "--warmup-steps", "-1", "--optimizer", "sgd", "--device", "cuda:77", "--seed", "-1",
            "--max_gradient_norm", "0", "--vocabulary_size", "399", "--dataset_subset", "sample-10BT", "--token_encoding", "r50k_base", "--anneal_learning_rate", "--schedule", "cosine", "--max_stepz", "3", "--preset", "storys");
        Assert.Equal((2, ""), (code, output));
        foreach (string says in new[]
        {
            "--max_steps = -3: must lie from 0", "--learning_rate = fast: must be a number", "--hidden_ratio = 3: is not a known ratio: choose 1, 2 or 4", "--embedding_dimensions = 32: does not divide among num_q_heads = 5",
            "--num_q_heads = 5: does not divide among num_kv_heads = 2", "--dropout = 1: is not a probability below 1", "--warmup_steps = -1: must lie from 0", "--optimizer = sgd: must be one of adamw, adafactor",
            "--device = cuda:77: device cuda:77 is not there", "--seed = -1: must be a whole number from 0", "--max_gradient_norm = 0: must lie from", "--vocabulary_size = 399: does not match the tokenizer",
            "--dataset_subset = sample-10BT: a run trains on a data set that is prepared already", "--token_encoding = r50k_base: stories was made with a tokenizer of its own", "--anneal_learning_rate = true: means --schedule linear",
            "there is no option --max_stepz: did you mean --max_steps?", "--preset = storys: there is no preset 'storys'; did you mean stories?",
        }) Assert.Contains(says, errors, StringComparison.Ordinal);
        Assert.DoesNotContain("   at ", errors, StringComparison.Ordinal);
        Assert.Equal(before, Directory.GetDirectories(prepared.Store.RunsFolder).Length);
    }

    [Theory]
    [InlineData("--dataset = (empty): name a data set of the store", "pretrain")]
    [InlineData("--dataset = nothing: there is no such data set; the store has stories, talks", "pretrain", "--dataset", "nothing")]
    [InlineData("there is no such run", "pretrain", "--resume", "20260101-000000-0000")]
    [InlineData("--model_preset = gpt-2: there is no model preset 'gpt-2'; did you mean gpt2?", "pretrain", "--dataset", "stories", "--model_preset", "gpt-2")]
    [InlineData("--config = /no/such: cannot be read", "pretrain", "--dataset", "stories", "--config", "/no/such")]
    [InlineData("--anneal_learning_rate = maybe: give true or false", "pretrain", "--dataset", "stories", "--anneal_learning_rate=maybe")]
    [InlineData("--token_encoding = r50k_bas: there is no such encoding; did you mean r50k_base?", "pretrain", "--dataset", "stories", "--token_encoding", "r50k_bas")]
    [InlineData("--dataset_path = ./datasets: data sets lie in the storage root", "pretrain", "--dataset", "stories", "--dataset-path", "./datasets")]
    [InlineData("--num_dataset_processes = 8: a run trains on a data set that is prepared already", "pretrain", "--dataset", "stories", "--num_dataset_processes", "8")]
    [InlineData("--checkpoint_path = x.pt: checkpoints lie in the run's folder", "pretrain", "--dataset", "stories", "--checkpoint_path", "x.pt")]
    [InlineData("--run_dir_path = ./runs: the files for TensorBoard lie in the run's folder", "pretrain", "--dataset", "stories", "--run_dir_path", "./runs")]
    [InlineData("--resume", "pretrain", "--resume")]
    public async Task A_mistake_has_its_cure(string says, params string[] arguments)
    {
        (int code, string output, string errors) = await NopeGptProcess.RunAsync([.. arguments, "--root", prepared.Store.Root]);
        Assert.Equal((2, ""), (code, output));
        Assert.Contains(says, errors, StringComparison.Ordinal);
    }

    /// <summary>Every name of the reference's pretraining script, those that are taken with its defaults (the code's).</summary>
    [Fact]
    public async Task Every_option_of_the_reference_is_known()
    {
        string[] taken =
        [
            "batch_size=2", "gradient_accumulation_steps=128", "tokens_per_sample=4096", "max_steps=20000", "learning_rate=1e-2", "anneal_learning_rate", "low_memory_optimizer", "max_gradient_norm=10.0",
            "embedding_dimensions=1024", "num_q_heads=16", "num_kv_heads=4", "num_decoder_layers=16", "hidden_ratio=4", "dropout=0.0", "eval_interval=100", "num_eval_samples=2048", "checkpoint_interval=100",
            "activation_checkpointing", "ddp_sharding_level=2", "device=cpu", "seed=42", "token_encoding=r50k_base",
        ];
        string[] refused = ["dataset_subset", "dataset_path", "num_dataset_processes", "checkpoint_path", "run_dir_path"];
        (_, string help, _) = await HelpAsync.Value;
        foreach (string name in (string[])[.. taken.Select(t => t.Split('=')[0]), .. refused, "resume"]) Assert.Contains($"  --{name} ", help, StringComparison.Ordinal);
        (int code, _, string errors) = await NopeGptProcess.RunAsync(["pretrain", "--root", prepared.Store.Root, "--dataset", "nothing", .. taken.Select(t => "--" + t)]);
        Assert.Equal(2, code);
        Assert.Equal(["note: --low_memory_optimizer is for --optimizer adafactor; the others have no such form", "--dataset = nothing: there is no such data set; the store has stories, talks"],
            errors.Split('\n', StringSplitOptions.RemoveEmptyEntries));
    }

    [Fact]
    public async Task The_help_has_groups_defaults_and_ranges_and_every_setting()
    {
        (int code, string help, string errors) = await HelpAsync.Value;
        Assert.Equal((0, ""), (code, errors));
        foreach (string says in new[] { "Usage:", "\nData:\n", "\nTraining:\n", "\nOptimizer:\n", "\nModel:\n", "\nAdvanced: optimizer:\n", "--max_steps <N>", "[0 to 1000000000; default:", "--schedule <constant|linear|cosine|warmup_stable_decay>", "--queue", "--resume <ID>" })
            Assert.Contains(says, help, StringComparison.Ordinal);
        foreach (Setting setting in Settings.All.Where(s => s.Path != "kind" && RunConfigChecks.Applies(s, RunKind.Pretrain))) Assert.Contains($"--{setting.Name} ", help.Replace($"--{setting.Path} ", $"--{setting.Name} ", StringComparison.Ordinal), StringComparison.Ordinal);
        Assert.All(help.Split('\n'), line => Assert.InRange(line.Length, 0, 130));
    }

    [Fact]
    public async Task A_preset_a_file_and_options_change_one_another_in_this_order()
    {
        string file = prepared["config.json"];
        await File.WriteAllTextAsync(file, """{"training": {"max_steps": 900, "batch_size": 3}, "optimizer": {"schedule": "constant"}, "model": {"dropout": 0.2}}""");
        RunConfig config = await QueuedAsync("--preset", "stories-tiny", "--config", file, "--dataset", PreparedStore.Stories, "--batch_size", "5", "--anneal-learning-rate", "--packed", "false", "--sample_prompts", "One day", "--sample_prompts", "Tom");
        Assert.Equal((900, 5, LearningRateSchedule.Linear, 0.2, 48), (config.Training.MaxSteps, config.Training.BatchSize, config.Optimizer.Schedule, config.Model.Dropout, config.Model.EmbeddingDimensions));
        Assert.Equal(["One day", "Tom"], config.Training.SamplePrompts);
        Assert.False(config.Data.Packed);
        // A run.json does as well, and a token file is kept by its whole path.
        RunFolder source = RunFolder.Create(prepared.Store, new RunRecord(1, RunFolder.NewId(DateTimeOffset.UtcNow), DateTimeOffset.UtcNow, [], config with { Seed = 99 }));
        string tokens = Path.GetRelativePath(Environment.CurrentDirectory, prepared.Store.DatasetTokens(PreparedStore.Stories));
        RunConfig again = await QueuedAsync("--config", source.RecordPath, "--dataset", tokens);
        Assert.Equal((99UL, 5, prepared.Store.DatasetTokens(PreparedStore.Stories)), (again.Seed, again.Training.BatchSize, again.Data.Dataset));
        await File.WriteAllTextAsync(file, """{"kind": "prepare", "training": {"max_step": 900}}""");
        (int code, _, string errors) = await NopeGptProcess.RunAsync(Small("--config", file));
        Assert.Equal(2, code);
        Assert.Contains("training.max_step = 900: there is no such setting; did you mean training.max_steps?", errors, StringComparison.Ordinal);
        Assert.Contains("kind = prepare", errors, StringComparison.Ordinal);
    }

    private static Lazy<Task<(int Code, string Output, string Errors)>> HelpAsync { get; } = new(() => NopeGptProcess.RunAsync("pretrain", "--help"));

    private async Task<RunConfig> QueuedAsync(params string[] arguments)
    {
        (int code, string output, string errors) = await NopeGptProcess.RunAsync(["pretrain", "--root", prepared.Store.Root, "--queue", "--json", .. arguments]);
        Assert.True(code == 0, errors);
        JsonElement document = JsonDocument.Parse(output).RootElement;
        Assert.Equal("Queued", document.GetProperty("state").GetString());
        RunFolder run = RunFolder.Open(document.GetProperty("folder").GetString()!);
        Assert.True(run.AsksForQueue);
        return run.Read().Config;
    }

    private async Task<RunFolder> NamedAsync(string name)
    {
        RunFolder? found = null;
        await UntilAsync(() => (found = Directory.GetDirectories(prepared.Store.RunsFolder).Where(p => !p.EndsWith(".new", StringComparison.Ordinal)).Select(RunFolder.Open).FirstOrDefault(r => r.Read().Config.Name == name)) is not null);
        return found!;
    }

    private static async Task UntilAsync(Func<bool> condition)
    {
        using CancellationTokenSource limit = new(TimeSpan.FromSeconds(60));
        while (!condition()) await Task.Delay(20, limit.Token);
    }
}
