using System.Text.Json.Nodes;
using NopeGpt.Jobs.Inference;
using NopeGpt.Model;
using NopeGpt.Model.Replicas;
using NopeGpt.Model.Storage;

namespace NopeGpt.Jobs.Training;

/// <summary>Saves and restores a training run, and decides which checkpoints stay: the newest, the one with the best evaluation, every M-th step's, and those that a person pinned.</summary>
internal sealed class CheckpointKeeper(RunContext run, RunConfig config, ReplicaGroup replicas, LossWatch losses, ITrainingSet data) : IDisposable
{
    // Weights of four bytes each, with some room for the small files.
    private const long BytesPerParameter = 5, Slack = 1 << 20;
    private readonly CheckpointWriter _writer = new(run.Time);
    private (long Step, long EvaluatedStep) _saved = (-1, -1);

    /// <summary>Time that training stood still for checkpoints.</summary>
    public TimeSpan Waited => _writer.Waited;

    private string Parent => run.Folder.CheckpointsPath;

    private long Needed => (BytesPerParameter * replicas.SavedParameters) + replicas.OptimizerStateBytes + Slack;

    /// <summary>Sets everything but the weights as the checkpoint has it.</summary>
    public void Restore(string folder, Progress progress)
    {
        JsonObject state = Checkpoint.TrainerState(folder) ?? throw new InvalidDataException($"{folder}: trainer.json is missing, so the run cannot go on from it; delete that folder");
        if (state["tokenizer_hash"]?.GetValue<string>() != data.TokenizerHash)
            throw new UserException($"{folder} was trained with another tokenizer than data set {data.Name} has now: restore the data set, or start a new run");
        Checkpoint.LoadOptimizer(folder, replicas.RestoreOptimizer);
        replicas.Generators = Generators(state);
        progress.Restore(state, RunLength.SamplesPerStep(config));
        losses.Restore(state["loss_watch"] as JsonObject);
        if (state["loss_scale"] is JsonObject scale) replicas.LossScale.Restore(scale["scale"]!.GetValue<double>(), scale["good_steps"]!.GetValue<int>());
        _saved = (progress.Step, progress.EvaluatedStep);
        run.Log($"going on from {folder}");
    }

    /// <summary>Tells of a checkpoint that stands, and of which a kill kept the news.</summary>
    public void Tell(string folder, Progress progress) =>
        run.Events.Write(new CheckpointEvent(progress.Step, "checkpoints/" + Path.GetFileName(folder), progress.Loss, Bytes(folder)));

    /// <summary>Begins to save. Returns when the state is copied, and the checkpoint before is written.</summary>
    /// <exception cref="UserException">There is no room for it.</exception>
    /// <exception cref="IOException">The checkpoint before could not be written. The older ones are whole.</exception>
    public void Save(Progress progress)
    {
        if (_saved == (progress.Step, progress.EvaluatedStep)) return;
        JsonObject state = progress.ToJson();
        state["tokens_per_sample"] = data.ContextLength;
        state["dataset"] = data.Name;
        state["tokenizer_hash"] = data.TokenizerHash;
        if (config.Kind == RunKind.Finetune) state[CheckpointModel.BaseKey] = config.Finetune.BaseCheckpointPath;
        state["dropout_states"] = new JsonArray([.. replicas.Generators.Select(g => JsonValue.Create(Convert.ToBase64String(g)))]);
        state["loss_watch"] = losses.ToJson();
        if (config.Training.Precision == Precision.Float16)
            state["loss_scale"] = new JsonObject { ["scale"] = replicas.LossScale.Scale, ["good_steps"] = replicas.LossScale.GoodSteps };
        state["run_id"] = run.Folder.Id;
        (long step, double loss) = (progress.Step, progress.Loss);
        _writer.Begin(CheckDisk, replicas.Capture, (tensors, waited) => Write(step, loss, state, tensors, waited));
        _saved = (progress.Step, progress.EvaluatedStep);
    }

    /// <summary>Throws where a save has failed since, without waiting.</summary>
    public void Check() => _writer.Check();

    /// <summary>Returns when everything is written.</summary>
    public void Finish() => _writer.Finish();

