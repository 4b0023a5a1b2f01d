using System.Text.Json.Nodes;
using NopeGpt.Jobs;
using NopeGpt.Jobs.Training;
using Xunit.Abstractions;

namespace NopeGpt.Tests.Training;

/// <summary>What a trainer notices of itself.</summary>
public sealed class GuardTests
{
    private readonly Random random;

    public GuardTests(ITestOutputHelper output)
    {
        int seed = Random.Shared.Next();
        output.WriteLine($"seed {seed}");
        random = new(seed);
    }

    [Fact]
    public void A_spike_is_told_once_and_a_plateau_too()
    {
        LossWatch watch = new(spreads: 8, warmupSteps: 10);
        List<long> told = [];
        for (long step = 1; step <= 400; step++)
        {
            // Falling and noisy; one spike at 150, a plateau from 250 on.
            double loss = (step == 150 ? 9 : step >= 250 ? 6 : 3) + Math.Exp(-step / 100.0) + (0.1 * Noise());
            if (watch.Take(step, loss) is not null) told.Add(step);
        }
        Assert.Equal([150, 250], told);
    }

    [Fact]
    public void Usual_noise_falling_losses_and_the_warm_up_are_not_told()
    {
        LossWatch watch = new(spreads: 8, warmupSteps: 100);
        for (long step = 1; step <= 3000; step++)
        {
            double loss = step <= 100 ? 20 * random.NextDouble() : 2 + (6 * Math.Exp(-step / 300.0)) + (0.05 * Noise());
            Assert.Null(watch.Take(step, loss));
        }
    }

    [Fact]
    public void Losses_that_do_not_scatter_need_more_than_a_grain_and_a_second_spike_is_told_again()
    {
        LossWatch watch = new(spreads: 8, warmupSteps: 0);
        for (long step = 1; step <= 80; step++) Assert.Null(watch.Take(step, 2));
        Assert.Null(watch.Take(81, 2.001));
        Assert.NotNull(watch.Take(82, 5));
        Assert.Null(watch.Take(83, 2));
        Assert.NotNull(watch.Take(84, 5));
        Assert.Null(new LossWatch(0, 0).Take(1, 5));
    }

    [Fact]
    public void A_restored_watch_says_what_one_without_a_break_says()
    {
        double[] losses = [.. Enumerable.Range(0, 300).Select(i => 3 + (0.1 * Noise()) + (random.Next(40) == 0 ? 4 : 0))];
        LossWatch straight = new(8, 5), broken = new(8, 5);
        for (int i = 0; i < losses.Length; i++)
        {
            if (random.Next(7) == 0)
            {
                JsonObject saved = (JsonObject)JsonNode.Parse(broken.ToJson().ToJsonString())!;
                broken = new(8, 5);
                broken.Restore(saved);
            }
            Assert.Equal(straight.Take(i + 1, losses[i]), broken.Take(i + 1, losses[i]));
        }
    }

    [Fact]
    public void A_stall_is_told_once_until_there_is_progress_and_long_steps_are_shown()
    {
        ManualTime time = new();
        List<string> told = [], shown = [];
        using StallWatch watch = new(time, TimeSpan.FromMinutes(10), (since, doing) => told.Add($"{since.TotalMinutes:0} {doing}"), shown.Add);
        watch.Step();
        watch.Part("step 2");
        time.Advance(TimeSpan.FromMinutes(9));
        Assert.Empty(told);
        time.Advance(TimeSpan.FromMinutes(30));
        Assert.Single(told);
        Assert.EndsWith(" step 2", told[0], StringComparison.Ordinal);
        watch.Part("step 2, part 2");
        Assert.Equal(["step 2, part 2"], shown);
        time.Advance(TimeSpan.FromMinutes(9));
        watch.Step();
        time.Advance(TimeSpan.FromMinutes(9));
        Assert.Single(told);
        time.Advance(TimeSpan.FromMinutes(2));
        Assert.Equal(2, told.Count);
    }

    [Fact]
    public void No_limit_is_no_watch()
    {
        ManualTime time = new();
        using StallWatch watch = new(time, TimeSpan.Zero, (_, _) => Assert.Fail("there is no limit"), _ => { });
        time.Advance(TimeSpan.FromDays(3));
    }

    /// <summary>Sum of twelve even numbers less six: variance 1, and never far out.</summary>
    private double Noise() => Enumerable.Range(0, 12).Sum(_ => random.NextDouble()) - 6;

    /// <summary>A clock that goes when it is told to.</summary>
    private sealed class ManualTime : TimeProvider
    {
        private readonly List<ManualTimer> timers = [];
        private long now;

        public override long TimestampFrequency => TimeSpan.TicksPerSecond;

        public override long GetTimestamp() => now;

        public override ITimer CreateTimer(TimerCallback callback, object? state, TimeSpan dueTime, TimeSpan period)
        {
            ManualTimer timer = new(callback, state, now + dueTime.Ticks, period.Ticks);
            timers.Add(timer);
            return timer;
        }

        public void Advance(TimeSpan by)
        {
            long end = now + by.Ticks;
            while (timers.Where(t => t.Due <= end).MinBy(t => t.Due) is { } next)
            {
                now = next.Due;
                next.Fire();
            }
            now = end;
        }

        private sealed class ManualTimer(TimerCallback callback, object? state, long due, long period) : ITimer
        {
            public long Due { get; private set; } = due;

            public void Fire()
            {
                Due += period;
                callback(state);
            }

            public bool Change(TimeSpan dueTime, TimeSpan period) => false;

            public void Dispose() => Due = long.MaxValue;

            public ValueTask DisposeAsync()
            {
                Dispose();
                return ValueTask.CompletedTask;
            }
        }
    }
}

/// <summary>The guards within a run.</summary>
public sealed class GuardedRunTests(PreparedStore prepared) : IClassFixture<PreparedStore>
{
    private Store Store => prepared.Store;

    [Fact]
    public async Task A_diverged_run_names_the_documents_of_its_step()
    {
        RunConfig config = PreparedStore.Small(400) with { Optimizer = new OptimizerConfig { LearningRate = 9, WarmupSteps = 0, MaxGradientNorm = 1e6, Schedule = NopeGpt.Model.Optimizers.LearningRateSchedule.Constant, WeightDecay = 10, Beta2 = 0 } };
        RunFolder run = prepared.NewRun(config with { Training = config.Training with { EvalInterval = 0, SampleTokens = 0, LossAlarm = 0 } });
        int code = await TrainerProcessMain.RunAsync(run.Path, Store, false, null, default);
        EndedEvent ended = run.Events().OfType<EndedEvent>().Single();
        Assert.True(code == ExitCode.Diverged, $"{code}: {ended.Reason}");
        long done = run.Events().OfType<MetricsEvent>().Max(m => m.Step);
        Assert.Equal(done + 1, ended.Step);
        using TrainingData files = new(config.Data, Store);
        Data.BatchSource source = files.Source(config.Data, 4, config.Seed);
        Assert.Equal(new[] { source.DocumentIds(source.Training(2 * done)), source.DocumentIds(source.Training((2 * done) + 1)) }.SelectMany(d => d).Distinct(), ended.Documents!);
        Assert.Contains(ended.Documents![0].ToString(), ended.Reason, StringComparison.Ordinal);
    }
}
