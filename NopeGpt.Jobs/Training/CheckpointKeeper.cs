using System.Text.Json.Nodes;
using NopeGpt.Model;
using NopeGpt.Model.Optimizers;
using NopeGpt.Model.Storage;

namespace NopeGpt.Jobs.Training;

/// <summary>Saves and restores a training run, and decides which checkpoints stay.</summary>
internal sealed class CheckpointKeeper(RunContext run, RunConfig config, Decoder model, Optimizer optimizer, string tokenFile, string tokenizerHash)
{
    // Weights of four bytes each, with some room for the small files.
    private const long BytesPerParameter = 5, Slack = 1 << 20;
    private (long Step, long EvaluatedStep) saved = (-1, -1);

    /// <summary>Sets everything but the weights as the checkpoint has it.</summary>
    public void Restore(string folder, Progress progress)
    {
        JsonObject state = Checkpoint.TrainerState(folder) ?? throw new InvalidDataException($"{folder}: trainer.json is missing, so the run cannot go on from it; delete that folder");
        if (state["tokenizer_hash"]?.GetValue<string>() != tokenizerHash)
            throw new UserException($"{folder} was trained with another tokenizer than data set {config.Data.Dataset} has now: restore the data set, or start a new run");
        Checkpoint.LoadOptimizer(folder, optimizer);
        model.DropoutState = Convert.FromBase64String(state["dropout_state"]!.GetValue<string>());
        progress.Restore(state);
        saved = (progress.Step, progress.EvaluatedStep);
        run.Log($"going on from {folder}");
    }

    public void Save(Progress progress)
    {
        if (saved == (progress.Step, progress.EvaluatedStep)) return;
        CheckDisk();
        JsonObject state = progress.ToJson();
        state["tokens_per_sample"] = config.Data.TokensPerSample;
        state["dataset"] = config.Data.Dataset;
        state["tokenizer_hash"] = tokenizerHash;
        state["dropout_state"] = Convert.ToBase64String(model.DropoutState);
        state["run_id"] = run.Folder.Id;
        string name = Checkpoint.FolderName(progress.Step), folder = Path.Combine(run.Folder.CheckpointsPath, name);
        // Where the step has one already (damaged, or saved before its evaluation was done), this one takes its place.
        Checkpoint.Save(folder, model, optimizer, Store.TokenizerBeside(tokenFile), state);
        saved = (progress.Step, progress.EvaluatedStep);
        long bytes = new DirectoryInfo(folder).EnumerateFiles().Sum(f => f.Length);
        run.Log($"saved {folder}");
        run.Events.Write(new CheckpointEvent(progress.Step, "checkpoints/" + name, progress.Loss, bytes));
        DeleteOld(folder, progress);
    }

    private void DeleteOld(string newest, Progress progress)
    {
        foreach ((string path, _) in Checkpoint.List(run.Folder.CheckpointsPath).Skip(config.Training.KeepCheckpoints))
        {
            if (path != newest && !(EvalLoss(path) <= progress.BestEvalLoss)) Checkpoint.Delete(path);
        }
    }

    /// <summary>Null where it is not known, and for a damaged checkpoint: nobody can go on from that, so it need not stay.</summary>
    private static double? EvalLoss(string path)
    {
        try { return Checkpoint.TrainerState(path)?["eval_loss"]?.GetValue<double>(); }
        catch (InvalidDataException) { return null; }
    }

    /// <exception cref="UserException">There is no room for one more checkpoint.</exception>
    public void CheckDisk()
    {
        long needed = (BytesPerParameter * config.Model.ParameterCount) + optimizer.StateBytes + Slack;
        long free = new DriveInfo(run.Folder.Path).AvailableFreeSpace;
        if (free < needed)
            throw new UserException($"the disk of {run.Folder.Path} has {free / 1e6:N0} MB left and a checkpoint takes {needed / 1e6:N0} MB: make room, then resume", ExitCode.DiskFull);
    }
}
