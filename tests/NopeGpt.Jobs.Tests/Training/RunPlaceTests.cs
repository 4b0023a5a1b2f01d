using NopeGpt.Jobs;
using NopeGpt.Jobs.Training;
using NopeGpt.Model;

namespace NopeGpt.Tests.Training;

/// <summary>What a run needs, and where it works when that is not its own choice.</summary>
public sealed class RunPlaceTests(FineTuningStore prepared) : IClassFixture<FineTuningStore>
{
    [Fact]
    public async Task Other_devices_and_threads_are_for_the_attempt_alone()
    {
        RunConfig config = prepared.Base.Read().Config with { Device = "cuda:9", Threads = 3, Training = prepared.Base.Read().Config.Training with { MaxSteps = 3, GradientAccumulationSteps = 4 }, Optimizer = new() { WarmupSteps = 0 } };
        RunFolder run = prepared.NewRun(config with { Model = config.Model with { VocabularySize = 0 } });
        List<TrainingEvent> told = [];
        Assert.Equal(ExitCode.Done, await TrainerProcessMain.RunAsync(run.Path, prepared.Store, false, null, default, told.Add, place: new RunPlace("cpu,cpu", 1)));
        Assert.Equal("cpu, 1 threads, cpu, 1 threads", Assert.Single(told.OfType<StartedEvent>()).Device);
        RunConfig kept = run.Read().Config;
        Assert.Equal(("cuda:9", 3), (kept.Device, kept.Threads));
        Assert.True(kept.Model.VocabularySize > 0);

        Assert.Equal(ExitCode.BadConfiguration, await TrainerProcessMain.RunAsync(prepared.NewRun(config).Path, prepared.Store, false, null, default, place: new RunPlace("cpu,cpu,cpu,cpu,cpu", null)));
    }

    [Fact]
    public void An_adapter_needs_less_than_all_weights_and_an_evaluation_less_than_training()
    {
        RunConfig adapter = prepared.Small(FinetuneMethod.Lora, 8), whole = prepared.Small(FinetuneMethod.Full, 8);
        RunConfig evaluate = new() { Kind = RunKind.Evaluate, Evaluate = new EvaluateConfig { Checkpoint = prepared.Base.Id } };
        long weights = ModelMemory.Of(prepared.Base.Read().Config.Model).Weights;
        foreach (bool cpu in new[] { true, false })
        {
            long overhead = cpu ? RunMemory.CpuOverhead : RunMemory.CudaOverhead;
            long[] needs = [.. new[] { adapter with { Finetune = adapter.Finetune with { FreezeTokenEmbeddings = true } }, adapter, whole }.Select(c => Need(c, cpu) - overhead)];
            Assert.Equal(needs.Order(), needs);
            Assert.True(needs[0] > weights && needs[2] >= 4 * weights, string.Join(' ', needs));
            Assert.InRange(Need(evaluate, cpu) - overhead, weights, Need(prepared.Base.Read().Config, cpu) - overhead);
        }
        Assert.Equal(Need(evaluate, true), RunMemory.Of(evaluate with { Evaluate = new EvaluateConfig() }, ["another", prepared.Base.Id], prepared.Store, cpu: true));
    }

    [Fact]
    public void Longer_rows_larger_batches_and_wider_types_need_more()
    {
        RunConfig config = prepared.Base.Read().Config;
        long Activations(RunConfig c, bool cpu) => Need(c, cpu);
        foreach (bool cpu in new[] { true, false })
        {
            long one = Activations(config, cpu);
            Assert.True(Activations(config with { Training = config.Training with { BatchSize = 8 * config.Training.BatchSize } }, cpu) > one);
            Assert.True(Activations(config with { Data = config.Data with { TokensPerSample = 8 * config.Data.TokensPerSample } }, cpu) > one);
        }
        RunConfig large = config with { Training = config.Training with { BatchSize = 256 } };
        Assert.True(Need(large with { Training = large.Training with { Precision = Precision.Float32 } }, cpu: false) > Need(large with { Training = large.Training with { Precision = Precision.Bfloat16 } }, cpu: false));
        Assert.Equal(Need(large with { Training = large.Training with { Precision = Precision.Float32 } }, cpu: true), Need(large, cpu: true));
    }

    [Fact]
    public void What_is_not_there_is_not_estimated()
    {
        RunConfig tune = prepared.Small(FinetuneMethod.Lora, 8);
        Assert.Null(RunMemory.Of(tune with { Finetune = tune.Finetune with { BaseCheckpointPath = "20250101-000000-0000" } }, [], prepared.Store, cpu: true));
        Assert.Null(RunMemory.Of(tune with { Finetune = tune.Finetune with { DatasetSubsets = ["none"] } }, [], prepared.Store, cpu: true));
        Assert.Null(RunMemory.Of(new RunConfig { Data = new DataConfig { Dataset = "none" } }, [], prepared.Store, cpu: true));
        Assert.Null(RunMemory.Of(new RunConfig { Kind = RunKind.Evaluate }, [], prepared.Store, cpu: true));
        RunConfig boundless = new() { Model = new ModelConfig { VocabularySize = 1 << 30, EmbeddingDimensions = 1 << 20, NumQHeads = 1, NumKvHeads = 1, NumDecoderLayers = 1 << 20 } };
        Assert.True(RunMemory.Of(boundless, [], prepared.Store, cpu: true) is null or > 1L << 50);
    }

    private long Need(RunConfig config, bool cpu) => RunMemory.Of(config, [], prepared.Store, cpu)!.Value;
}
