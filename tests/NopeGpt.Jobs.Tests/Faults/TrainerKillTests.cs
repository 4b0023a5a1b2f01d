using System.Security.Cryptography;
using Microsoft.Extensions.DependencyInjection;
using NopeGpt.Jobs.Queue;
using NopeGpt.Jobs.Tests.Queue;
using NopeGpt.Jobs.Training;
using NopeGpt.Model.Storage;
using NopeGpt.Tests;
using NopeGpt.Tests.Training;

namespace NopeGpt.Jobs.Tests.Faults;

/// <summary>A queue of real trainers, and a run that nobody disturbed. The run lies in a store of its own: this process worked on it, and the harness ends whatever
/// worked in the queue's.</summary>
public sealed class TrainerKillFixture : IAsyncLifetime
{
    private readonly PreparedStore prepared = new();
    private readonly TemporaryFolder folder = new();

    internal RunConfig Config { get; private set; } = null!;
    internal RunFolder Straight { get; private set; } = null!;
    internal QueueHarness Queue { get; private set; } = null!;

    public async Task InitializeAsync()
    {
        await prepared.InitializeAsync();
        RunConfig small = PreparedStore.Small(30);
        Config = small with
        {
            Model = small.Model with { NumDecoderLayers = 1, ResidualDropout = 0.1 },
            Data = small.Data with { Dataset = prepared.Store.DatasetTokens("small"), NumEvalSamples = 64 },
            Training = small.Training with { EvalInterval = 10, CheckpointInterval = 2, SampleTokens = 4, KeepCheckpoints = 3 },
        };
        Straight = prepared.NewRun(Config);
        Assert.Equal(ExitCode.Done, await TrainerProcessMain.RunAsync(Straight.Path, prepared.Store, false, null, default));
        Queue = await QueueHarness.StartAsync(folder.Path, false, services => services
            .AddSingleton(new TrainerProgram(Path.Combine(AppContext.BaseDirectory, "nopegpt"), [])), ("Jobs:RetrySeconds", "0.1"));
    }

    public async Task DisposeAsync()
    {
        await Queue.DisposeAsync();
        folder.Dispose();
        prepared.Dispose();
    }
}

[Collection(QueueTestsGroup.Name)]
public sealed class TrainerKillTests(TrainerKillFixture fixture) : IClassFixture<TrainerKillFixture>
{
    public static TheoryData<KillMoment> Moments => [.. Enum.GetValues<KillMoment>()];

    [Theory]
    [MemberData(nameof(Moments))]
    public async Task Killed_at_any_moment_a_run_goes_on_to_the_weights_of_an_undisturbed_one(KillMoment moment)
    {
        QueueHarness queue = fixture.Queue;
        queue.Queue.Change(paused: true);
        string id = (await queue.Queue.AddAsync(fixture.Config, [])).Id;
        RunFolder run = queue.Folder(id);
        using HeldLog? log = moment == KillMoment.BetweenACheckpointAndItsEvent ? new HeldLog(run) : null;
        queue.Queue.Change(paused: false);
        RunRow begun = await queue.UntilAsync(id, r => r.Trainer is not null, "its trainer");
        await new MomentWatch(begun.ProcessId!.Value, run, fixture.Config, log).KillAtAsync(moment);

        // Nobody asks for it: after its pause it goes on by itself.
        RunRow done = await queue.UntilAsync(id, RunState.Completed);
        Assert.Equal(moment == KillMoment.AfterItsLastWords ? 1 : 2, done.Attempt);

        foreach (string name in (string[])["model.safetensors", "optimizer.safetensors"]) Assert.Equal(Hash(fixture.Straight, name), Hash(run, name));
        Assert.Equal(Standing.Numbers(fixture.Straight), Standing.Numbers(run));
        long[] sequences = [.. run.Events().Select(e => e.Sequence)];
        Assert.Equal(Enumerable.Range(1, sequences.Length).Select(n => (long)n), sequences);
        Assert.Equal(Enumerable.Range(1, fixture.Config.Training.MaxSteps).Select(n => (long)n),
            Standing.Of(run).OfType<MetricsEvent>().Where(m => m.Values.ContainsKey("train/loss")).Select(m => m.Step));
        Assert.Equal(Standing.Of(fixture.Straight).OfType<CheckpointEvent>().Select(c => c.Step), Standing.Of(run).OfType<CheckpointEvent>().Select(c => c.Step));
        Assert.All(Directory.EnumerateFileSystemEntries(run.CheckpointsPath), p => Assert.StartsWith("step-", Path.GetFileName(p), StringComparison.Ordinal));
    }

    private static string Hash(RunFolder run, string name) =>
        Convert.ToHexString(SHA256.HashData(File.ReadAllBytes(Path.Combine(Checkpoint.List(run.CheckpointsPath)[0].Path, name))));
}
