using System.Diagnostics;
using System.Security.Cryptography;
using NopeGpt.Jobs;
using NopeGpt.Model;
using NopeGpt.Tests;
using NopeGpt.Web.Series;

namespace NopeGpt.Web.Tests.Faults;

/// <summary>A small data set, and a run on it that nobody disturbed.</summary>
public sealed class TrainedStore : IAsyncLifetime
{
    public const int Steps = 240;
    private readonly TemporaryFolder _folder = new();
    private string _weights = "";

    /// <summary>A run of two seconds or so, with dropout, so that the generators matter.</summary>
    public RunConfig Config { get; private set; } = null!;

    public async Task InitializeAsync()
    {
        Store store = new(_folder.Path);
        await TrainAsync(store, new RunConfig { Kind = RunKind.Prepare, Prepare = new PrepareConfig { CorpusBytes = 120_000, VocabularySize = 400, Dataset = "small" } });
        Config = new RunConfig
        {
            Kind = RunKind.Pretrain,
            Name = "small",
            Threads = 1,
            Model = new ModelConfig { VocabularySize = 0, EmbeddingDimensions = 32, NumQHeads = 4, NumKvHeads = 2, NumDecoderLayers = 1, Dropout = 0.1 },
            Data = new DataConfig { Dataset = store.DatasetTokens("small"), TokensPerSample = 32, NumEvalSamples = 8 },
            Optimizer = new OptimizerConfig { LearningRate = 1e-2, WarmupSteps = 5 },
            Training = new TrainingConfig { BatchSize = 4, GradientAccumulationSteps = 2, MaxSteps = Steps, EvalInterval = 50, CheckpointInterval = 20, SampleTokens = 4, KeepCheckpoints = 2 },
        };
        _weights = Weights(await TrainAsync(store, Config));
    }

    public Task DisposeAsync()
    {
        _folder.Dispose();
        return Task.CompletedTask;
    }

    /// <summary>The run has the weights of the undisturbed one; its events are numbered without a gap; its chart has each step once.</summary>
    internal void AssertSame(RunFolder run)
    {
        Assert.Equal(_weights, Weights(run));
        TrainingEvent[] events = [.. run.Events()];
        Assert.Equal(Enumerable.Range(1, events.Length).Select(n => (long)n), events.Select(e => e.Sequence));
        MetricColumns columns = new();
        foreach (TrainingEvent one in events)
        {
            if (one is StartedEvent started) columns.BeginSegment(started.FromStep);
            if (one is MetricsEvent metrics) columns.Add(metrics);
        }
        Assert.Equal(Enumerable.Range(1, Steps).Select(n => (double)n), columns.Points("train/loss", SeriesAxis.Step).Select(p => p.X));
    }

    private static string Weights(RunFolder run) =>
        Convert.ToHexString(SHA256.HashData(File.ReadAllBytes(Path.Combine(run.CheckpointsPath, $"step-{Steps:D9}", "model.safetensors"))));

    private static async Task<RunFolder> TrainAsync(Store store, RunConfig config)
    {
        RunFolder run = RunFolder.Create(store, new RunRecord(RunRecord.CurrentFormat, RunFolder.NewId(DateTimeOffset.UtcNow), DateTimeOffset.UtcNow, [], config));
        ProcessStartInfo start = new(Path.Combine(AppContext.BaseDirectory, "nopegpt"), ["train", run.Path, "--root", store.Root, "--detached"]);
        start.Environment["DOTNET_ROOT"] = Path.GetDirectoryName(Chat.ModelFixture.Stub.FileName);
        using Process process = Process.Start(start)!;
        await process.WaitForExitAsync().WaitAsync(TimeSpan.FromSeconds(60));
        Assert.True(process.ExitCode == ExitCode.Done, await File.ReadAllTextAsync(run.LogPath));
        return run;
    }
}
