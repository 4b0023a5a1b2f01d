using System.Globalization;
using System.Text;
using System.Text.RegularExpressions;

namespace NopeGpt.Jobs.Queue;

/// <summary>What the end of a trainer process means for its run.</summary>
/// <param name="Code">Exit code, 128 + signal, or null where it cannot be known.</param>
/// <param name="Ended">The attempt's own last words, if it had any.</param>
/// <param name="Checkpoint">Step of the newest checkpoint on disk; null for none.</param>
/// <param name="LogLine">Last line of trainer.log; empty for none.</param>
/// <param name="Asked">The stop that had been asked for.</param>
/// <param name="Overdue">The grace period had passed and the trainer was killed for it.</param>
internal sealed partial record TrainerEnd(int? Code, EndedEvent? Ended, long? Checkpoint, string LogLine, StopRequest Asked, bool Overdue)
{
    private const int SignalBase = 128, LogEnd = 4096, MaximumLine = 300;

    /// <summary>Number of the run's last event.</summary>
    public long Sequence { get; init; }

    /// <summary>The process broke off, by a crash, a defect or a kill that nobody asked for: another attempt may get further.</summary>
    public bool Died => Asked == StopRequest.None && (Ended is null ? Code is null or > SignalBase or ExitCode.Defect : (Code is null or > SignalBase ? Ended.Code : Code) == ExitCode.Defect);

    /// <summary>It stopped in order, and not because the row said so: somebody signalled the process.</summary>
    public bool StoppedByOthers => Asked == StopRequest.None && (Code ?? Ended?.Code) == ExitCode.StoppedAndSaved;

    /// <summary>Loss or gradient was not finite.</summary>
    public bool Diverged => (Code is null or > SignalBase ? Ended?.Code : Code) == ExitCode.Diverged;

    private string GoOn => Checkpoint is { } step ? $"resume to go on from step {step}" : "resume to begin anew";

    /// <summary>What became of the process, without a cure: for a run that goes on by itself.</summary>
    public string What => Ended?.Reason ?? (Code == ExitCode.Defect ? WithLog(Words(ExitCode.Defect)) : "the trainer " + Death());

    public (RunState State, string? Reason) Decide()
    {
        switch (Code)
        {
            case ExitCode.Done: return (RunState.Completed, null);
            case ExitCode.StoppedAndSaved: return (RunState.Interrupted, Ended?.Reason ?? (Checkpoint is { } step ? $"stopped and saved at step {step}" : "stopped before its first checkpoint"));
            // Its last words count for more than a fault while its libraries were unloaded, or than a code that nobody saw.
            case null or > SignalBase when Ended is not null: return (Ended.State, Ended.Reason);
            case null or > SignalBase: return Killed();
            default: return (RunState.Failed, Ended?.Reason ?? WithLog(Words(Code.Value)));
        }
    }

    /// <summary>The end of a trainer that died while nobody watched: interrupted, unless it said itself how it ended.</summary>
    public (RunState State, string? Reason) DecideLater() =>
        Ended is not null ? (Ended.State, Ended.Reason) : (RunState.Interrupted, $"the trainer ended while the dashboard was not there to see it; {GoOn}");

    /// <summary>The step of the newest checkpoint folder; null for none.</summary>
    public static long? NewestCheckpoint(RunFolder folder)
    {
        if (!Directory.Exists(folder.CheckpointsPath)) return null;
        return Directory.EnumerateDirectories(folder.CheckpointsPath)
            .Select(d => CheckpointName().Match(Path.GetFileName(d)))
            .Where(m => m.Success)
            .Max(m => (long?)long.Parse(m.Groups[1].Value, CultureInfo.InvariantCulture));
    }

    /// <summary>The last line of trainer.log, cut to a sensible length.</summary>
    public static string LastLogLine(RunFolder folder)
    {
        if (!File.Exists(folder.LogPath)) return "";
        using FileStream stream = new(folder.LogPath, FileMode.Open, FileAccess.Read, FileShare.ReadWrite | FileShare.Delete);
        stream.Position = Math.Max(0, stream.Length - LogEnd);
        using StreamReader reader = new(stream, Encoding.UTF8);
        string last = reader.ReadToEnd().Split('\n').LastOrDefault(l => !string.IsNullOrWhiteSpace(l))?.Trim() ?? "";
        return last.Length <= MaximumLine ? last : last[..MaximumLine] + "…";
    }

    private (RunState State, string? Reason) Killed()
    {
        if (Overdue) return (RunState.Interrupted, $"the trainer did not save within its time and was killed; {GoOn}");
        if (Asked != StopRequest.None) return (RunState.Interrupted, $"{(Asked == StopRequest.Kill ? "killed as asked" : "stopped before it had saved")}; {GoOn}");
        string what = Death();
        // Whoever kills a trainer has not made it fail; a crash before anything was saved would most likely come again.
        return Checkpoint is not null || !what.StartsWith("crashed", StringComparison.Ordinal)
            ? (RunState.Interrupted, $"the trainer {what}; {GoOn}")
            : (RunState.Failed, $"the trainer {what} before its first checkpoint; start it again");
    }

    private string Death() => (Code - SignalBase) switch
    {
        null => "ended without a word",
        2 => "was interrupted (SIGINT)",
        4 => "crashed (SIGILL)",
        6 => "crashed (SIGABRT)",
        7 => "crashed (SIGBUS)",
        8 => "crashed (SIGFPE)",
        9 => "was killed (SIGKILL)",
        11 => "crashed (SIGSEGV)",
        15 => "was killed (SIGTERM)",
        { } signal => $"was killed (signal {signal})",
    };

    private static string Words(int code) => code switch
    {
        ExitCode.Defect => "the trainer met a defect of its own",
        ExitCode.BadConfiguration => "the trainer cannot work with this configuration",
        ExitCode.Diverged => "the training diverged: loss or gradient is not finite",
        ExitCode.OutOfMemory => "the trainer ran out of memory",
        ExitCode.DiskFull => "the disk is full or cannot be written",
        _ => $"the trainer ended with exit code {code}",
    };

    private string WithLog(string words) => LogLine.Length == 0 ? words : $"{words}: {LogLine}";

    [GeneratedRegex(@"\Astep-(\d{1,18})\z")]
    private static partial Regex CheckpointName();
}
