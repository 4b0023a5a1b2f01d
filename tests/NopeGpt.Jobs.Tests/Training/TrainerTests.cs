using System.Diagnostics;
using System.Security.Cryptography;
using System.Text.Json.Nodes;
using NopeGpt.Jobs;
using NopeGpt.Jobs.Training;
using NopeGpt.Model;
using NopeGpt.Model.Native;
using NopeGpt.Model.Optimizers;
using NopeGpt.Model.Storage;
using TorchSharp;

namespace NopeGpt.Tests.Training;

/// <summary>A store with a small prepared data set, shared by the tests of the trainer.</summary>
public sealed class PreparedStore : IAsyncLifetime, IDisposable
{
    private readonly TemporaryFolder temporary = new();

    public PreparedStore() => Store = new Store(temporary["root"]);

    public Store Store { get; }

    public async Task InitializeAsync()
    {
        RunFolder run = NewRun(new RunConfig { Kind = RunKind.Prepare, Prepare = new PrepareConfig { CorpusBytes = 120_000, VocabularySize = 400, Dataset = "small" } });
        Assert.Equal(ExitCode.Done, await TrainerProcessMain.RunAsync(run.Path, Store, false, null, default));
    }

    public Task DisposeAsync() => Task.CompletedTask;

    public void Dispose() => temporary.Dispose();

    public RunFolder NewRun(RunConfig config) =>
        RunFolder.Create(Store, new RunRecord(RunRecord.CurrentFormat, RunFolder.NewId(DateTimeOffset.UtcNow), DateTimeOffset.UtcNow, [], config));

    /// <summary>A run that takes a second or two, with dropout, so that the generators matter.</summary>
    public static RunConfig Small(int steps) => new()
    {
        Kind = RunKind.Pretrain,
        Name = "small",
        Threads = 1,
        Model = new ModelConfig { VocabularySize = 0, EmbeddingDimensions = 32, NumQHeads = 4, NumKvHeads = 2, NumDecoderLayers = 2, Dropout = 0.1 },
        Data = new DataConfig { Dataset = "small", TokensPerSample = 32, NumEvalSamples = 8 },
        Optimizer = new OptimizerConfig { LearningRate = 1e-2, WarmupSteps = 5 },
        Training = new TrainingConfig { BatchSize = 4, GradientAccumulationSteps = 2, MaxSteps = steps, EvalInterval = 20, CheckpointInterval = 10, SampleTokens = 8, KeepCheckpoints = 2 },
    };
}

public sealed class TrainerTests(PreparedStore prepared) : IClassFixture<PreparedStore>
{
    private static readonly TimeSpan Patience = TimeSpan.FromSeconds(60);

    private Store Store => prepared.Store;

    [Fact]
    public async Task The_loss_falls_from_ln_V_and_tensors_stay_level()
    {
        RunFolder run = prepared.NewRun(PreparedStore.Small(70));
        List<(long Step, long Live)> live = [];
        int code = await TrainerProcessMain.RunAsync(run.Path, Store, false, null, default, e =>
        {
            if (e is MetricsEvent m && m.Values.ContainsKey("train/loss")) live.Add((m.Step, Tensor_Count()));
        });
        Assert.Equal(ExitCode.Done, code);
        double[] losses = [.. run.Events().OfType<MetricsEvent>().Where(m => m.Values.ContainsKey("train/loss")).Select(m => m.Values["train/loss"])];
        Assert.Equal(70, losses.Length);
        Assert.InRange(losses[0], 0.9 * Math.Log(400), 1.1 * Math.Log(400));
        Assert.True(losses.TakeLast(10).Average() < losses[0] - 0.8, $"from {losses[0]} to {losses.TakeLast(10).Average()}");
        Assert.Equal(live.First(l => l.Step == 12).Live, live.First(l => l.Step == 69).Live);
        Assert.Equal(RunState.Completed, run.Events().OfType<EndedEvent>().Single().State);
        Assert.NotEmpty(run.Events().OfType<SampleEvent>());
        MetricsEvent evaluated = run.Events().OfType<MetricsEvent>().Last(m => m.Values.ContainsKey("eval/loss"));
        Assert.Equal(Math.Exp(evaluated.Values["eval/loss"]), evaluated.Values["eval/perplexity"], 1e-9);
        Assert.InRange(Checkpoint.List(run.CheckpointsPath).Count, 2, 3);
    }

