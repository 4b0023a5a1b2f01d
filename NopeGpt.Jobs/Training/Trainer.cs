using System.Globalization;
using NopeGpt.Data;
using NopeGpt.Data.Tokenization;
using NopeGpt.Model;
using NopeGpt.Model.Native;
using NopeGpt.Model.Optimizers;
using NopeGpt.Model.Replicas;
using NopeGpt.Model.Storage;
using TorchSharp;
using static TorchSharp.torch;

namespace NopeGpt.Jobs.Training;

/// <summary>The one training loop: step, report, now and then evaluate, sample and save.</summary>
internal sealed class Trainer
{
    /// <summary>Documents that are named in a sentence; an event has all of them.</summary>
    private const int NamedDocuments = 16;

    private readonly RunContext run;
    private readonly RunConfig config;
    private readonly ITrainingSet data;
    private readonly ReplicaGroup replicas;
    private readonly IReadOnlyList<Device> devices;
    private readonly Progress progress;
    private readonly CheckpointKeeper keeper;
    private readonly LossWatch losses;
    private readonly StallWatch stall;
    private readonly ToldBefore told;
    private readonly long lastStep;
    private readonly double secondsBefore;
    private long started, evaluated, saved;

    private Trainer(RunContext run, RunConfig config, ITrainingSet data, ReplicaGroup replicas, IReadOnlyList<Device> devices, Progress progress, CheckpointKeeper keeper, LossWatch losses, StallWatch stall, ToldBefore told)
    {
        (this.run, this.config, this.data, this.replicas, this.devices) = (run, config, data, replicas, devices);
        (this.progress, this.keeper, this.losses, this.stall, this.told) = (progress, keeper, losses, stall, told);
        (lastStep, secondsBefore) = (RunLength.Last(config, data.TrainingSamples), progress.Seconds);
    }

    /// <summary>Trains from the newest whole checkpoint, or from the beginning, to the end.</summary>
    /// <exception cref="StoppedException">A stop was asked for; what was done is saved.</exception>
    /// <exception cref="DivergedException">Loss or gradient is not finite; nothing was updated.</exception>
    /// <param name="devices">One replica for each.</param>
    public static void Run(RunContext run, IReadOnlyList<Device> devices)
    {
        IReadOnlyList<Problem> problems = RunConfigChecks.All(run.Config, run.Store);
        if (problems.Count > 0) throw new ProblemsException(problems);
        Checkpoint.CleanTemporary(run.Folder.CheckpointsPath);
        RunConfig open = BaseCheckpoint.Found(run.Config, run.Store, run.Warn);
        using ITrainingSet data = open.Kind == RunKind.Finetune ? new ChatSet(open, run.Store) : new TextSet(open, run.Store);
        data.Verify();
        string? from = Checkpoint.NewestValid(run.Folder.CheckpointsPath, run.Warn);
        // A run that went on without the choice was begun by a version that had none.
        Precision asked = from is not null && run.Config.Training.Precision == Precision.Auto ? Precision.Float32 : run.Config.Training.Precision;
        PrecisionChoice precision = PrecisionChoice.For(asked, [.. devices.Select(ComputeUnits.Of)]);
        open = open with { Training = open.Training with { Precision = precision.Precision } };
        Decoder model = TrainedModel.Open(open, data, from, devices[0]);
        RunConfig config = Freeze(run, open, model.AdaptedConfig, data.TrainingSamples);
        using ReplicaGroup replicas = Replicate(config, model, devices);
        Progress progress = new();
        LossWatch losses = new(config.Training.LossAlarm, config.Optimizer.WarmupSteps);
        using CheckpointKeeper keeper = new(run, config, replicas, losses, data);
        if (from is not null) keeper.Restore(from, progress);
        keeper.CheckDiskAhead(progress, RunLength.Last(config, data.TrainingSamples));
        ToldBefore told = new(run.Folder, progress.Step);
        run.Events.Write(new StartedEvent(run.Events.Attempts + 1, progress.Step, Environment.ProcessId, Describe(devices)));
        if (Accumulation.Over(config.Training.GradientAccumulationSteps, devices.Count).Warning is { } uneven) run.Warn(uneven);
        run.Log(precision.ToString());
        if (precision.Warning is { } slow) run.Warn("training.precision: " + slow);
        if (devices.Count > 1) run.Log($"{devices.Count} replicas, sharding level {config.Training.ShardingLevel}, gradients reduced by {replicas.Description}");
        if (from is not null && !told.Saved) keeper.Tell(from, progress);
        using StallWatch stall = new(run.Time, TimeSpan.FromMinutes(config.Training.StallMinutes), (since, doing) => run.Warn(Stalled(since, doing)), doing => run.Events.Write(Busy(config, progress, doing)));
        new Trainer(run, config, data, replicas, devices, progress, keeper, losses, stall, told).Loop();
    }

