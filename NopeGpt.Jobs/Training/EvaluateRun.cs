using NopeGpt.Data;
using NopeGpt.Data.Tokenization;
using NopeGpt.Jobs.Inference;
using NopeGpt.Model;
using NopeGpt.Model.Storage;
using TorchSharp;

namespace NopeGpt.Jobs.Training;

/// <summary>Measures a checkpoint on the holdout that its training never saw, and lets it write.</summary>
internal sealed class EvaluateRun(RunContext run, torch.Device device)
{
    public void Run()
    {
        IReadOnlyList<Problem> problems = RunConfigChecks.All(run.Config, run.Store);
        if (problems.Count > 0) throw new ProblemsException(problems);
        (string folder, RunConfig? trained) = FindCheckpoint();
        run.Events.Write(new StartedEvent(run.Events.Attempts + 1, 0, Environment.ProcessId, device.ToString()));
        run.Log($"measuring {folder}");
        (Decoder model, Adapter? adapter) = CheckpointModel.Load(folder, device);
        using Adapter? attached = adapter;
        using Decoder own = model;
        model.eval();
        Tokenizer tokenizer = Tokenizer.Load(folder, run.Store.TokenizerPlaces, run.Store.TokenizerDownload).ForModel(model.AdaptedConfig.VocabularySize, folder);
        long step = Checkpoint.TrainerState(folder)?["step"]?.GetValue<long>() ?? 0;
        try
        {
            Measure(model, tokenizer, trained, step);
            Write(model, tokenizer, trained, step);
        }
        catch (OperationCanceledException) { throw new StoppedException("stopped; measuring starts from the beginning when resumed"); }
    }

    private void Measure(Decoder model, Tokenizer tokenizer, RunConfig? trained, long step)
    {
        DataConfig data = Data(trained);
        run.Events.Write(new ProgressEvent("measuring the loss on held-out text", 0));
        using TrainingData files = new(data, run.Store);
        // Fine-tuning adds chat markers after the last id, and leaves the ids of text as they are.
        if (files.Tokenizer.Hash != tokenizer.Hash && files.Tokenizer.WithChatMarkers().Hash != tokenizer.Hash)
            throw new UserException($"data set {data.Dataset} was made with another tokenizer than the checkpoint's: prepare it with that one, or choose another data set");
        BatchSource source = Source(files, data, trained);
        Evaluation result = new Evaluator(model, source.Holdout, tokenizer).Run(cancel: run.Stop.Token);
        run.Log($"evaluation loss {result.Loss:0.0000}, perplexity {result.Perplexity:0.00}, bits per byte {result.BitsPerByte:0.000}");
        run.Events.Write(new MetricsEvent(step, step, 0, null, new Dictionary<string, double>
        {
            ["eval/loss"] = result.Loss, ["eval/perplexity"] = result.Perplexity, ["eval/bits_per_byte"] = result.BitsPerByte,
        }));
    }

    // Other sizes would cut the text in another way, and the holdout would be text that the model has trained on.
    private DataConfig Data(RunConfig? trained)
    {
        DataConfig named = run.Config.Data;
        if (named.Dataset.Length == 0)
            return trained?.Data ?? throw new UserException("data.dataset is empty and the checkpoint belongs to no run of this store: name the data set to measure it on");
        if (trained is null) return named;
        if (RunConfigChecks.SameData(named, trained.Data, run.Store)) return trained.Data;
        // Of a mixture each data set holds out its own, whatever it is mixed with.
        bool mixed = TrainingData.Names(trained.Data).Any(d => RunConfigChecks.SameData(named, trained.Data with { Dataset = d.Name }, run.Store));
        return mixed ? trained.Data with { Dataset = named.Dataset, Mixture = [] } : named;
    }

    // The holdout is fixed by the seed that the model was trained with, too.
    private BatchSource Source(TrainingData files, DataConfig data, RunConfig? trained)
    {
        try { return files.Source(data, trained?.Training.BatchSize ?? run.Config.Training.BatchSize, trained?.Seed ?? run.Config.Seed); }
        catch (ArgumentException e) { throw new UserException($"data.num_eval_samples = {data.NumEvalSamples}, data.tokens_per_sample = {data.TokensPerSample}: {e.Message}"); }
    }

    private void Write(Decoder model, Tokenizer tokenizer, RunConfig? trained, long step)
    {
        IReadOnlyList<string> prompts = run.Config.Evaluate.Prompts;
        for (int i = 0; i < prompts.Count; i++)
        {
            run.Events.Write(new ProgressEvent("writing samples", (i + 1.0) / (prompts.Count + 1)));
            string text = Samples.Continue(model, tokenizer, Samples.Prompt(tokenizer, prompts[i]), run.Config.Evaluate.MaxTokens, trained?.Data.TokensPerSample ?? run.Config.Data.TokensPerSample, run.Config.Seed + (ulong)i, run.Stop.Token);
            run.Events.Write(new SampleEvent(step, prompts[i], text));
        }
        run.Events.Write(new ProgressEvent("measured", 1));
    }

    /// <summary>The checkpoint's folder, and the config of the run that made it where it is known.</summary>
    private (string Folder, RunConfig? Trained) FindCheckpoint()
    {
        string named = run.Config.Evaluate.Checkpoint;
        if (named.Length == 0) named = run.Record.After.Count > 0 ? run.Record.After[^1] : throw new UserException("evaluate.checkpoint is empty: name a run's id or a checkpoint folder");
        if (RunFolder.TryOpen(run.Store, named, out RunFolder? folder))
        {
            string? newest = Checkpoint.NewestValid(folder.CheckpointsPath, run.Warn);
            return (newest ?? throw new UserException($"run {named} has no checkpoint yet: train it first"), RunConfigChecks.TrainedBy(named, run.Store));
        }
        return (Path.GetFullPath(named), RunConfigChecks.TrainedBy(named, run.Store));
    }
}
