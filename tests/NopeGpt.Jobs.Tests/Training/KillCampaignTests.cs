using System.Diagnostics;
using System.Security.Cryptography;
using NopeGpt.Jobs;
using NopeGpt.Jobs.Training;
using NopeGpt.Model.Storage;
using Xunit.Abstractions;

namespace NopeGpt.Tests.Training;

/// <summary>Kills a real trainer process at random moments, and compares what comes out with a run that nobody disturbed.</summary>
public sealed class KillCampaignTests(PreparedStore prepared, ITestOutputHelper output) : IClassFixture<PreparedStore>
{
    private static readonly TimeSpan Patience = TimeSpan.FromSeconds(120);

    private Store Store => prepared.Store;

    /// <param name="kills">Five times as many where NOPEGPT_NIGHTLY is 1.</param>
    [Theory]
    [InlineData("cpu", 0, 20)]
    [InlineData("cpu,cpu", 2, 10)]
    public async Task Killed_at_random_moments_a_run_ends_with_the_weights_of_an_undisturbed_one(string device, int sharding, int kills)
    {
        bool nightly = Environment.GetEnvironmentVariable("NOPEGPT_NIGHTLY") == "1";
        kills *= nightly ? 5 : 1;
        int seed = Random.Shared.Next();
        output.WriteLine($"seed {seed}");
        Random random = new(seed);
        RunConfig config = PreparedStore.Small(kills * (nightly ? 40 : 50));
        config = config with
        {
            Device = device,
            Model = config.Model with { NumDecoderLayers = 1, ResidualDropout = 0.1, AttentionDropout = 0.1 },
            Data = config.Data with { NumEvalSamples = 16 },
            Training = config.Training with { EvalInterval = 60, CheckpointInterval = 23, SampleTokens = 6, ShardingLevel = sharding, GradientAccumulationSteps = sharding == 0 ? 1 : 2 },
        };
        RunFolder straight = prepared.NewRun(config), killed = prepared.NewRun(config);
        Assert.Equal(ExitCode.Done, await TrainerProcessMain.RunAsync(straight.Path, Store, false, null, default));
        TrainingEvent[] told = [.. straight.Events()];
        // So short that even without a loss by any kill the run is not done before the last.
        TimeSpan most = (told[^1].Time - told.OfType<MetricsEvent>().First().Time) / (1.3 * kills);

        Stopwatch watch = Stopwatch.StartNew();
        for (int i = 0; i < kills; i++) await KillAsync(killed, random, most);
        output.WriteLine($"{kills} kills in {watch.Elapsed.TotalSeconds:0.0} s, each up to {most.TotalMilliseconds:0} ms after its first step");
        using (Process last = Start(killed)) Assert.Equal(ExitCode.Done, await EndAsync(last, killed));

        Assert.Equal(Hash(straight, "model.safetensors"), Hash(killed, "model.safetensors"));
        Assert.Equal(Hash(straight, "optimizer.safetensors"), Hash(killed, "optimizer.safetensors"));
        Assert.Equal(Standing.Numbers(straight), Standing.Numbers(killed));
        long[] sequences = [.. killed.Events().Select(e => e.Sequence)];
        Assert.Equal(Enumerable.Range(1, sequences.Length).Select(n => (long)n), sequences);
        Assert.All(Directory.EnumerateFileSystemEntries(killed.CheckpointsPath), p => Assert.StartsWith("step-", Path.GetFileName(p), StringComparison.Ordinal));
    }

    /// <summary>One attempt, ended by a save or at once: mostly while it trains, now and then while it starts.</summary>
    private async Task KillAsync(RunFolder run, Random random, TimeSpan most)
    {
        bool gently = random.Next(2) == 0, early = random.Next(5) == 0;
        EventTail tail = new(run.EventsPath);
        foreach (TrainingEvent _ in tail.Read()) { }
        using Process process = Start(run);
        if (early) await Task.Delay(random.Next(1500));
        else
        {
            Stopwatch patience = Stopwatch.StartNew();
            while (!tail.Read().OfType<MetricsEvent>().Any())
            {
                if (process.HasExited || patience.Elapsed > Patience) Assert.Fail($"it made no step: {await File.ReadAllTextAsync(run.LogPath)}");
                await Task.Delay(2);
            }
            await Task.Delay(most * random.NextDouble());
        }
        Assert.False(process.HasExited, "it was done too soon");
        if (!gently) process.Kill();
        else
        {
            using Process kill = Process.Start("kill", ["-TERM", process.Id.ToString()]);
            await kill.WaitForExitAsync();
        }
        // Before it has said who it is, SIGTERM ends it as it ends any process.
        int code = await EndAsync(process, run);
        Assert.True(gently ? code == ExitCode.StoppedAndSaved || (early && code == 143) : code == 137, $"exit code {code}: {await File.ReadAllTextAsync(run.LogPath)}");
    }

    private Process Start(RunFolder run) =>
        Process.Start(new ProcessStartInfo(Path.Combine(AppContext.BaseDirectory, "nopegpt"), ["train", run.Path, "--root", Store.Root, "--detached"]))!;

    private static async Task<int> EndAsync(Process process, RunFolder run)
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

    private static string Hash(RunFolder run, string name) =>
        Convert.ToHexString(SHA256.HashData(File.ReadAllBytes(Path.Combine(Checkpoint.List(run.CheckpointsPath)[0].Path, name))));
}
