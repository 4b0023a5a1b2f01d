using System.Text.Json.Nodes;
using NopeGpt.Data;
using NopeGpt.Jobs;
using NopeGpt.Jobs.Training;
using NopeGpt.Model;
using NopeGpt.Model.Native;
using NopeGpt.Model.Optimizers;
using NopeGpt.Model.Storage;
using TorchSharp;

namespace NopeGpt.Tests.Training;

/// <summary>Whole runs on several devices, which are the CPU several times.</summary>
public sealed class ReplicaTrainingTests(ReplicaTrainingTests.Alone alone) : IClassFixture<ReplicaTrainingTests.Alone>
{
    private const int Steps = 50;

    private PreparedStore Prepared => alone.Prepared;

    private Store Store => Prepared.Store;

    public static TheoryData<string, int> Groups()
    {
        TheoryData<string, int> data = [];
        foreach (string devices in (string[])["cpu,cpu", "cpu,cpu,cpu,cpu"]) foreach (int level in (int[])[0, 2, 3]) data.Add(devices, level);
        return data;
    }

    [Theory]
    [MemberData(nameof(Groups))]
    public async Task A_run_on_several_devices_measures_what_one_with_the_same_global_batch_does(string devices, int level)
    {
        RunFolder run = Prepared.NewRun(On(devices, level));
        Assert.Equal(ExitCode.Done, await RunAsync(run));
        AssertNear(alone.Run, run);
        Assert.Equal(Texts(alone.Run), Texts(run));
        Assert.Equal(Steps * 4 * 4 * 32, run.Events().OfType<MetricsEvent>().Max(m => m.Tokens));
        Assert.Contains($"{devices.Split(',').Length} replicas, sharding level {level}, gradients reduced by copies within the process", Log(run), StringComparison.Ordinal);
        AssertNearWeights(alone.Run, run);
    }

    [Theory]
    [InlineData(0, OptimizerKind.Adamw)]
    [InlineData(2, OptimizerKind.Adafactor)]
    [InlineData(3, OptimizerKind.Adamw)]
    [InlineData(2, OptimizerKind.Muon)]
    [InlineData(3, OptimizerKind.Muon)]
    public async Task A_stopped_run_of_two_replicas_goes_on_to_the_bit(int level, OptimizerKind optimizer)
    {
        RunConfig config = Dropping(On("cpu,cpu", level)) with { Optimizer = Config.Optimizer with { Optimizer = optimizer } };
        config = config with { Training = config.Training with { MaxSteps = 12, EvalInterval = 5, CheckpointInterval = 4, ActivationCheckpointing = true } };
        RunFolder straight = Prepared.NewRun(config), broken = Prepared.NewRun(config), plain = Prepared.NewRun(config with { Training = config.Training with { ActivationCheckpointing = false } });
        Assert.Equal(ExitCode.Done, await RunAsync(straight));
        Assert.Equal(ExitCode.Done, await RunAsync(plain));
        foreach (int at in (int[])[3, 8])
        {
            using CancellationTokenSource stop = new();
            Assert.Equal(ExitCode.StoppedAndSaved, await TrainerProcessMain.RunAsync(broken.Path, Store, false, null, stop.Token, e =>
            {
                if (e is MetricsEvent m && m.Step == at) stop.Cancel();
            }));
        }
        Assert.Equal(ExitCode.Done, await RunAsync(broken));
        AssertSame(straight, broken);
        // Blocks that are computed again are the same blocks, also where their parameters are gathered again.
        AssertSame(plain, straight);
        Assert.Equal(2, Checkpoint.TrainerState(Newest(straight))!["dropout_states"]!.AsArray().Select(g => g!.GetValue<string>()).Distinct().Count());
    }

    [Theory]
    [InlineData(0)]
    [InlineData(3)]
    public async Task A_stop_in_the_midst_of_a_step_of_two_replicas_changes_nothing_and_is_heard_at_once(int level)
    {
        RunConfig config = Dropping(On("cpu,cpu", level));
        config = config with { Training = config.Training with { GradientAccumulationSteps = 400, BatchSize = 1, MaxSteps = 3, EvalInterval = 0, CheckpointInterval = 0 }, Optimizer = config.Optimizer with { WarmupSteps = 0 } };
        RunFolder straight = Prepared.NewRun(config), stopped = Prepared.NewRun(config);
        Assert.Equal(ExitCode.Done, await RunAsync(straight));
        // The stop file is looked for every fifth of a second, which is in the midst of some step.
        Assert.Equal(ExitCode.StoppedAndSaved, await RunAsync(stopped, e =>
        {
            if (e is MetricsEvent { Step: 1 }) stopped.RequestStop(StopRequest.Save);
        }));
        Assert.InRange(Checkpoint.List(stopped.CheckpointsPath)[0].Step, 1, 2);
        Assert.Equal(ExitCode.Done, await RunAsync(stopped));
        AssertSame(straight, stopped);
    }

