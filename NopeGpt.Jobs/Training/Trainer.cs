using System.Globalization;
using System.Text.Json.Nodes;
using NopeGpt.Data;
using NopeGpt.Data.Tokenization;
using NopeGpt.Model;
using NopeGpt.Model.Native;
using NopeGpt.Model.Optimizers;
using NopeGpt.Model.Storage;
using TorchSharp;
using static TorchSharp.torch;

namespace NopeGpt.Jobs.Training;

/// <summary>The one training loop: step, report, now and then evaluate, sample and save.</summary>
internal sealed class Trainer
{
    private readonly RunContext run;
    private readonly Device device;

    public Trainer(RunContext run, Device device) => (this.run, this.device) = (run, device);

    public void Run()
    {
        RunConfig config = Freeze();
        Checkpoint.CleanTemporary(run.Folder.CheckpointsPath);
        using TrainingData files = new(config.Data, run.Store);
        files.Verify();
        Tokenizer tokenizer = files.Tokenizer;
        BatchSource data = files.Source(config.Data, config.Training.BatchSize, config.Seed);
        string? from = Checkpoint.NewestValid(run.Folder.CheckpointsPath, run.Warn);
        using Decoder model = from is null ? new(config.Model, config.Seed, device) : Checkpoint.LoadModel(from, device);
        if (model.Config != config.Model) throw new UserException($"{from} has other sizes ({model.Config}) than this run's config: delete that folder, or start a new run");
        using Optimizer optimizer = config.Optimizer.Options().Create(model.Parameters());
        Progress progress = new();
        CheckpointKeeper keeper = new(run, config, model, optimizer, files.First.Path, files.First.TokenizerHash);
        keeper.CheckDisk();
        if (from is not null) keeper.Restore(from, progress);
        run.Log($"{model.CountParameters():N0} parameters, {files.Tokens:N0} tokens, {data.TrainingWindows:N0} training samples, {data.HoldoutWindows} held out, from step {progress.Step} to {config.Training.MaxSteps}");
        run.Events.Write(new StartedEvent(run.Events.Attempts + 1, progress.Step, Environment.ProcessId, Describe()));
        Loop(config, data, tokenizer, model, optimizer, progress, keeper);
    }

    private void Loop(RunConfig config, BatchSource data, Tokenizer tokenizer, Decoder model, Optimizer optimizer, Progress progress, CheckpointKeeper keeper)
    {
        Evaluator evaluator = new(model, data, tokenizer);
        StepMeter meter = new(config, run.Time, progress.Step, device, MatrixRate.Of(device));
        using BatchAhead batches = new((index, used) => data.Training(index, used), progress.Step * config.Training.GradientAccumulationSteps);
        model.train();
        while (true)
        {
            // A checkpoint that was saved when a stop broke an evaluation off has that evaluation still to come.
            bool last = progress.Step >= config.Training.MaxSteps;
            bool due = last || (progress.Step > 0 && config.Training.EvalInterval > 0 && progress.Step % config.Training.EvalInterval == 0);
            if (due && progress.EvaluatedStep != progress.Step) Evaluate(config, evaluator, tokenizer, model, progress, keeper);
            if (last || (progress.Step > 0 && progress.Step % config.Training.CheckpointInterval == 0)) keeper.Save(progress);
            if (run.Events.Fault is { } full) throw full;
            if (last) return;
            if (run.Stop.Asked) Stop(progress, keeper);
            meter.Begin();
            (double loss, double norm, double rate) = Step(config, batches, model, optimizer, progress, meter);
            progress.Step++;
            progress.Tokens += (long)config.Training.BatchSize * config.Data.TokensPerSample * config.Training.GradientAccumulationSteps;
            progress.LastLoss = loss;
            run.Events.Write(meter.Step(progress, loss, norm, rate));
        }
    }

    /// <summary>One optimizer step over all its micro-batches.</summary>
    /// <returns>Mean loss in nats, gradient norm before clipping, learning rate.</returns>
    private (double Loss, double Norm, double Rate) Step(RunConfig config, BatchAhead batches, Decoder model, Optimizer optimizer, Progress progress, StepMeter meter)
    {
        using DisposeScope scope = NewDisposeScope();
        int parts = config.Training.GradientAccumulationSteps;
        Tensor sum = zeros([], device: device);
        for (int part = 0; part < parts; part++)
        {
            using DisposeScope micro = NewDisposeScope();
            (Tensor tokens_BT, Tensor targets_BT, Packing? packing) = Evaluator.Tensors(batches.Next(), device);
            meter.Lap(StepPart.Data);
            Tensor loss = model.Loss(tokens_BT, targets_BT, packing).div(Scalars.Of(parts));
            meter.Lap(StepPart.Forward);
            loss.backward();
            meter.Lap(StepPart.Backward);
            using (no_grad()) sum.add_(loss.detach(), Scalars.One);
        }
        Tensor norm = GradientNorm.Clip([.. model.Parameters().Select(p => p.Parameter)], config.Optimizer.MaxGradientNorm);
        // One wait for the device a step: both numbers come over together.
        double[] read = [.. stack([sum, norm.to(ScalarType.Float32)]).cpu().data<float>().Select(v => (double)v)];
        if (!double.IsFinite(read[0]) || !double.IsFinite(read[1]))
        {
            throw new DivergedException($"step {progress.Step + 1}: the loss is {Words(read[0])} and the gradient norm {Words(read[1])}, so nothing was updated; " +
                $"resume from the last checkpoint with a lower optimizer.learning_rate than {Words(config.Optimizer.LearningRate)}");
        }
        double rate = LearningRate.At(config.Optimizer.Schedule, config.Optimizer.LearningRate, progress.Step, config.Training.MaxSteps,
            config.Optimizer.WarmupSteps, config.Optimizer.MinimumRatio, config.Optimizer.DecayFraction);
        optimizer.Step(rate);
        optimizer.ZeroGrad();
        meter.Lap(StepPart.Optimizer);
        return (read[0], read[1], rate);
    }

