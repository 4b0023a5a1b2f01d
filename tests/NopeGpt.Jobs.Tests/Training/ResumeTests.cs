using NopeGpt.Jobs;
using NopeGpt.Jobs.Training;
using NopeGpt.Model;
using NopeGpt.Model.Optimizers;
using NopeGpt.Model.Storage;

namespace NopeGpt.Tests.Training;

/// <summary>N steps are k steps, a resume, and N - k steps, to the bit.</summary>
public sealed class ResumeTests(PreparedStore prepared) : IClassFixture<PreparedStore>
{
    private const int Steps = 13;

    private Store Store => prepared.Store;

    public static TheoryData<OptimizerKind, LearningRateSchedule, double, double, double, bool, bool> Forms => new()
    {
        { OptimizerKind.Adamw, LearningRateSchedule.Cosine, 0.2, 0, 0, true, false },
        { OptimizerKind.Adamw, LearningRateSchedule.Linear, 0, 0.2, 0.1, false, false },
        { OptimizerKind.Adamw, LearningRateSchedule.WarmupStableDecay, 0, 0, 0.3, true, true },
        { OptimizerKind.Adafactor, LearningRateSchedule.Constant, 0.1, 0.1, 0.1, false, true },
        { OptimizerKind.Adafactor, LearningRateSchedule.Cosine, 0, 0.3, 0, true, false },
        { OptimizerKind.Muon, LearningRateSchedule.Linear, 0.1, 0, 0, true, false },
        { OptimizerKind.Muon, LearningRateSchedule.WarmupStableDecay, 0, 0.1, 0.1, false, true },
    };

    [Theory]
    [MemberData(nameof(Forms))]
    public async Task Every_form_goes_on_to_the_bit(OptimizerKind optimizer, LearningRateSchedule schedule, double mlp, double residual, double attention, bool packed, bool mixed)
    {
        RunConfig config = Config() with { Optimizer = new OptimizerConfig { Optimizer = optimizer, Schedule = schedule, LearningRate = 1e-2, WarmupSteps = 4 } };
        config = config with
        {
            Model = config.Model with { Dropout = mlp, ResidualDropout = residual, AttentionDropout = attention },
            // Mixed with itself: another order, from other parts of the text.
            Data = config.Data with { Packed = packed, Mixture = mixed ? [$"{Store.DatasetTokens("small")}=0.5"] : [] },
        };
        await SameAsync(config, (e, stop) =>
        {
            if (e is MetricsEvent { Step: 3 or 8 } m && m.Values.ContainsKey("train/loss")) stop();
        });
    }

    [Theory]
    [InlineData(typeof(StartedEvent))]
    [InlineData(typeof(SampleEvent))]
    [InlineData(typeof(CheckpointEvent))]
    public async Task A_stop_at_any_place_goes_on_to_the_bit(Type place) => await SameAsync(Config(), (e, stop) =>
    {
        if (e.GetType() == place) stop();
    });

    [Fact]
    public async Task A_stop_in_an_evaluation_goes_on_to_the_bit_and_tells_it_once() => await SameAsync(Config(), (e, stop) =>
    {
        if (e is MetricsEvent m && m.Values.ContainsKey("eval/loss")) stop();
    });

    [Fact]
    public async Task A_stop_in_the_midst_of_a_step_changes_nothing_and_is_heard_at_once()
    {
        RunConfig config = Config();
        config = config with { Optimizer = config.Optimizer with { WarmupSteps = 0 }, Training = config.Training with { GradientAccumulationSteps = 200, BatchSize = 1, MaxSteps = 3, CheckpointInterval = 0 } };
        RunFolder straight = prepared.NewRun(config), stopped = prepared.NewRun(config);
        Assert.Equal(ExitCode.Done, await RunAsync(straight));
        using CancellationTokenSource stop = new();
        // While the second step goes through its 200 parts.
        int code = await TrainerProcessMain.RunAsync(stopped.Path, Store, false, null, stop.Token, e =>
        {
            if (e is MetricsEvent { Step: 1 }) stop.CancelAfter(TimeSpan.FromMilliseconds(30));
        });
        Assert.Equal(ExitCode.StoppedAndSaved, code);
        Assert.Equal(1, Checkpoint.List(stopped.CheckpointsPath)[0].Step);
        Assert.Equal(ExitCode.Done, await RunAsync(stopped));
        AssertSame(straight, stopped);
    }