    private void Loop()
    {
        string end = lastStep == long.MaxValue ? $"for {config.Training.MaxMinutes} minutes" : $"to {lastStep}";
        Decoder model = replicas.Model;
        run.Log($"{config.Model.ParameterCount:N0} parameters{Trained(model)}, {data.Description}, from step {progress.Step} {end}");
        Evaluator evaluator = new(model, data.Holdout, data.Tokenizer);
        StepMeter meter = new(config, run.Time, progress.Step, devices, d => MatrixRate.Again(d, config.Training.Precision.Type()))
        {
            LastStep = lastStep == long.MaxValue ? 0 : lastStep, FlopsPerToken = FlopsPerToken(model),
        };
        long first = progress.Samples;
        using BatchAhead batches = new((index, used) => data.Training(first + (index * config.Training.BatchSize), used), 0);
        model.train();
        started = evaluated = saved = run.Time.GetTimestamp();
        while (true)
        {
            bool last = progress.Step >= lastStep || SecondsLeft() <= 0 || (config.Training.MaxTokens > 0 && progress.Tokens >= config.Training.MaxTokens);
            if (EvaluationIsDue(last)) Evaluate(evaluator);
            if (CheckpointIsDue(last)) Save();
            keeper.Check();
            if (run.Events.Fault is { } full) throw full;
            if (last)
            {
                keeper.Finish();
                run.Log($"done at step {progress.Step}; training stood still for checkpoints for {keeper.Waited.TotalSeconds:0.000} s of {Seconds() - secondsBefore:0.0} s");
                return;
            }
            if (run.Stop.Asked) Stop();
            meter.Begin();
            if (Step(batches, meter) is not { } step) continue;
            progress.Step++;
            progress.Samples += RunLength.SamplesPerStep(config);
            progress.Tokens += step.Tokens;
            progress.LastLoss = step.Loss;
            stall.Step();
            MetricsEvent numbers = meter.Step(progress, step.Loss, step.Norm, step.Rate, config.Training.Precision == Precision.Float16 ? step.LossScale : null, step.Tokens);
            run.Events.Write(numbers with { EtaSeconds = SecondsLeft() < (numbers.EtaSeconds ?? double.MaxValue) ? SecondsLeft() : numbers.EtaSeconds });
            if (losses.Take(progress.Step, step.Loss) is { } unusual) Warn(step, unusual);
        }
    }

    /// <summary>One optimizer step over all its micro-batches; null where a stop was asked for in its midst, and then nothing was changed.</summary>
    private StepNumbers? Step(BatchAhead batches, StepMeter meter)
    {
        int parts = Accumulation.Over(config.Training.GradientAccumulationSteps, replicas.Count).PerDevice;
        // Where only the time ends a run its rate is constant.
        double rate = LearningRate.At(config.Optimizer.Schedule, config.Optimizer.LearningRate, progress.Step, Math.Max(1, config.Training.MaxSteps),
            config.Optimizer.WarmupSteps, config.Optimizer.MinimumRatio, config.Optimizer.DecayFraction);
        List<Batch> taken = new(parts * replicas.Count);
        try
        {
            StepResult result = replicas.Step(Next, parts, rate, config.Optimizer.MaxGradientNorm,
                part => stall.Part($"step {progress.Step + 1}, part {part + 1} of {parts}"), run.Stop.Token);
            meter.Take(result.Times);
            if (result.Overflows > 0)
                run.Log($"step {progress.Step + 1}: gradients left float16's range, so the step was computed again with the scale of the loss at {Words(result.LossScale)} instead of {Words(result.LossScale * Math.Pow(2, result.Overflows))}");
            return new(result.Loss, result.GradientNorm, rate, result.LossScale, taken.Sum(data.Tokens), taken);
        }
        catch (OperationCanceledException) when (run.Stop.Asked) { return null; }
        catch (NonFiniteStepException e)
        {
            // Where only the gradients are not finite, any of the batches may be the reason.
            throw Diverged(e.Loss, e.GradientNorm, e.MicroBatches.Count == 0 ? taken : [.. e.MicroBatches.Select(m => taken[(m.Micro * replicas.Count) + m.Replica])]);
        }

        MicroBatch Next(int replica, int micro)
        {
            Batch batch = batches.Next(run.Stop.Token);
            taken.Add(batch);
            return Evaluator.MicroBatch(batch);
        }
    }