    [Theory]
    [InlineData("cpu,cpu", 2, "cpu")]
    [InlineData("cpu", 0, "cpu,cpu")]
    [InlineData("cpu,cpu,cpu,cpu", 3, "cpu,cpu")]
    public async Task A_run_goes_on_with_another_number_of_devices(string first, int level, string then)
    {
        RunFolder run = Prepared.NewRun(On(first, level));
        using CancellationTokenSource stop = new();
        Assert.Equal(ExitCode.StoppedAndSaved, await TrainerProcessMain.RunAsync(run.Path, Store, false, null, stop.Token, e =>
        {
            if (e is MetricsEvent { Step: 20 }) stop.Cancel();
        }));
        RunRecord record = run.Read();
        run.Write(record with { Config = record.Config with { Device = then } });
        Assert.Equal(ExitCode.Done, await RunAsync(run));
        AssertNear(alone.Run, run);
        AssertNearWeights(alone.Run, run);
    }

    [Fact]
    public async Task A_checkpoint_of_version_0_1_with_one_generator_goes_on_to_the_bit()
    {
        RunConfig config = Dropping(On("cpu", 0));
        config = config with { Training = config.Training with { MaxSteps = 8, EvalInterval = 0, CheckpointInterval = 4 } };
        RunFolder straight = Prepared.NewRun(config), old = Prepared.NewRun(config);
        Assert.Equal(ExitCode.Done, await RunAsync(straight));
        string from = Path.Combine(straight.CheckpointsPath, Checkpoint.FolderName(4));
        JsonObject state = Checkpoint.TrainerState(from)!;
        state["dropout_state"] = state["dropout_states"]![0]!.DeepClone();
        foreach (string key in (string[])["dropout_states", "format_version", "hashes"]) state.Remove(key);
        using (Decoder model = Checkpoint.LoadModel(from))
        using (Optimizer optimizer = config.Optimizer.Options().Create(model.Parameters()))
        {
            Checkpoint.LoadOptimizer(from, optimizer.Restore);
            Checkpoint.Save(Path.Combine(old.CheckpointsPath, Checkpoint.FolderName(4)), model, optimizer, Path.Combine(from, "tokenizer.json"), state);
        }
        Assert.Equal(ExitCode.Done, await RunAsync(old));
        Assert.Equal(4, old.Events().OfType<StartedEvent>().Single().FromStep);
        foreach (string name in (string[])["model.safetensors", "optimizer.safetensors"])
            Assert.Equal(File.ReadAllBytes(Path.Combine(Newest(straight), name)), File.ReadAllBytes(Path.Combine(Newest(old), name)));
    }

