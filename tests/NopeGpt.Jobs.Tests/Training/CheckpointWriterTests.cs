using System.Diagnostics;
using System.Security.Cryptography;
using NopeGpt.Jobs;
using NopeGpt.Jobs.Tests.Queue;
using NopeGpt.Jobs.Training;
using NopeGpt.Model;
using NopeGpt.Model.Native;
using NopeGpt.Model.Optimizers;
using NopeGpt.Model.Replicas;
using NopeGpt.Model.Storage;

namespace NopeGpt.Tests.Training;

public sealed class CheckpointWriterTests(PreparedStore prepared) : IClassFixture<PreparedStore>
{
    private Store Store => prepared.Store;

    [Fact]
    public async Task Training_goes_on_while_a_slow_disk_writes_and_the_next_save_waits_for_it()
    {
        using TemporaryFolder folder = new();
        RunConfig config = Own(folder, PreparedStore.Small(24));
        RunFolder straight = prepared.NewRun(config), slow = prepared.NewRun(config);
        Assert.Equal(ExitCode.Done, await RunAsync(straight));
        Pipe pipe = new(folder["tokenizer.json"]);
        // The writer copies the tokenizer, and from a pipe that nobody feeds it gets nothing.
        Task<int> running = Task.Run(() => RunAsync(slow, e =>
        {
            if (e is MetricsEvent { Step: 1 }) pipe.Open();
        }));
        await WaitFor.TrueAsync(() => LastStep(slow) >= 20 || running.IsCompleted, "steps beside the writing");
        Assert.Equal(20, LastStep(slow));
        Assert.Empty(Checkpoint.List(slow.CheckpointsPath));
        pipe.Feed();
        Assert.Equal(ExitCode.Done, await running);
        Assert.Equal(Weights(straight), Weights(slow));
        Assert.Equal([10L, 20L, 24L], slow.Events().OfType<CheckpointEvent>().Select(c => c.Step));
        Assert.All(slow.Events().OfType<CheckpointEvent>(), c => Assert.True(c is { WaitSeconds: >= 0, WriteSeconds: > 0 }));
        Assert.All(Checkpoint.List(slow.CheckpointsPath), c => Checkpoint.Open(c.Path));
    }

    [Fact]
    public async Task A_stop_in_the_midst_of_a_checkpoint_ends_it_and_saves_the_newest_state()
    {
        using TemporaryFolder folder = new();
        RunConfig config = Own(folder, PreparedStore.Small(40));
        RunFolder run = prepared.NewRun(config), straight = prepared.NewRun(config);
        Assert.Equal(ExitCode.Done, await RunAsync(straight));
        Pipe pipe = new(folder["tokenizer.json"]);
        using CancellationTokenSource stop = new();
        Task<int> running = Task.Run(() => TrainerProcessMain.RunAsync(run.Path, Store, false, null, stop.Token, e =>
        {
            if (e is MetricsEvent { Step: 1 }) pipe.Open();
            if (e is MetricsEvent { Step: 13 }) stop.Cancel();
        }));
        await WaitFor.TrueAsync(() => LastStep(run) >= 13, "the stop");
        pipe.Feed();
        Assert.Equal(ExitCode.StoppedAndSaved, await running);
        Assert.Equal([13L, 10L], Checkpoint.List(run.CheckpointsPath).Select(c => c.Step));
        Assert.Equal(ExitCode.Done, await RunAsync(run));
        Assert.Equal(Weights(straight), Weights(run));
    }

    [Fact]
    public async Task A_run_that_stands_still_is_reported()
    {
        using TemporaryFolder folder = new();
        RunConfig config = Own(folder, PreparedStore.Small(24));
        RunFolder run = prepared.NewRun(config with { Training = config.Training with { StallMinutes = 0.004, EvalInterval = 0, SampleTokens = 0 } });
        Pipe pipe = new(folder["tokenizer.json"]);
        Task<int> running = Task.Run(() => RunAsync(run, e =>
        {
            if (e is MetricsEvent { Step: 1 }) pipe.Open();
        }));
        await WaitFor.TrueAsync(() => run.Events().OfType<WarningEvent>().Any(w => w.Message.EndsWith("loses nothing that is saved", StringComparison.Ordinal) && w.Message.Contains("(saving step 20)", StringComparison.Ordinal)), "the report");
        pipe.Feed();
        Assert.Equal(ExitCode.Done, await running);
    }