    [Fact]
    public async Task A_kill_of_the_news_of_a_checkpoint_is_made_up_for()
    {
        RunFolder run = prepared.NewRun(Config());
        Assert.Equal(ExitCode.Done, await RunAsync(run));
        // As if the process had been killed after the rename and before the event.
        string[] lines = [.. (await File.ReadAllLinesAsync(run.EventsPath)).TakeWhile(l => RunFolder.ParseEvent(l) is not CheckpointEvent { Step: Steps })];
        await File.WriteAllLinesAsync(run.EventsPath, lines);
        Assert.Equal(ExitCode.Done, await RunAsync(run));
        Assert.Equal(Steps, run.Events().OfType<CheckpointEvent>().Last().Step);
        Assert.Equal(Standing.Of(run).Select(e => e.Sequence).Distinct().Count(), Standing.Of(run).Count);
    }

    /// <summary>Trains straight through, and again with a stop wherever the test says, each place once.</summary>
    private async Task SameAsync(RunConfig config, Action<TrainingEvent, Action> at)
    {
        RunFolder straight = prepared.NewRun(config), broken = prepared.NewRun(config);
        Assert.Equal(ExitCode.Done, await RunAsync(straight));
        HashSet<(Type, long)> places = [];
        int code, attempts = 0;
        do
        {
            using CancellationTokenSource stop = new();
            code = await TrainerProcessMain.RunAsync(broken.Path, Store, false, null, stop.Token, e => at(e, () =>
            {
                if (places.Add((e.GetType(), e switch { MetricsEvent m => m.Step, SampleEvent s => s.Step, CheckpointEvent c => c.Step, _ => 0 }))) stop.Cancel();
            }));
        }
        while (code == ExitCode.StoppedAndSaved && ++attempts < 30);
        Assert.Equal(ExitCode.Done, code);
        Assert.InRange(attempts, 1, 29);
        AssertSame(straight, broken);
        // Nothing was killed, so that every line of the file stands.
        Assert.Equal(broken.Events().OfType<MetricsEvent>().Count(), Standing.Of(broken).OfType<MetricsEvent>().Count());
    }

    private static void AssertSame(RunFolder straight, RunFolder broken)
    {
        foreach (string name in (string[])["model.safetensors", "optimizer.safetensors"])
            Assert.Equal(File.ReadAllBytes(Path.Combine(Checkpoint.List(straight.CheckpointsPath)[0].Path, name)), File.ReadAllBytes(Path.Combine(Checkpoint.List(broken.CheckpointsPath)[0].Path, name)));
        Assert.Equal(Standing.Numbers(straight), Standing.Numbers(broken));
    }

    private Task<int> RunAsync(RunFolder run) => TrainerProcessMain.RunAsync(run.Path, Store, false, null, default);

    private static RunConfig Config()
    {
        RunConfig small = PreparedStore.Small(Steps);
        return small with { Model = small.Model with { NumDecoderLayers = 1 }, Training = small.Training with { EvalInterval = 5, CheckpointInterval = 4, SampleTokens = 4, SamplePrompts = ["One", "Two"] } };
    }
}

/// <summary>The events of a run that hold: of later steps than a resume's only what it told itself.</summary>
internal static class Standing
{
    public static IReadOnlyList<TrainingEvent> Of(RunFolder run)
    {
        List<TrainingEvent> events = [];
        foreach (TrainingEvent one in run.Events())
        {
            if (one is StartedEvent started) events.RemoveAll(e => Step(e) > started.FromStep);
            events.Add(one);
        }
        return events;
    }

    /// <summary>What was measured and written, in order, by what is the same in every attempt.</summary>
    public static IReadOnlyList<string> Numbers(RunFolder run) =>
    [
        .. Of(run).Select(e => e switch
        {
            MetricsEvent m => $"{m.Step} of {m.MaxSteps}, {m.Tokens} tokens: {string.Join(", ", m.Values.Where(v => v.Key is "train/loss" or "train/gradient_norm" or "train/learning_rate" || v.Key.StartsWith("eval/", StringComparison.Ordinal)))}",
            SampleEvent s => $"{s.Step} {s.Prompt}: {s.Text}",
            WarningEvent { Step: not null } w => w.Message,
            _ => "",
        }).Where(line => line.Length > 0),
    ];

    private static long Step(TrainingEvent one) => one switch { MetricsEvent m => m.Step, SampleEvent s => s.Step, CheckpointEvent c => c.Step, WarningEvent w => w.Step ?? 0, _ => 0 };
}