    public void Dispose() => _writer.Dispose();

    /// <exception cref="UserException">There is no room for one more checkpoint.</exception>
    public void CheckDisk()
    {
        long free = Free();
        if (free < Needed)
            throw new UserException($"the disk of {run.Folder.Path} has {free / 1e6:N0} MB left and a checkpoint takes {Needed / 1e6:N0} MB: make room, then resume", ExitCode.DiskFull);
    }

    /// <summary>Warns where one checkpoint has room, but not all that will be kept.</summary>
    /// <param name="lastStep">Of the run.</param>
    public void CheckDiskAhead(Progress progress, long lastStep)
    {
        CheckDisk();
        // The newest, the best, and the one that is written before an old one goes.
        long kept = config.Training.KeepCheckpoints + 2L, every = config.Training.KeepEvery;
        if (every > 0 && lastStep < long.MaxValue) kept += (lastStep / every) - (progress.Step / every);
        kept -= Checkpoint.List(Parent).Count;
        if (kept > 1 && (double)kept * Needed > Free())
            run.Warn($"the disk of {run.Folder.Path} has {Free() / 1e6:N0} MB left, and {kept} more checkpoints of {Needed / 1e6:N0} MB will be kept: make room, or use a smaller training.keep_checkpoints or none by training.keep_every");
    }

    /// <summary>On the writer's thread.</summary>
    private void Write(long step, double loss, JsonObject state, TrainingState tensors, TimeSpan waited)
    {
        long begun = run.Time.GetTimestamp();
        // Where the run goes on from this checkpoint, its events must tell of every step up to it.
        run.Events.Flush();
        string name = Checkpoint.FolderName(step), folder = Path.Combine(Parent, name);
        // Where the step has one already (damaged, or saved before its evaluation was done), this one takes its place.
        if (replicas.Model.Adapters is [{ Adapter: { } adapter }]) Checkpoint.Save(folder, adapter, tensors, data.TokenizerFile, state);
        else Checkpoint.Save(folder, tensors, data.TokenizerFile, state);
        run.Log($"saved {folder}");
        run.Events.Write(new CheckpointEvent(step, "checkpoints/" + name, loss, Bytes(folder), waited.TotalSeconds, run.Time.GetElapsedTime(begun).TotalSeconds));
        DeleteOld();
    }

    private void DeleteOld()
    {
        IReadOnlyList<(string Path, long Step)> all = Checkpoint.List(Parent);
        (string Path, double Loss)[] measured = [.. all.Select(c => (c.Path, EvalLoss(c.Path))).Where(c => c.Item2 is not null).Select(c => (c.Path, c.Item2!.Value))];
        // The list is newest first: of several that an evaluation stands for, the one that was measured is the oldest.
        string? best = measured.Length == 0 ? null : measured.Last(c => c.Loss == measured.Min(m => m.Loss)).Path;
        IReadOnlyList<long> pinned = run.Folder.ReadCard().Pinned;
        foreach ((string path, long step) in all.Skip(config.Training.KeepCheckpoints))
        {
            if (path != best && !pinned.Contains(step) && !(config.Training.KeepEvery > 0 && step > 0 && step % config.Training.KeepEvery == 0)) Checkpoint.Delete(path);
        }
    }

    /// <summary>Of each replica. Version 0.1 had one.</summary>
    private static IReadOnlyList<byte[]> Generators(JsonObject state) => state["dropout_states"] is JsonArray all
        ? [.. all.Select(g => Convert.FromBase64String(g!.GetValue<string>()))] : [Convert.FromBase64String(state["dropout_state"]!.GetValue<string>())];

    /// <summary>Null where it is not known, and for a damaged checkpoint: nobody can go on from that, so it need not stay.</summary>
    private static double? EvalLoss(string path)
    {
        try { return Checkpoint.TrainerState(path)?["eval_loss"]?.GetValue<double>(); }
        catch (InvalidDataException) { return null; }
    }

    private static long Bytes(string folder) => new DirectoryInfo(folder).EnumerateFiles().Sum(f => f.Length);

    private long Free() => new DriveInfo(run.Folder.Path).AvailableFreeSpace;
}