    [Fact]
    public void What_fails_on_the_other_thread_is_thrown_here_once()
    {
        TorchRuntime.Load();
        ModelConfig sizes = new() { VocabularySize = 16, EmbeddingDimensions = 8, NumQHeads = 2, NumKvHeads = 1, NumDecoderLayers = 1 };
        using ReplicaGroup group = new(new Decoder(sizes, 1), new AdamWOptions());
        using CheckpointWriter writer = new(TimeProvider.System);
        using ManualResetEventSlim go = new();
        writer.Begin(() => { }, group.Capture, (_, _) =>
        {
            go.Wait();
            throw new IOException("no room");
        });
        writer.Check();
        go.Set();
        Assert.Equal("no room", Assert.Throws<IOException>(writer.Finish).Message);
        writer.Check();
        Assert.Equal("bad copy", Assert.Throws<InvalidOperationException>(() => writer.Begin(() => { }, () => throw new InvalidOperationException("bad copy"), (_, _) => Assert.Fail())).Message);
        Assert.Equal("full", Assert.Throws<UserException>(() => writer.Begin(() => throw new UserException("full"), group.Capture, (_, _) => Assert.Fail())).Message);
        writer.Finish();
    }

    [Fact]
    public async Task A_copy_is_the_state_of_its_moment_whatever_training_does_meanwhile()
    {
        using TemporaryFolder folder = new();
        TorchRuntime.Load();
        ModelConfig sizes = new() { VocabularySize = 16, EmbeddingDimensions = 8, NumQHeads = 2, NumKvHeads = 1, NumDecoderLayers = 1 };
        using ReplicaGroup group = new(new Decoder(sizes, 1), new AdamWOptions());
        await File.WriteAllTextAsync(folder["tokenizer.json"], "{}");
        using (TrainingState before = group.Capture()) Checkpoint.Save(folder["before"], before, folder["tokenizer.json"], []);
        using CheckpointWriter writer = new(TimeProvider.System);
        using ManualResetEventSlim changed = new();
        writer.Begin(() => { }, group.Capture, (tensors, _) =>
        {
            changed.Wait();
            Checkpoint.Save(folder["copy"], tensors, folder["tokenizer.json"], []);
        });
        for (int step = 0; step < 3; step++) _ = group.Step((_, _) => new MicroBatch(1, 4, [1, 2, 3, 4], [2, 3, 4, 5]), 1, 0.1, 1);
        changed.Set();
        writer.Finish();
        foreach (string name in (string[])["model.safetensors", "optimizer.safetensors"])
            Assert.Equal(await File.ReadAllBytesAsync(Path.Combine(folder["before"], name)), await File.ReadAllBytesAsync(Path.Combine(folder["copy"], name)));
    }

    [Fact]
    public async Task The_newest_the_best_and_every_Mth_checkpoint_stay()
    {
        RunConfig config = PreparedStore.Small(50);
        // The rate is far too high after the warm-up, so that an early evaluation is the best.
        config = config with
        {
            Optimizer = new OptimizerConfig { LearningRate = 3, WarmupSteps = 40, Schedule = NopeGpt.Model.Optimizers.LearningRateSchedule.Constant },
            Training = config.Training with { CheckpointInterval = 5, EvalInterval = 5, KeepCheckpoints = 2, KeepEvery = 18, SampleTokens = 0 },
        };
        RunFolder run = prepared.NewRun(config);
        Assert.Equal(ExitCode.Done, await RunAsync(run));
        long best = run.Events().OfType<MetricsEvent>().Where(m => m.Values.ContainsKey("eval/loss")).MinBy(m => m.Values["eval/loss"])!.Step;
        Assert.InRange(best, 1, 40);
        Assert.Equal([50L, 45L, .. new long[] { 36, 18, best }.Distinct().OrderDescending()], Checkpoint.List(run.CheckpointsPath).Select(c => c.Step));
    }