    [Theory]
    [InlineData("cpu", 0)]
    [InlineData("cpu,cpu", 2)]
    [InlineData("cpu,cpu", 3)]
    public async Task A_loss_of_one_replica_that_is_not_finite_names_the_documents_of_its_batch_alone(string devices, int level)
    {
        RunConfig config = On(devices, level);
        RunFolder run = Prepared.NewRun(config with { Model = config.Model with { VocabularySize = 400, TiedHead = false } });
        config = run.Read().Config;
        using TrainingData files = new(config.Data, Store);
        BatchSource source = files.Source(config.Data, config.Training.BatchSize, config.Seed);
        // From step 5 on: a step whose second micro-batch has a token that no other has.
        (int bad, long[][] tokens) = (1, [.. Enumerable.Range(0, 4).Select(i => source.Training((4 * 5) + i).Tokens)]);
        long poison = tokens[bad].Distinct().Except(tokens.Where((_, i) => i != bad).SelectMany(t => t)).First();
        TorchRuntime.Load();
        using (Decoder poisoned = new(config.Model, 1))
        using (Optimizer optimizer = config.Optimizer.Options().Create(poisoned.Parameters()))
        {
            using (torch.no_grad()) poisoned.Parameters().Single(p => p.Name == "token_embeddings.weight").Parameter[poison].fill_(float.NaN);
            Checkpoint.Save(Path.Combine(run.CheckpointsPath, Checkpoint.FolderName(5)), poisoned, optimizer, Path.Combine(Store.TokenizerFolder("small"), "tokenizer.json"), new JsonObject
            {
                ["step"] = 5, ["tokens"] = 5 * 4 * 4 * 32, ["dropout_states"] = new JsonArray(Convert.ToBase64String(poisoned.DropoutState)), ["tokenizer_hash"] = files.First.TokenizerHash,
            });
        }
        Assert.Equal(ExitCode.Diverged, await RunAsync(run));
        EndedEvent ended = run.Events().OfType<EndedEvent>().Single();
        Assert.Equal((RunState.Failed, 6L), (ended.State, ended.Step!.Value));
        Assert.Equal(source.DocumentIds(source.Training((4 * 5) + bad)), ended.Documents!);
        Assert.Equal(5, Checkpoint.List(run.CheckpointsPath).Single().Step);
        Assert.DoesNotContain(run.Events().OfType<MetricsEvent>(), m => m.Step == 6);
    }

    [Fact]
    public async Task Accumulation_that_does_not_divide_evenly_warns_and_counts_what_is_trained()
    {
        RunConfig config = On("cpu,cpu", 2) with { Optimizer = new OptimizerConfig { WarmupSteps = 0 } };
        RunFolder run = Prepared.NewRun(config with { Training = config.Training with { GradientAccumulationSteps = 5, MaxSteps = 3 } });
        Assert.Equal(ExitCode.Done, await RunAsync(run));
        Assert.Contains("gradient_accumulation_steps = 5 does not divide evenly among 2 devices: each takes 2, so that a step has 4 micro-batches", run.Events().OfType<WarningEvent>().Single().Message, StringComparison.Ordinal);
        Assert.Equal(3 * 4 * 4 * 32, run.Events().OfType<MetricsEvent>().Max(m => m.Tokens));
        // As if it had been asked for.
        RunFolder even = Prepared.NewRun(config with { Training = config.Training with { MaxSteps = 3 } });
        Assert.Equal(ExitCode.Done, await RunAsync(even));
        AssertSame(even, run);
        Assert.Empty(even.Events().OfType<WarningEvent>());
    }

    [Theory]
    [InlineData("cpu,cpu,cpu", 2, 2, "training.gradient_accumulation_steps = 2: leaves nothing for each of 3 devices: choose 3 or a multiple of it, or fewer devices")]
    [InlineData("cpu,cuda", 4, 2, "device = cpu,cuda: mixes CPU and GPUs")]
    [InlineData("cuda:0,cuda:1,cpu", 4, 2, "device = cuda:0,cuda:1,cpu: mixes CPU and GPUs")]
    [InlineData("cuda:0,cuda:0", 4, 2, "device = cuda:0,cuda:0: names cuda:0 2 times: name each GPU once")]
    [InlineData("cuda,cuda:0", 4, 2, "device = cuda,cuda:0: names cuda:0 2 times")]
    [InlineData("cpu,auto", 4, 2, "device = cpu,auto: is not a device")]
    [InlineData("cpu,", 4, 2, "device = cpu,: is not a device")]
    [InlineData("cpu, cpu", 4, 2, "device = cpu, cpu: is not a device")]
    [InlineData("tpu", 4, 2, "device = tpu: is not a device: use auto, cpu, cuda")]
    [InlineData("", 4, 2, "device = : is not a device")]
    [InlineData("cpu,cpu", 4, 1, "training.sharding_level = 1: is no level of its own: choose 0 (none), 2 (gradients and optimizer state) or 3 (parameters too)")]
    [InlineData("cpu", 4, 4, "training.sharding_level = 4: must lie from 0 to 3")]
    public void Devices_and_levels_that_cannot_be_are_refused_with_all_else_that_is_wrong(string devices, int accumulation, int level, string says)
    {
        RunConfig config = On(devices, level) with { Optimizer = new OptimizerConfig { LearningRate = -1 } };
        config = config with { Training = config.Training with { GradientAccumulationSteps = accumulation } };
        string[] problems = [.. RunConfigChecks.All(config, Store).Select(p => p.ToString())];
        Assert.Equal(2, problems.Length);
        Assert.Contains(problems, p => p.StartsWith("optimizer.learning_rate", StringComparison.Ordinal));
        Assert.Contains(problems, p => p.StartsWith(says, StringComparison.Ordinal));
    }