    [Fact]
    public async Task Stopped_by_a_signal_killed_and_resumed_equals_straight_through()
    {
        RunFolder straight = prepared.NewRun(PreparedStore.Small(300));
        Assert.Equal(ExitCode.Done, await TrainerProcessMain.RunAsync(straight.Path, Store, false, null, default));

        RunFolder broken = prepared.NewRun(PreparedStore.Small(300));
        await EndAt(broken, 3, p => Signal(p, "TERM"), ExitCode.StoppedAndSaved);
        await EndAt(broken, 62, p => p.Kill(), 137);
        await EndAt(broken, 125, _ => broken.RequestStop(StopRequest.Save), ExitCode.StoppedAndSaved);
        broken.RequestStop(StopRequest.None);
        using (Process last = Start(broken)) Assert.Equal(ExitCode.Done, await End(last, broken));

        Assert.Equal(Weights(straight), Weights(broken));
        Assert.Equal(4, broken.Events().OfType<StartedEvent>().Count());
        long[] sequences = [.. broken.Events().Select(e => e.Sequence)];
        Assert.Equal(Enumerable.Range(1, sequences.Length).Select(i => (long)i), sequences);
    }

    [Theory]
    [InlineData(false)]
    [InlineData(true)]
    public async Task Adafactor_learns_and_a_resumed_run_equals_straight_through(bool lowMemory)
    {
        RunConfig config = PreparedStore.Small(40) with
        {
            Optimizer = new OptimizerConfig { Optimizer = OptimizerKind.Adafactor, LowMemoryOptimizer = lowMemory, LearningRate = 3e-2, WarmupSteps = 5, AdafactorWeightDecay = 0.01 },
        };
        RunFolder straight = prepared.NewRun(config), stopped = prepared.NewRun(config);
        Assert.Equal(ExitCode.Done, await RunAsync(straight));
        double[] losses = [.. straight.Events().OfType<MetricsEvent>().Where(m => m.Values.ContainsKey("train/loss")).Select(m => m.Values["train/loss"])];
        Assert.True(losses.TakeLast(5).Average() < losses[0] - 0.5, $"from {losses[0]} to {losses.TakeLast(5).Average()}");

        using CancellationTokenSource stop = new();
        Assert.Equal(ExitCode.StoppedAndSaved, await TrainerProcessMain.RunAsync(stopped.Path, Store, false, null, stop.Token, e =>
        {
            if (e is MetricsEvent { Step: 17 }) stop.Cancel();
        }));
        string optimizer = Path.Combine(Checkpoint.List(stopped.CheckpointsPath)[0].Path, "optimizer.safetensors");
        using (SafetensorsFile state = SafetensorsFile.Open(optimizer)) Assert.Contains("row_var.token_embeddings.weight", state.Names);
        Assert.Equal(ExitCode.Done, await RunAsync(stopped));
        Assert.InRange(stopped.Events().OfType<StartedEvent>().Last().FromStep, 17, 39);
        Assert.Equal(Weights(straight), Weights(stopped));
    }

    [Fact]
    public async Task A_checkpoint_of_the_other_optimizer_is_refused_by_its_name()
    {
        RunFolder run = prepared.NewRun(PreparedStore.Small(20));
        Assert.Equal(ExitCode.Done, await RunAsync(run));
        RunRecord record = run.Read();
        run.Write(record with { Config = record.Config with { Optimizer = record.Config.Optimizer with { Optimizer = OptimizerKind.Adafactor }, Training = record.Config.Training with { MaxSteps = 30 } } });
        Assert.Equal(ExitCode.BadConfiguration, await RunAsync(run));
        string reason = run.Events().OfType<EndedEvent>().Last().Reason!;
        Assert.Contains("that of Muon", reason, StringComparison.Ordinal);
        Assert.Contains("optimizer.safetensors", reason, StringComparison.Ordinal);
    }