    [Fact]
    public async Task Intervals_of_0_leave_the_checkpoint_at_the_end()
    {
        RunConfig config = PreparedStore.Small(12);
        RunFolder run = prepared.NewRun(config with { Training = config.Training with { CheckpointInterval = 0, EvalInterval = 0, SampleTokens = 0 } });
        Assert.Equal(ExitCode.Done, await RunAsync(run));
        Assert.Equal(12, Assert.Single(run.Events().OfType<CheckpointEvent>()).Step);
        Assert.Single(run.Events().OfType<MetricsEvent>(), m => m.Values.ContainsKey("eval/loss"));
    }

    [Fact]
    public async Task Intervals_by_minutes_count_time()
    {
        RunConfig config = PreparedStore.Small(30);
        // So short that every step is due, but for the writer that each save waits for.
        RunFolder run = prepared.NewRun(config with { Training = config.Training with { CheckpointInterval = 0, CheckpointMinutes = 1e-9, EvalInterval = 0, EvalMinutes = 1e-9, SampleTokens = 0, KeepCheckpoints = 4 } });
        Assert.Equal(ExitCode.Done, await RunAsync(run));
        Assert.Equal(Enumerable.Range(1, 30).Select(s => (long)s), run.Events().OfType<CheckpointEvent>().Select(c => c.Step));
        Assert.Equal(30, run.Events().OfType<MetricsEvent>().Count(m => m.Values.ContainsKey("eval/loss")));
        RunFolder rare = prepared.NewRun(config with { Training = config.Training with { CheckpointInterval = 0, CheckpointMinutes = 600, EvalInterval = 0, EvalMinutes = 600, SampleTokens = 0 } });
        Assert.Equal(ExitCode.Done, await RunAsync(rare));
        Assert.Single(rare.Events().OfType<CheckpointEvent>());
    }

    /// <summary>The config with a data set of its own, whose tokenizer may be taken away.</summary>
    private RunConfig Own(TemporaryFolder folder, RunConfig config)
    {
        File.Copy(Store.DatasetTokens("small"), folder["tokens.bin"]);
        File.Copy(Path.Combine(Store.DatasetFolder("small"), "tokenizer.json"), folder["tokenizer.json"]);
        return config with { Data = config.Data with { Dataset = folder["tokens.bin"] } };
    }

    private Task<int> RunAsync(RunFolder run, Action<TrainingEvent>? watch = null) => TrainerProcessMain.RunAsync(run.Path, Store, false, null, default, watch);

    private static long LastStep(RunFolder run) => run.Events().OfType<MetricsEvent>().Select(m => m.Step).DefaultIfEmpty().Max();

    private static string Weights(RunFolder run) =>
        Convert.ToHexString(SHA256.HashData(File.ReadAllBytes(Path.Combine(Checkpoint.List(run.CheckpointsPath)[0].Path, "model.safetensors"))));

    /// <summary>A file whose reading takes as long as one likes.</summary>
    private sealed class Pipe(string path)
    {
        private readonly byte[] content = File.ReadAllBytes(path);

        public void Open()
        {
            using Process make = Process.Start("mkfifo", [path + ".pipe"]);
            make.WaitForExit();
            File.Move(path + ".pipe", path, overwrite: true);
        }

        /// <summary>Gives a waiting reader the content, and makes it a file again for all others.</summary>
        public void Feed()
        {
            File.WriteAllBytes(path + ".file", content);
            using FileStream pipe = new(path, FileMode.Open, FileAccess.Write, FileShare.ReadWrite);
            File.Move(path + ".file", path, overwrite: true);
            pipe.Write(content);
        }
    }
}
