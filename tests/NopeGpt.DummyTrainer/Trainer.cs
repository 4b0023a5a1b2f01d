using System.Globalization;
using System.Runtime.InteropServices;
using System.Text.Json;
using NopeGpt.Jobs;

namespace NopeGpt.DummyTrainer;

/// <summary>What a trainer does to its folder, without training. The run's name says how, in words:
/// steps:5 = works 5 steps; delay:20 = milliseconds of each; every:2 = a checkpoint after every 2 steps; exit:4 = ends with code 4 after the last;
/// die:3 = kills itself after 3 steps of each attempt; deaf = heeds no stop; silent = says nothing at its end. It writes its environment's ASPNETCORE_ names and its options to the log,
/// and to the store's file "overlaps" when another trainer works on the same run or in the same slot.</summary>
internal static partial class Trainer
{
    private const int Sigkill = 9;

    public static async Task<int> RunAsync(string path, string[] options)
    {
        RunFolder folder = RunFolder.Open(path);
        _ = setsid();
        await using FileStream? held = folder.TryLock();
        if (held is null)
        {
            NoteOverlap(folder);
            await Console.Error.WriteLineAsync("another process works on this run");
            return ExitCode.BadConfiguration;
        }
        RunConfig config = folder.Read().Config;
        using FileStream? slot = TakeSlot(folder, config.Kind is RunKind.Prepare or RunKind.Tokenizer ? "preparation" : "device");
        if (slot is null) NoteOverlap(folder);
        Dictionary<string, int> words = config.Name.Split(' ').Select(w => w.Split(':')).ToDictionary(w => w[0], w => w.Length > 1 ? int.Parse(w[1], CultureInfo.InvariantCulture) : 1);
        int Word(string name, int otherwise) => words.GetValueOrDefault(name, otherwise);

        using CancellationTokenSource stop = new();
        using PosixSignalRegistration signal = PosixSignalRegistration.Create(PosixSignal.SIGTERM, context =>
        {
            context.Cancel = true;
            stop.Cancel();
        });
        folder.WriteIdentity(new TrainerIdentity(Environment.ProcessId, StartTicks()));
        await File.AppendAllTextAsync(folder.LogPath, $"options: {string.Join(' ', options)}, order {Environment.GetEnvironmentVariable("CUDA_DEVICE_ORDER")}\n");
        return Work(folder, new Plan(Word("steps", 3), Word("delay", 5), Word("every", 1), Word("exit", 0), words.ContainsKey("deaf"), words.ContainsKey("silent"), Word("die", int.MaxValue)), () =>
            stop.IsCancellationRequested || folder.ReadStop() != StopRequest.None);
    }

    /// <summary>Null where another trainer of the store works in the same slot.</summary>
    private static FileStream? TakeSlot(RunFolder folder, string slot)
    {
        try { return new FileStream(InRoot(folder, $"slot-{slot}"), FileMode.OpenOrCreate, FileAccess.ReadWrite, FileShare.None); }
        catch (IOException) { return null; }
    }

    private static void NoteOverlap(RunFolder folder) => File.AppendAllText(InRoot(folder, "overlaps"), $"{folder.Id} by process {Environment.ProcessId}\n");

    private static string InRoot(RunFolder folder, string name) => Path.Combine(Path.GetDirectoryName(Path.GetDirectoryName(folder.Path))!, name);

    private static int Work(RunFolder folder, Plan plan, Func<bool> stopAsked)
    {
        File.AppendAllText(folder.LogPath, $"web names: {string.Join(',', Environment.GetEnvironmentVariables().Keys.Cast<string>().Where(k => k.StartsWith("ASPNETCORE_", StringComparison.Ordinal)))}\n");
        List<TrainingEvent> before = [.. folder.Events()];
        long sequence = before.Count == 0 ? 0 : before[^1].Sequence;
        void Write(TrainingEvent e)
        {
            TrainingEvent whole = e with { Sequence = ++sequence, Time = DateTimeOffset.UtcNow };
            File.AppendAllText(folder.EventsPath, JsonSerializer.Serialize(whole, TrainingEvent.Json) + "\n");
        }

        long step = before.OfType<CheckpointEvent>().LastOrDefault()?.Step ?? 0;
        Write(new StartedEvent(before.OfType<StartedEvent>().Count() + 1, step, Environment.ProcessId, "dummy"));
        for (int done = 0; step < plan.Steps; done++)
        {
            if (done == plan.Die) _ = kill(Environment.ProcessId, Sigkill);
            if (!plan.Deaf && stopAsked())
            {
                Checkpoint(folder, step, Write);
                if (!plan.Silent) Write(new EndedEvent(RunState.Interrupted, $"stopped and saved at step {step}"));
                return ExitCode.StoppedAndSaved;
            }
            Thread.Sleep(plan.Delay);
            step++;
            Write(new MetricsEvent(step, plan.Steps, step, null, new Dictionary<string, double> { ["train/loss"] = 1.0 / step }));
            Write(new ProgressEvent("working", (double)step / plan.Steps));
            if (step % plan.Every == 0) Checkpoint(folder, step, Write);
        }
        File.AppendAllText(folder.LogPath, "the dummy's last words\n");
        if (!plan.Silent) Write(new EndedEvent(plan.Exit == 0 ? RunState.Completed : RunState.Failed, plan.Exit == 0 ? null : $"told to fail with {plan.Exit}"));
        return plan.Exit;
    }

    private static void Checkpoint(RunFolder folder, long step, Action<TrainingEvent> write)
    {
        string name = $"step-{step:d9}";
        Directory.CreateDirectory(Path.Combine(folder.CheckpointsPath, name));
        write(new CheckpointEvent(step, $"checkpoints/{name}", 1, 0));
    }

    private static long StartTicks()
    {
        string stat = File.ReadAllText("/proc/self/stat");
        return long.Parse(stat[(stat.LastIndexOf(')') + 2)..].Split(' ')[19], CultureInfo.InvariantCulture);
    }

    [LibraryImport("libc", SetLastError = true)]
    private static partial int setsid();

    [LibraryImport("libc", SetLastError = true)]
    private static partial int kill(int processId, int signal);

    private sealed record Plan(int Steps, int Delay, int Every, int Exit, bool Deaf, bool Silent, int Die);
}
