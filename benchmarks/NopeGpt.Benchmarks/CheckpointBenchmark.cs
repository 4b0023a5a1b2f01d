using NopeGpt.Jobs;
using NopeGpt.Jobs.Training;

namespace NopeGpt.Benchmarks;

/// <summary>How long training stands still for checkpoints: a run of the trainer with a model of 12.6 million parameters that saves every 20 steps.</summary>
internal static class CheckpointBenchmark
{
    private const int Interval = 20, Steps = 3 * Interval;

    public static void Run() => RunAsync().GetAwaiter().GetResult();

    private static async Task RunAsync()
    {
        string folder = Directory.CreateTempSubdirectory("nopegpt-benchmark-").FullName;
        try
        {
            Store store = new(folder);
            await TrainAsync(store, new RunConfig { Kind = RunKind.Prepare, Prepare = new PrepareConfig { CorpusBytes = 2_000_000, VocabularySize = 2048, Dataset = "stories" } });
            RunFolder run = await TrainAsync(store, new RunConfig
            {
                Kind = RunKind.Pretrain,
                // Padded to its size: the tokens beyond the data set's cost the same.
                Model = Models.Nope with { VocabularySize = 0, VocabularyMultipleOf = Models.Nope.VocabularySize },
                Data = new DataConfig { Dataset = "stories", TokensPerSample = 256, NumEvalSamples = 8 },
                Training = new TrainingConfig { BatchSize = 8, MaxSteps = Steps, EvalInterval = 0, CheckpointInterval = Interval, SampleTokens = 0 },
            });
            double steps = run.Events().OfType<MetricsEvent>().Sum(m => m.Values.GetValueOrDefault("time/step_ms")) / 1000;
            CheckpointEvent[] saved = [.. run.Events().OfType<CheckpointEvent>()];
            foreach (CheckpointEvent one in saved) Console.WriteLine($"  step {one.Step}: {one.Bytes / 1e6:0} MB, training stood still for {1000 * one.WaitSeconds:0} ms, written in {one.WriteSeconds:0.0} s beside it");
            double waited = saved.Sum(s => s.WaitSeconds ?? 0);
            Console.WriteLine($"  a checkpoint every {Interval} steps of {1000 * steps / Steps:0} ms: {waited:0.00} s of {steps + waited:0.0} s stood still, {100 * waited / (steps + waited):0.00} %");
        }
        finally { Directory.Delete(folder, recursive: true); }
    }

    private static async Task<RunFolder> TrainAsync(Store store, RunConfig config)
    {
        RunFolder run = RunFolder.Create(store, new RunRecord(RunRecord.CurrentFormat, RunFolder.NewId(DateTimeOffset.UtcNow), DateTimeOffset.UtcNow, [], config));
        int code = await TrainerProcessMain.RunAsync(run.Path, store, false, null, default, print: _ => { });
        if (code != ExitCode.Done) throw new InvalidOperationException($"the run ended with {code}: {File.ReadAllText(run.LogPath)}");
        return run;
    }
}