    [Fact]
    public async Task A_damaged_newest_checkpoint_is_passed_over_with_a_warning()
    {
        RunFolder run = prepared.NewRun(PreparedStore.Small(20));
        Assert.Equal(ExitCode.Done, await TrainerProcessMain.RunAsync(run.Path, Store, false, null, default));
        string weights = Weights(run);
        string newest = Path.Combine(Checkpoint.List(run.CheckpointsPath)[0].Path, "model.safetensors");
        byte[] bytes = await File.ReadAllBytesAsync(newest);
        bytes[^5] ^= 1;
        await File.WriteAllBytesAsync(newest, bytes);
        Assert.Equal(ExitCode.Done, await TrainerProcessMain.RunAsync(run.Path, Store, false, null, default));
        Assert.Contains(run.Events().OfType<WarningEvent>(), w => w.Message.Contains("step-000000020", StringComparison.Ordinal));
        Assert.Equal(10, run.Events().OfType<StartedEvent>().Last().FromStep);
        Assert.Equal(weights, Weights(run));
    }

    [Fact]
    public async Task A_loss_that_is_not_finite_stops_before_the_update()
    {
        RunFolder run = prepared.NewRun(PreparedStore.Small(20) with { Model = new ModelConfig { VocabularySize = 400, EmbeddingDimensions = 32, NumQHeads = 4, NumKvHeads = 2, NumDecoderLayers = 1 } });
        TorchRuntime.Load();
        using (Decoder poisoned = new(run.Read().Config.Model, 1))
        using (Optimizer optimizer = run.Read().Config.Optimizer.Options().Create(poisoned.Parameters()))
        {
            using (torch.no_grad()) poisoned.Parameters()[0].Parameter.fill_(float.NaN);
            Checkpoint.Save(Path.Combine(run.CheckpointsPath, "step-000000005"), poisoned, optimizer, Path.Combine(Store.TokenizerFolder("small"), "tokenizer.json"),
                new JsonObject
                {
                    ["step"] = 5, ["tokens"] = 1280, ["dropout_state"] = Convert.ToBase64String(poisoned.DropoutState),
                    ["tokenizer_hash"] = NopeGpt.Data.Tokenization.Tokenizer.Load(Store.TokenizerFolder("small")).Hash,
                });
        }
        Assert.Equal(ExitCode.Diverged, await TrainerProcessMain.RunAsync(run.Path, Store, false, null, default));
        EndedEvent ended = run.Events().OfType<EndedEvent>().Single();
        Assert.Equal(RunState.Failed, ended.State);
        Assert.Contains("step 6", ended.Reason, StringComparison.Ordinal);
        Assert.Single(Checkpoint.List(run.CheckpointsPath));
    }

    [Fact]
    public async Task A_vocabulary_that_is_not_the_tokenizers_and_a_damaged_token_file_are_refused()
    {
        RunFolder wrong = prepared.NewRun(PreparedStore.Small(5) with { Model = new ModelConfig { VocabularySize = 399, EmbeddingDimensions = 32, NumQHeads = 4, NumKvHeads = 2, NumDecoderLayers = 1 } });
        Assert.Equal(ExitCode.BadConfiguration, await TrainerProcessMain.RunAsync(wrong.Path, Store, false, null, default));
        Assert.Contains("model.vocabulary_size = 399", wrong.Events().OfType<EndedEvent>().Single().Reason, StringComparison.Ordinal);

        using TemporaryFolder other = new();
        File.Copy(Store.DatasetTokens("small"), other["tokens.bin"]);
        File.Copy(Path.Combine(Store.TokenizerFolder("small"), "tokenizer.json"), other["tokenizer.json"]);
        byte[] bytes = await File.ReadAllBytesAsync(other["tokens.bin"]);
        bytes[bytes.Length / 2] ^= 0x55;
        await File.WriteAllBytesAsync(other["tokens.bin"], bytes);
        RunFolder damaged = prepared.NewRun(PreparedStore.Small(5) with { Data = new DataConfig { Dataset = other["tokens.bin"], TokensPerSample = 32, NumEvalSamples = 8 } });
        Assert.Equal(ExitCode.BadConfiguration, await TrainerProcessMain.RunAsync(damaged.Path, Store, false, null, default));
        Assert.Contains(other["tokens.bin"], damaged.Events().OfType<EndedEvent>().Single().Reason, StringComparison.Ordinal);
    }

    [Fact]
    public async Task One_trainer_a_run()
    {
        RunFolder run = prepared.NewRun(PreparedStore.Small(5));
        await using FileStream? held = run.TryLock();
        UserException e = await Assert.ThrowsAsync<UserException>(() => TrainerProcessMain.RunAsync(run.Path, Store, false, null, default));
        Assert.Contains(run.Id, e.Message, StringComparison.Ordinal);
        Assert.Empty(run.Events());
    }