    [Fact]
    public async Task A_GPU_that_is_not_there_ends_the_run_with_its_name()
    {
        RunFolder run = Prepared.NewRun(On("cuda:97,cuda:98", 2));
        Assert.Equal(ExitCode.BadConfiguration, await RunAsync(run));
        Assert.Contains("devices cuda:97 and cuda:98 are not there", run.Events().OfType<EndedEvent>().Single().Reason, StringComparison.Ordinal);
    }

    private static RunConfig Config
    {
        get
        {
            RunConfig small = PreparedStore.Small(Steps);
            return small with
            {
                Device = "cpu",
                Model = small.Model with { Dropout = 0 },
                Training = small.Training with { GradientAccumulationSteps = 4, EvalInterval = 25, CheckpointInterval = 30, SampleTokens = 6 },
            };
        }
    }

    private static RunConfig On(string devices, int level) => Config with { Device = devices, Training = Config.Training with { ShardingLevel = level } };

    private static RunConfig Dropping(RunConfig config) => config with { Model = config.Model with { Dropout = 0.2, AttentionDropout = 0.1, ResidualDropout = 0.1 } };

    private Task<int> RunAsync(RunFolder run, Action<TrainingEvent>? watch = null) => TrainerProcessMain.RunAsync(run.Path, Store, false, null, default, watch);

    private static string Newest(RunFolder run) => Checkpoint.List(run.CheckpointsPath)[0].Path;

    private static string Log(RunFolder run) => File.ReadAllText(run.LogPath);

    private static void AssertSame(RunFolder one, RunFolder other)
    {
        foreach (string name in (string[])["model.safetensors", "optimizer.safetensors"])
            Assert.Equal(File.ReadAllBytes(Path.Combine(Newest(one), name)), File.ReadAllBytes(Path.Combine(Newest(other), name)));
        Assert.Equal(Numbers(one), Numbers(other));

        static IEnumerable<string> Numbers(RunFolder run) => Standing.Numbers(run).Where(line => !line.StartsWith("gradient_accumulation", StringComparison.Ordinal));
    }

    private static void AssertNear(RunFolder one, RunFolder other)
    {
        (string, double)[] expected = Values(one), found = Values(other);
        Assert.Equal(expected.Select(v => v.Item1), found.Select(v => v.Item1));
        Assert.All(expected.Zip(found), pair => Assert.True(Math.Abs(pair.First.Item2 - pair.Second.Item2) < 1e-5, $"{pair.First.Item1}: {pair.Second.Item2}, expected {pair.First.Item2}"));

        static (string, double)[] Values(RunFolder run) =>
            [.. run.Events().OfType<MetricsEvent>().SelectMany(m => m.Values.Where(v => v.Key is "train/loss" or "eval/loss").Select(v => ($"{v.Key} at {m.Step}", v.Value)))];
    }

    private static void AssertNearWeights(RunFolder one, RunFolder other)
    {
        using DisposeScope scope = torch.NewDisposeScope();
        using Decoder expected = Checkpoint.LoadModel(Newest(one)), found = Checkpoint.LoadModel(Newest(other));
        Assert.All(expected.Parameters().Zip(found.Parameters()), p => Assert.True(p.First.Parameter.allclose(p.Second.Parameter, rtol: 1e-3, atol: 1e-4), p.First.Name));
    }

    private static IEnumerable<string> Texts(RunFolder run) => run.Events().OfType<SampleEvent>().Select(s => s.Text);

    /// <summary>A store and a run on one device, which the others are compared with.</summary>
    public sealed class Alone : IAsyncLifetime, IDisposable
    {
        public PreparedStore Prepared { get; } = new();

        public RunFolder Run { get; private set; } = null!;

        public async Task InitializeAsync()
        {
            await Prepared.InitializeAsync();
            Run = Prepared.NewRun(Config);
            Assert.Equal(ExitCode.Done, await TrainerProcessMain.RunAsync(Run.Path, Prepared.Store, false, null, default));
        }

        public Task DisposeAsync() => Prepared.DisposeAsync();

        public void Dispose() => Prepared.Dispose();
    }
}
