using NopeGpt.Data.Documents.Hub;
using NopeGpt.Jobs.Queue;
using NopeGpt.Model.Native;
using static TorchSharp.torch;

namespace NopeGpt.Jobs.Training;

/// <summary>`nopegpt train RUN_FOLDER`: runs or continues what run.json says, in this process.</summary>
public static class TrainerProcessMain
{
    /// <summary>Works on the run until it is done, stopped or has failed.</summary>
    /// <param name="detached">In a session of its own, with everything printed going to trainer.log.</param>
    /// <param name="watch">Told of every event as it is queued for the file.</param>
    /// <param name="print">Shows a line of the log; null writes it to the error stream.</param>
    /// <param name="place">Other devices or threads than the run's own.</param>
    /// <returns>One of <see cref="ExitCode"/>.</returns>
    /// <exception cref="UserException">There is no such run, or another process works on it.</exception>
    public static async Task<int> RunAsync(string path, Store store, bool detached, string? torchLibrary, CancellationToken cancel, Action<TrainingEvent>? watch = null,
        Action<string>? print = null, RunPlace? place = null)
    {
        RunFolder folder = RunFolder.Open(path);
        if (detached) Detached.Enter(folder.LogPath);
        await using FileStream held = folder.TryLock()
            ?? throw new UserException($"another process{(folder.ReadIdentity() is { } other ? $" ({other.ProcessId})" : "")} works on run {folder.Id}: stop it first");
        // A person who starts it by hand wants it to run; a supervisor has cleared the request itself, and may have made a new one since.
        if (!detached) folder.RequestStop(StopRequest.None);
        folder.WriteIdentity(TrainerProcess.Self() with { Foreground = !detached });
        RunRecord record = folder.Read();
        RunLog log = new(print, detached ? null : folder.LogPath);
        TensorBoardWriter? board = !record.Config.Kind.NeedsDevice() ? null : new(folder, log.Write);
        EventWriter events = new(folder, store, watch, TimeProvider.System, board);
        int code;
        await using (events.ConfigureAwait(true))
        {
            using StopSignal stop = new(folder, cancel);
            RunContext run = new(store, folder, record, place ?? new RunPlace(null, null), events, stop, log.Write, TimeProvider.System);
            (EndedEvent ended, code) = Work(run, torchLibrary);
            if (ended.Reason is not null) log.Write(ended.Reason);
            events.Write(ended with { Code = code });
        }
        // Work that is done but not written down is not done.
        return code == ExitCode.Done && events.Fault is not null ? ExitCode.DiskFull : code;
    }

    private static (EndedEvent Ended, int Code) Work(RunContext run, string? torchLibrary)
    {
        try
        {
            switch (run.Config.Kind)
            {
                case RunKind.Prepare: new PrepareRun(run).Run(); break;
                case RunKind.Tokenizer: new TokenizerRun(run).Run(); break;
                case RunKind.Pretrain or RunKind.Finetune: Trainer.Run(run, Start(run, torchLibrary)); break;
                case RunKind.Export: new ExportRun(run, torchLibrary).Run(); break;
                case RunKind.Evaluate: new EvaluateRun(run, Start(run, torchLibrary)[0]).Run(); break;
            }
            return (new(RunState.Completed, null), ExitCode.Done);
        }
        catch (StoppedException e) { return (new(RunState.Interrupted, e.Message), ExitCode.StoppedAndSaved); }
        catch (DivergedException e) { return (new(RunState.Failed, e.Message, e.Step, e.Documents), ExitCode.Diverged); }
        catch (ProblemsException e) { return (new(RunState.Failed, e.Message), ExitCode.BadConfiguration); }
        catch (UserException e) { return (new(RunState.Failed, e.Message), e.ExitCode); }
        catch (HubException e) { return (new(RunState.Failed, e.Message), ExitCode.BadConfiguration); }
        catch (TorchUnavailableException e) { return (new(RunState.Failed, e.Message), ExitCode.BadConfiguration); }
        catch (InvalidDataException e) { return (new(RunState.Failed, e.Message), ExitCode.BadConfiguration); }
        catch (FileNotFoundException e) { return (new(RunState.Failed, e.Message), ExitCode.BadConfiguration); }
        catch (Exception e) when (DiskErrors.IsUnwritable(e))
        {
            return (new(RunState.Failed, $"the disk of {run.Store.Root} is full or cannot be written ({e.Message.TrimEnd('.')}): make room, then resume"), ExitCode.DiskFull);
        }
        catch (Exception e) when (IsOutOfMemory(e))
        {
            return (new(RunState.Failed, $"out of memory ({FirstLine(e.Message)}): use a smaller training.batch_size, data.tokens_per_sample or model"), ExitCode.OutOfMemory);
        }
#pragma warning disable CA1031 // The last line of defence: a defect ends this process with its words in the log, and the run as failed.
        catch (Exception e)
#pragma warning restore CA1031
        {
            run.Log(e.ToString());
            return (new(RunState.Failed, $"a defect ended the trainer: {FirstLine(e.Message)}; trainer.log has the details"), ExitCode.Defect);
        }
    }

    private static IReadOnlyList<Device> Start(RunContext run, string? torchLibrary)
    {
        IReadOnlyList<Device> devices = ComputeDevice.StartAll(torchLibrary, run.Config.Device);
        TorchRuntime.SetThreads(run.Config.Threads == 0 ? Environment.ProcessorCount : run.Config.Threads);
        run.Log(TorchRuntime.Describe());
        return devices;
    }

    private static bool IsOutOfMemory(Exception e) => e is OutOfMemoryException
        || e.Message.Contains("can't allocate memory", StringComparison.Ordinal) || e.Message.Contains("out of memory", StringComparison.OrdinalIgnoreCase);

    private static string FirstLine(string message) => message.Split('\n')[0].Trim().TrimEnd('.');
}

/// <summary>The run was asked to stop; what it had done is saved.</summary>
internal sealed class StoppedException(string message) : Exception(message);

/// <summary>Loss or gradient is not finite. Thrown before the update, so that the last checkpoint is sound.</summary>
internal sealed class DivergedException(string message, long step, IReadOnlyList<long> documents) : Exception(message)
{
    /// <summary>The step that was not taken.</summary>
    public long Step { get; } = step;

    /// <summary>Of its batch.</summary>
    public IReadOnlyList<long> Documents { get; } = documents;
}