    [Fact]
    public async Task Preparing_the_same_again_takes_what_is_there_and_another_recipe_is_refused()
    {
        PrepareConfig recipe = new() { CorpusBytes = 120_000, VocabularySize = 400, Dataset = "small" };
        DateTime made = File.GetLastWriteTimeUtc(Store.DatasetTokens("small"));
        RunFolder same = prepared.NewRun(new RunConfig { Kind = RunKind.Prepare, Prepare = recipe });
        Assert.Equal(ExitCode.Done, await TrainerProcessMain.RunAsync(same.Path, Store, false, null, default));
        RunFolder other = prepared.NewRun(new RunConfig { Kind = RunKind.Prepare, Prepare = recipe with { VocabularySize = 500 } });
        Assert.Equal(ExitCode.BadConfiguration, await TrainerProcessMain.RunAsync(other.Path, Store, false, null, default));
        Assert.Equal(made, File.GetLastWriteTimeUtc(Store.DatasetTokens("small")));
        Assert.Equal(["small"], RunConfigChecks.DatasetNames(Store));
        Assert.DoesNotContain(Directory.EnumerateFileSystemEntries(Store.DatasetsFolder), p => p.EndsWith(".new", StringComparison.Ordinal));
    }

    [Fact]
    public async Task Evaluating_a_run_measures_what_training_measured_and_writes_samples()
    {
        RunFolder trained = prepared.NewRun(PreparedStore.Small(20));
        Assert.Equal(ExitCode.Done, await TrainerProcessMain.RunAsync(trained.Path, Store, false, null, default));
        RunFolder measured = prepared.NewRun(new RunConfig { Kind = RunKind.Evaluate, Evaluate = new EvaluateConfig { Checkpoint = trained.Id, MaxTokens = 10 } });
        Assert.Equal(ExitCode.Done, await TrainerProcessMain.RunAsync(measured.Path, Store, false, null, default));
        double loss = measured.Events().OfType<MetricsEvent>().Single().Values["eval/loss"];
        Assert.Equal(trained.Events().OfType<MetricsEvent>().Last(m => m.Values.ContainsKey("eval/loss")).Values["eval/loss"], loss, 1e-6);
        Assert.Equal(3, measured.Events().OfType<SampleEvent>().Count());
    }

    [Theory]
    [InlineData("\"step\": 20,", "\"step\": 2x,")]
    [InlineData("\"tokens\": 5120", "\"tokens\": 5121")]
    public async Task A_changed_byte_in_the_trainers_state_leads_to_the_checkpoint_before(string saved, string damaged)
    {
        RunFolder run = prepared.NewRun(PreparedStore.Small(20));
        Assert.Equal(ExitCode.Done, await RunAsync(run));
        string weights = Weights(run), file = Path.Combine(Checkpoint.List(run.CheckpointsPath)[0].Path, "trainer.json"), text = await File.ReadAllTextAsync(file);
        Assert.Contains(saved, text, StringComparison.Ordinal);
        await File.WriteAllTextAsync(file, text.Replace(saved, damaged, StringComparison.Ordinal));
        Assert.Equal(ExitCode.Done, await RunAsync(run));
        Assert.Equal(10, run.Events().OfType<StartedEvent>().Last().FromStep);
        Assert.Contains(run.Events().OfType<WarningEvent>(), w => w.Message.Contains(file, StringComparison.Ordinal));
        Assert.Equal(weights, Weights(run));
    }

    [Fact]
    public async Task A_damaged_older_checkpoint_is_deleted_and_the_run_completes()
    {
        RunFolder run = prepared.NewRun(PreparedStore.Small(40));
        Assert.Equal(ExitCode.Done, await RunAsync(run, e =>
        {
            if (e is CheckpointEvent { Step: 20 }) File.WriteAllText(Path.Combine(run.CheckpointsPath, Checkpoint.FolderName(10), "trainer.json"), "{");
        }));
        Assert.DoesNotContain(Checkpoint.List(run.CheckpointsPath), c => c.Step == 10);
        Assert.DoesNotContain(Directory.EnumerateDirectories(run.CheckpointsPath), d => d.EndsWith(".tmp", StringComparison.Ordinal));
    }