    // What a stop broke off is done first thing by the next attempt.
    private bool EvaluationIsDue(bool last) => progress.EvaluatedStep != progress.Step
        && (last || progress.Evaluating || Every(config.Training.EvalInterval) || Since(evaluated, config.Training.EvalMinutes));

    private bool CheckpointIsDue(bool last) =>
        last || Every(config.Training.CheckpointInterval) || Every(config.Training.KeepEvery) || Since(saved, config.Training.CheckpointMinutes);

    private bool Every(int steps) => progress.Step > 0 && steps > 0 && progress.Step % steps == 0;

    private bool Since(long timestamp, double minutes) => progress.Step > 0 && minutes > 0 && run.Time.GetElapsedTime(timestamp).TotalMinutes >= minutes;

    private double Seconds() => secondsBefore + run.Time.GetElapsedTime(started).TotalSeconds;

    private double SecondsLeft() => config.Training.MaxMinutes > 0 ? (60 * config.Training.MaxMinutes) - Seconds() : double.MaxValue;

    private void Evaluate(Evaluator evaluator)
    {
        progress.Evaluating = true;
        try { Measure(evaluator); }
        catch (OperationCanceledException) when (run.Stop.Asked) { Stop(); }
        (progress.EvaluatedStep, progress.Evaluating, evaluated) = (progress.Step, false, run.Time.GetTimestamp());
    }

    private void Measure(Evaluator evaluator)
    {
        Evaluation result = evaluator.Run(batch => stall.Part($"evaluating step {progress.Step}, batch {batch}"), run.Stop.Token);
        progress.EvalLoss = result.Loss;
        progress.BestEvalLoss = Math.Min(progress.BestEvalLoss, result.Loss);
        run.Log($"step {progress.Step}: training loss {progress.LastLoss:0.0000}, evaluation loss {result.Loss:0.0000}, perplexity {result.Perplexity:0.00}");
        if (!told.HasEvaluation(progress.Step))
        {
            run.Events.Write(new MetricsEvent(progress.Step, lastStep == long.MaxValue ? 0 : lastStep, progress.Tokens, null, new Dictionary<string, double>
            {
                ["eval/loss"] = result.Loss, ["eval/perplexity"] = result.Perplexity, ["eval/bits_per_byte"] = result.BitsPerByte,
            }));
        }
        if (config.Training.SampleTokens == 0) return;
        foreach (string prompt in config.Training.SamplePrompts.Where(p => !told.HasSample(progress.Step, p)))
        {
            stall.Part($"writing samples at step {progress.Step}");
            run.Events.Write(new SampleEvent(progress.Step, prompt, Samples.Continue(replicas.Model, data.Tokenizer, data.Prompt(prompt), config.Training.SampleTokens, data.ContextLength, config.Seed, run.Stop.Token)));
        }
    }

    private void Save()
    {
        stall.Part($"saving step {progress.Step}");
        progress.Seconds = Seconds();
        keeper.Save(progress);
        saved = run.Time.GetTimestamp();
    }

    private void Stop()
    {
        if (run.Folder.ReadStop() == StopRequest.Kill) throw new StoppedException($"stopped at step {progress.Step} without saving; the last checkpoint stays");
        Save();
        keeper.Finish();
        throw new StoppedException($"stopped and saved at step {progress.Step}");
    }

    private void Warn(StepNumbers step, (double Median, double Spread) unusual)
    {
        IReadOnlyList<long> documents = Documents(step.Batches);
        string message = $"step {progress.Step}: the loss is {Words(step.Loss)}, far above the {Words(unusual.Median)} of the steps before (spread {Words(unusual.Spread)}); its samples begin in {Words(documents)}";
        run.Log("warning: " + message);
        run.Events.Write(new WarningEvent(message, progress.Step, documents));
    }