    private void Evaluate(RunConfig config, Evaluator evaluator, Tokenizer tokenizer, Decoder model, Progress progress, CheckpointKeeper keeper)
    {
        try { Measure(config, evaluator, tokenizer, model, progress); }
        catch (OperationCanceledException) when (run.Stop.Asked) { Stop(progress, keeper); }
        progress.EvaluatedStep = progress.Step;
    }

    private void Measure(RunConfig config, Evaluator evaluator, Tokenizer tokenizer, Decoder model, Progress progress)
    {
        Evaluation result = evaluator.Run(run.Stop.Token);
        progress.EvalLoss = result.Loss;
        progress.BestEvalLoss = Math.Min(progress.BestEvalLoss, result.Loss);
        run.Log($"step {progress.Step}: training loss {progress.LastLoss:0.0000}, evaluation loss {result.Loss:0.0000}, perplexity {result.Perplexity:0.00}");
        run.Events.Write(new MetricsEvent(progress.Step, config.Training.MaxSteps, progress.Tokens, null, new Dictionary<string, double>
        {
            ["eval/loss"] = result.Loss, ["eval/perplexity"] = result.Perplexity, ["eval/bits_per_byte"] = result.BitsPerByte,
        }));
        if (config.Training.SampleTokens == 0) return;
        foreach (string prompt in config.Training.SamplePrompts)
            run.Events.Write(new SampleEvent(progress.Step, prompt, Samples.Continue(model, tokenizer, prompt, config.Training.SampleTokens, config.Data.TokensPerSample, config.Seed, run.Stop.Token)));
    }

    private void Stop(Progress progress, CheckpointKeeper keeper)
    {
        if (run.Folder.ReadStop() == StopRequest.Kill) throw new StoppedException($"stopped at step {progress.Step} without saving; the last checkpoint stays");
        keeper.Save(progress);
        throw new StoppedException($"stopped and saved at step {progress.Step}");
    }

    /// <summary>Checks the config against the store and writes what was left open (a vocabulary of 0) into run.json.</summary>
    private RunConfig Freeze()
    {
        IReadOnlyList<Problem> problems = RunConfigChecks.All(run.Config, run.Store);
        if (problems.Count > 0) throw new ProblemsException(problems);
        if (run.Config.Model.VocabularySize != 0) return run.Config;
        using TokenFile file = TrainingData.Open(run.Config.Data.Dataset, run.Config.Data.RawTokens, run.Store);
        RunConfig frozen = run.Config with { Model = run.Config.Model with { VocabularySize = file.VocabularySize } };
        run.Folder.Write(run.Record with { Config = frozen });
        return frozen;
    }

    private string Describe() => device.type == DeviceType.CPU ? $"cpu, {get_num_threads()} threads" : device.ToString();

    private static string Words(double value) => value.ToString("G6", CultureInfo.InvariantCulture);
}

/// <summary>Where a training run stands: what a checkpoint keeps beside weights and optimizer. Batches are a pure function of the step.</summary>
internal sealed class Progress
{
    public long Step { get; set; }
    public long Tokens { get; set; }

    /// <summary>The last step whose evaluation is done, samples included; 0 before the first.</summary>
    public long EvaluatedStep { get; set; }

    public double LastLoss { get; set; } = double.NaN;
    public double EvalLoss { get; set; } = double.NaN;
    public double BestEvalLoss { get; set; } = double.PositiveInfinity;

    public double Loss => double.IsNaN(EvalLoss) ? LastLoss : EvalLoss;

    public JsonObject ToJson() => new()
    {
        ["step"] = Step,
        ["tokens"] = Tokens,
        ["evaluated_step"] = EvaluatedStep,
        ["last_loss"] = Number(LastLoss),
        ["eval_loss"] = Number(EvalLoss),
        ["best_eval_loss"] = Number(BestEvalLoss),
    };

    public void Restore(JsonObject saved)
    {
        Step = saved["step"]!.GetValue<long>();
        Tokens = saved["tokens"]!.GetValue<long>();
        EvaluatedStep = saved["evaluated_step"]?.GetValue<long>() ?? 0;
        LastLoss = saved["last_loss"]?.GetValue<double>() ?? double.NaN;
        EvalLoss = saved["eval_loss"]?.GetValue<double>() ?? double.NaN;
        BestEvalLoss = saved["best_eval_loss"]?.GetValue<double>() ?? double.PositiveInfinity;
    }

    // JSON has no NaN and no infinity: not known yet is null.
    private static JsonValue? Number(double value) => double.IsFinite(value) ? JsonValue.Create(value) : null;
}
