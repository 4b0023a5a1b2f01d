using NopeGpt.Jobs;
using NopeGpt.Jobs.Training;
using NopeGpt.Model;
using NopeGpt.Model.Optimizers;

namespace NopeGpt.Tests.Training;

public sealed class RunLengthTests(PreparedStore prepared) : IClassFixture<PreparedStore>
{
    // 4 samples of 32 tokens, twice: 256 tokens in a step.
    private static readonly RunConfig Small = PreparedStore.Small(0) with { Optimizer = new OptimizerConfig { LearningRate = 1e-2, WarmupSteps = 2 } };

    private Store Store => prepared.Store;

    [Theory]
    [InlineData(7, 0, 0.0, 0.0, 7, 7)]
    [InlineData(0, 1000, 0.0, 0.0, 4, 4)]
    [InlineData(0, 1024, 0.0, 0.0, 4, 4)]
    [InlineData(20, 1000, 0.0, 0.0, 20, 4)]
    [InlineData(3, 1000, 0.0, 0.0, 3, 3)]
    [InlineData(0, 0, 0.5, 0.0, 10, 10)]
    [InlineData(0, 0, 2.0, 0.0, 38, 38)]
    [InlineData(0, 1000, 2.0, 0.0, 4, 4)]
    [InlineData(50, 0, 2.0, 5.0, 50, 38)]
    [InlineData(0, 0, 0.0, 0.0, 500, 500)]
    [InlineData(0, 0, 0.0, 5.0, 0, long.MaxValue)]
    public void The_first_limit_ends_the_run_and_max_steps_sets_the_schedule(int steps, long tokens, double epochs, double minutes, long scheduled, long last)
    {
        RunConfig config = Small with { Training = Small.Training with { MaxSteps = steps, MaxTokens = tokens, MaxEpochs = epochs, MaxMinutes = minutes } };
        Assert.Equal(scheduled, RunLength.Scheduled(config, 151));
        Assert.Equal(last, RunLength.Last(config, 151));
        Assert.Equal(epochs > 0 && steps == 0 ? null : scheduled, RunLength.Scheduled(config, null));
    }

    [Fact]
    public async Task A_run_ends_at_its_tokens_and_its_length_is_frozen()
    {
        RunFolder run = prepared.NewRun(Small with { Training = Small.Training with { MaxTokens = 2000, SampleTokens = 0 } });
        Assert.Equal(ExitCode.Done, await RunAsync(run));
        MetricsEvent[] steps = Steps(run);
        Assert.Equal((8, 8L, 2048L), (steps.Length, steps[^1].MaxSteps, steps[^1].Tokens));
        Assert.Equal(8, run.Read().Config.Training.MaxSteps);
        // The last step of the schedule is nearly at its minimum.
        Assert.InRange(steps[^1].Values["train/learning_rate"], 5e-4, 2e-3);
    }

    [Fact]
    public async Task A_run_ends_at_its_epochs()
    {
        RunConfig config = Small with { Training = Small.Training with { BatchSize = 64, MaxEpochs = 1.5, SampleTokens = 0 } };
        long samples;
        using (TrainingData files = new(config.Data, Store)) samples = files.Source(config.Data, 64, config.Seed).TrainingWindows;
        RunFolder run = prepared.NewRun(config);
        Assert.Equal(ExitCode.Done, await RunAsync(run));
        Assert.Equal((int)Math.Ceiling(1.5 * samples / 128), Steps(run).Length);
    }

    [Fact]
    public async Task Time_ends_a_run_over_all_its_attempts_and_a_resume_has_nothing_left_to_do()
    {
        RunConfig config = Small with { Optimizer = Small.Optimizer with { Schedule = LearningRateSchedule.Constant }, Training = Small.Training with { MaxMinutes = 0.03, EvalInterval = 0, CheckpointInterval = 0, SampleTokens = 0 } };
        RunFolder run = prepared.NewRun(config);
        using CancellationTokenSource stop = new();
        Assert.Equal(ExitCode.StoppedAndSaved, await TrainerProcessMain.RunAsync(run.Path, Store, false, null, stop.Token, e =>
        {
            if (e is MetricsEvent { Step: 2 }) stop.Cancel();
        }));
        Assert.Equal(ExitCode.Done, await RunAsync(run));
        MetricsEvent[] steps = Steps(run);
        Assert.True(steps.Length > 2);
        Assert.Equal(0, steps[^1].MaxSteps);
        Assert.All(steps, s => Assert.InRange(s.EtaSeconds!.Value, -1, 1.8));
        Assert.Equal(Enumerable.Range(1, steps.Length).Select(i => (long)i), steps.Select(s => s.Step));
        Assert.Contains(run.Events().OfType<MetricsEvent>(), m => m.Values.ContainsKey("eval/loss"));
        Assert.Equal(ExitCode.Done, await RunAsync(run));
        Assert.Equal(steps.Length, Steps(run).Length);
    }

    [Fact]
    public void Contradictions_are_named_all_at_once()
    {
        RunConfig config = Small with
        {
            Optimizer = new OptimizerConfig { Schedule = LearningRateSchedule.WarmupStableDecay, DecayFraction = 0, WarmupSteps = 10 },
            Training = Small.Training with { MaxTokens = 100, EvalMinutes = -1, StallMinutes = double.NaN },
        };
        Problem[] problems = [.. RunConfigChecks.All(config, Store)];
        Assert.Equal(["optimizer.decay_fraction", "optimizer.warmup_steps", "training.eval_minutes", "training.max_tokens", "training.stall_minutes"], problems.Select(p => p.Field).Order());
        Assert.Contains("256 tokens", problems.Single(p => p.Field == "training.max_tokens").Message, StringComparison.Ordinal);
        RunConfig endless = Small with { Training = Small.Training with { MaxMinutes = 5 } };
        Problem open = Assert.Single(RunConfigChecks.All(endless, Store));
        Assert.Equal("training.max_steps", open.Field);
        Assert.Contains("schedule linear", open.Message, StringComparison.Ordinal);
        Assert.Empty(RunConfigChecks.All(endless with { Optimizer = Small.Optimizer with { Schedule = LearningRateSchedule.Constant } }, Store));
        RunConfig brief = Small with { Optimizer = new OptimizerConfig { WarmupSteps = 100 }, Training = Small.Training with { BatchSize = 64, MaxEpochs = 1 } };
        Assert.Equal("optimizer.warmup_steps", Assert.Single(RunConfigChecks.All(brief, Store)).Field);
    }

    private Task<int> RunAsync(RunFolder run) => TrainerProcessMain.RunAsync(run.Path, Store, false, null, default);

    private static MetricsEvent[] Steps(RunFolder run) => [.. run.Events().OfType<MetricsEvent>().Where(m => m.Values.ContainsKey("train/loss"))];
}