    [Theory]
    [InlineData(false)]
    [InlineData(true)]
    public async Task A_tokenizer_that_did_not_make_the_tokens_is_refused(bool damaged)
    {
        using TemporaryFolder other = new();
        File.Copy(Store.DatasetTokens("small"), other["tokens.bin"]);
        string text = await File.ReadAllTextAsync(Path.Combine(Store.TokenizerFolder("small"), "tokenizer.json"));
        await File.WriteAllTextAsync(other["tokenizer.json"], damaged ? text[..^20] : text);
        if (!damaged) NopeGpt.Data.Tokenization.BytePairTrainer.Train(["another text of another kind, another one"], 270).Save(other.Path);
        RunConfig config = PreparedStore.Small(5) with { Data = new DataConfig { Dataset = other["tokens.bin"], TokensPerSample = 32, NumEvalSamples = 8 } };
        Problem problem = Assert.Single(RunConfigChecks.All(config, Store));
        Assert.Equal("data.dataset", problem.Field);
        Assert.Contains(other["tokenizer.json"], problem.Message, StringComparison.Ordinal);
        RunFolder run = prepared.NewRun(config);
        Assert.Equal(ExitCode.BadConfiguration, await RunAsync(run));
        Assert.Empty(run.Events().OfType<StartedEvent>());
    }

    [Theory]
    [InlineData(20)]
    [InlineData(40)]
    public async Task A_stop_is_heard_during_an_evaluation_which_the_resumed_run_makes_up_for(long stopAt)
    {
        RunFolder straight = prepared.NewRun(PreparedStore.Small(40)), stopped = prepared.NewRun(PreparedStore.Small(40));
        Assert.Equal(ExitCode.Done, await RunAsync(straight));
        using CancellationTokenSource stop = new();
        Assert.Equal(ExitCode.StoppedAndSaved, await TrainerProcessMain.RunAsync(stopped.Path, Store, false, null, stop.Token, e =>
        {
            if (e is MetricsEvent m && m.Step == stopAt) stop.Cancel();
        }));
        Assert.Equal(stopAt, Checkpoint.List(stopped.CheckpointsPath)[0].Step);
        Assert.DoesNotContain(stopped.Events().OfType<MetricsEvent>(), m => m.Step == stopAt && m.Values.ContainsKey("eval/loss"));
        Assert.Equal($"stopped and saved at step {stopAt}", stopped.Events().OfType<EndedEvent>().Last().Reason);

        Assert.Equal(ExitCode.Done, await RunAsync(stopped));
        Assert.Equal(Evaluations(straight), Evaluations(stopped));
        Assert.Equal(Weights(straight), Weights(stopped));
        Assert.Equal(40, stopped.Events().OfType<CheckpointEvent>().Last().Step);
        double saved = Checkpoint.TrainerState(Checkpoint.List(stopped.CheckpointsPath)[0].Path)!["eval_loss"]!.GetValue<double>();
        Assert.Equal(Evaluations(straight)[^1].Loss, saved);
    }

    [Fact]
    public async Task Evaluations_and_samples_do_not_change_what_is_learned()
    {
        RunConfig often = PreparedStore.Small(20);
        RunFolder with = prepared.NewRun(often with { Training = often.Training with { EvalInterval = 3 } }), without = prepared.NewRun(often with { Training = often.Training with { EvalInterval = 0, SampleTokens = 0 } });
        Assert.Equal(ExitCode.Done, await RunAsync(with));
        Assert.Equal(ExitCode.Done, await RunAsync(without));
        Assert.Equal(Weights(without), Weights(with));
    }

    [Fact]
    public async Task A_run_that_is_killed_by_request_does_not_say_that_it_saved()
    {
        RunFolder run = prepared.NewRun(PreparedStore.Small(40));
        using CancellationTokenSource stop = new();
        Assert.Equal(ExitCode.StoppedAndSaved, await TrainerProcessMain.RunAsync(run.Path, Store, false, null, stop.Token, e =>
        {
            if (e is not MetricsEvent { Step: 13 }) return;
            run.RequestStop(StopRequest.Kill);
            stop.Cancel();
        }));
        Assert.Equal(10, Checkpoint.List(run.CheckpointsPath)[0].Step);
        Assert.DoesNotContain("saved", run.Events().OfType<EndedEvent>().Single().Reason, StringComparison.Ordinal);
    }