    private DivergedException Diverged(double loss, double norm, List<Batch> batches)
    {
        IReadOnlyList<long> documents = Documents(batches);
        string range = config.Training.Precision == Precision.Float16 ? "float16 ends at 65504: begin a run with training.precision bfloat16 or float32; or " : "";
        return new($"step {progress.Step + 1}: the loss is {Words(loss)} and the gradient norm {Words(norm)}, so nothing was updated; the samples that made it begin in {Words(documents)}; " +
            $"{range}resume from the last checkpoint with a lower optimizer.learning_rate than {Words(config.Optimizer.LearningRate)}, or look at those documents", progress.Step + 1, documents);
    }

    private IReadOnlyList<long> Documents(IEnumerable<Batch> batches) => [.. batches.SelectMany(data.Documents).Distinct()];

    /// <summary>Writes what was left open, the model's sizes, a base without a folder, a length of 0 and the precision, into run.json, so that no later attempt
    /// can take it otherwise.</summary>
    private static RunConfig Freeze(RunContext run, RunConfig open, ModelConfig model, long trainingSamples)
    {
        RunConfig frozen = open with
        {
            Model = model, Training = open.Training with { MaxSteps = (int)Math.Min(int.MaxValue, RunLength.Scheduled(open, trainingSamples) ?? 0) },
        };
        (string device, int threads) = (run.Record.Config.Device, run.Record.Config.Threads);
        if (frozen != run.Config) run.Folder.Write(run.Record with { Config = frozen with { Device = device, Threads = threads } });
        return frozen;
    }

    /// <summary>Of an adapter's base the weights have no gradients, which are 2 of the 6 operations for each of them.</summary>
    private double FlopsPerToken(Decoder model)
    {
        double whole = config.Model.FlopsPerToken(data.UsualLength);
        return model.Adapters.Count == 0 ? whole : whole - (2.0 * model.Config.ParameterCount);
    }

    private static string Trained(Decoder model) => model.Adapters.Count == 0 ? "" : $" ({model.TrainedParameters().Sum(p => p.Parameter.numel()):N0} of the adapter train)";

    private static ProgressEvent Busy(RunConfig config, Progress progress, string doing) =>
        new(doing, config.Training.MaxSteps > 0 ? Math.Min(1, (double)progress.Step / config.Training.MaxSteps) : 0);

    private static string Stalled(TimeSpan since, string doing) =>
        $"stalled: no progress for {Commands.TerminalProgress.Duration(since.TotalSeconds)} ({doing}); if it does not go on by itself, stop the run and resume it, which loses nothing that is saved";

    private static ReplicaGroup Replicate(RunConfig config, Decoder model, IReadOnlyList<Device> devices)
    {
        try
        {
            return new(model, config.Optimizer.Options(), new ReplicaOptions { Devices = devices, Sharding = (Sharding)config.Training.ShardingLevel, Seed = config.Seed })
            {
                LossScale = config.Training.Precision == Precision.Float16 ? LossScaler.Dynamic() : LossScaler.Fixed(1),
            };
        }
        catch
        {
            model.Dispose();
            throw;
        }
    }

    private static string Describe(IReadOnlyList<Device> devices) =>
        string.Join(", ", devices.Select(d => d.type == DeviceType.CPU ? $"cpu, {get_num_threads()} threads" : d.ToString()));

    private static string Words(double value) => value.ToString("G6", CultureInfo.InvariantCulture);

    private static string Words(IReadOnlyList<long> documents) =>
        $"document{(documents.Count == 1 ? "" : "s")} {string.Join(", ", documents.Take(NamedDocuments))}{(documents.Count > NamedDocuments ? $" and {documents.Count - NamedDocuments} more" : "")}";

    /// <param name="Loss">Mean over all labelled targets, in nats.</param>
    /// <param name="Norm">Of the gradient before clipping.</param>
    /// <param name="Tokens">As the set counts them; padding is none.</param>
    private sealed record StepNumbers(double Loss, double Norm, double Rate, double LossScale, long Tokens, IReadOnlyList<Batch> Batches);
}