    [Fact]
    public async Task Evaluating_on_the_runs_own_data_uses_its_holdout_and_bad_sizes_for_other_data_are_refused()
    {
        RunFolder trained = prepared.NewRun(PreparedStore.Small(20));
        Assert.Equal(ExitCode.Done, await RunAsync(trained));
        RunConfig config = new() { Kind = RunKind.Evaluate, Evaluate = new EvaluateConfig { Checkpoint = trained.Id, MaxTokens = 2 }, Data = new DataConfig { Dataset = "small", TokensPerSample = 16, NumEvalSamples = 100_000 } };
        RunFolder own = prepared.NewRun(config);
        Assert.Equal(ExitCode.Done, await RunAsync(own));
        Assert.Equal(Evaluations(trained)[^1].Loss, Evaluations(own).Single().Loss, 1e-6);

        using TemporaryFolder other = new();
        File.Copy(Store.DatasetTokens("small"), other["tokens.bin"]);
        File.Copy(Path.Combine(Store.TokenizerFolder("small"), "tokenizer.json"), other["tokenizer.json"]);
        RunConfig foreign = config with { Data = config.Data with { Dataset = other["tokens.bin"] } };
        Assert.Contains("100000 held out", Assert.Single(RunConfigChecks.All(foreign, Store)).Message, StringComparison.Ordinal);
        // The checkpoint is the one of the run before, which the checks cannot know yet.
        RunFolder late = RunFolder.Create(Store, new RunRecord(RunRecord.CurrentFormat, RunFolder.NewId(DateTimeOffset.UtcNow), DateTimeOffset.UtcNow, [trained.Id],
            foreign with { Evaluate = foreign.Evaluate with { Checkpoint = "" } }));
        Assert.Equal(ExitCode.BadConfiguration, await RunAsync(late));
        Assert.Contains("data.num_eval_samples = 100000", late.Events().OfType<EndedEvent>().Single().Reason, StringComparison.Ordinal);
    }

    private Task<int> RunAsync(RunFolder run, Action<TrainingEvent>? watch = null) => TrainerProcessMain.RunAsync(run.Path, Store, false, null, default, watch);

    private static (long Step, double Loss)[] Evaluations(RunFolder run) =>
        [.. run.Events().OfType<MetricsEvent>().Where(m => m.Values.ContainsKey("eval/loss")).Select(m => (m.Step, m.Values["eval/loss"]))];

    private static long Tensor_Count() => DisposeScopeManager.Statistics.ThreadTotalLiveCount;

    private static string Weights(RunFolder run) =>
        Convert.ToHexString(SHA256.HashData(File.ReadAllBytes(Path.Combine(Checkpoint.List(run.CheckpointsPath)[0].Path, "model.safetensors"))));

    private static async Task EndAt(RunFolder run, long step, Action<Process> end, int code)
    {
        using Process process = Start(run);
        Stopwatch watch = Stopwatch.StartNew();
        while (!run.Events().OfType<MetricsEvent>().Any(m => m.Step >= step))
        {
            if (watch.Elapsed > Patience || process.HasExited) Assert.Fail($"step {step} was not reached: {await File.ReadAllTextAsync(run.LogPath)}");
            await Task.Delay(5);
        }
        end(process);
        Assert.Equal(code, await End(process, run));
    }

    private static async Task<int> End(Process process, RunFolder run)
    {
        using CancellationTokenSource limit = new(Patience);
        try { await process.WaitForExitAsync(limit.Token); }
        catch (OperationCanceledException)
        {
            process.Kill();
            Assert.Fail("the trainer did not end: " + await File.ReadAllTextAsync(run.LogPath));
        }
        return process.ExitCode;
    }

    private static Process Start(RunFolder run) =>
        Process.Start(new ProcessStartInfo(Path.Combine(AppContext.BaseDirectory, "nopegpt"), ["train", run.Path, "--root", Path.GetDirectoryName(Path.GetDirectoryName(run.Path))!, "--detached"]))!;

    private static void Signal(Process process, string signal)
    {
        using Process kill = Process.Start("kill", ["-" + signal, process.Id.ToString()]);
        kill.WaitForExit();
    }
}
