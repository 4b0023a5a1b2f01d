using System.ComponentModel;
using System.Diagnostics;
using System.Globalization;
using System.Runtime.InteropServices;
using NopeGpt.Jobs.Queue.Hosts;

namespace NopeGpt.Jobs.Queue;

/// <summary>One trainer process: started here, or found working and adopted. It is told by id and start time, so no later process with the same
/// number is ever taken for it or signalled.</summary>
internal sealed partial class TrainerProcess : IDisposable
{
    private const int Sigkill = 9, Sigterm = 15;
    private static readonly TimeSpan LookEvery = TimeSpan.FromMilliseconds(250);
    private readonly Process? child;

    private TrainerProcess(TrainerIdentity identity, Process? child) => (Identity, this.child) = (identity, child);

    public TrainerIdentity Identity { get; }

    /// <param name="options">More words for `nopegpt train`.</param>
    /// <exception cref="UserException">The program cannot be started.</exception>
    public static TrainerProcess Start(TrainerProgram program, RunFolder folder, Store store, IReadOnlyList<string>? options = null)
    {
        ProcessStartInfo info = new(program.FileName, [.. program.Arguments, "train", folder.Path, "--root", store.Root, "--detached", .. options ?? []])
        {
            UseShellExecute = false,
            WorkingDirectory = store.Root,
        };
        TrainerProgram.Prepare(info);
        // Training takes and gives back large blocks all the time; with huge pages a step has 88 page faults instead of 5,300 (docs/experiments.md). glibc reads
        // this only when a process starts.
        info.Environment.TryAdd("GLIBC_TUNABLES", "glibc.malloc.hugetlb=1");
        // cuda:1 is what nvidia-smi calls 1, which is how the pool knows it; the driver by itself numbers the fastest first.
        info.Environment["CUDA_DEVICE_ORDER"] = "PCI_BUS_ID";
        try
        {
            Process child = Process.Start(info)!;
            return new TrainerProcess(new TrainerIdentity(child.Id, StartTicks(child.Id) ?? 0), child);
        }
        catch (Win32Exception e)
        {
            throw new UserException($"the trainer {program.FileName} cannot be started ({e.Message.TrimEnd('.')}): build the whole solution, or publish it again", ExitCode.Defect);
        }
    }

    public static TrainerProcess Adopt(TrainerIdentity identity) => new(identity, null);

    /// <summary>True for a process of this machine that lives; of another machine's nothing is known here.</summary>
    public static bool IsAlive(TrainerIdentity identity) => IsOfThisMachine(identity) && StartTicks(identity.ProcessId) == identity.StartTicks;

    public static bool IsOfThisMachine(TrainerIdentity identity) => identity.Machine.Length == 0 || identity.Machine == Machine.Id;

    /// <summary>This very process.</summary>
    public static TrainerIdentity Self() => new(Environment.ProcessId, StartTicks(Environment.ProcessId) ?? 0) { Machine = Machine.Id };

    /// <summary>Waits for the end.</summary>
    /// <returns>The exit code, 128 + the number of the signal that killed it, or null where nobody can know: it was not our child.</returns>
    public async Task<int?> WaitAsync(CancellationToken cancel)
    {
        if (child is not null)
        {
            await child.WaitForExitAsync(cancel).ConfigureAwait(false);
            return child.ExitCode;
        }
        while (IsAlive(Identity)) await Task.Delay(LookEvery, cancel).ConfigureAwait(false);
        return null;
    }

    /// <summary>Asks it to save and end.</summary>
    public void Terminate()
    {
        if (IsAlive(Identity)) _ = kill(Identity.ProcessId, Sigterm);
    }

    /// <summary>Ends it, and whatever it started, at once.</summary>
    public void Kill()
    {
        if (!IsAlive(Identity)) return;
        // It leads a group only once it has made itself independent, so the process itself is named as well.
        _ = kill(-Identity.ProcessId, Sigkill);
        _ = kill(Identity.ProcessId, Sigkill);
    }

    public void Dispose() => child?.Dispose();

    /// <summary>Field 22 of /proc/PID/stat; null for a process that is gone or dead and not yet collected.</summary>
    private static long? StartTicks(int processId)
    {
        try
        {
            // The name in brackets may hold anything; the state is the first field after it and the start time the 20th.
            string stat = File.ReadAllText($"/proc/{processId.ToString(CultureInfo.InvariantCulture)}/stat");
            string[] fields = stat[(stat.LastIndexOf(')') + 2)..].Split(' ');
            return fields[0] is "Z" or "X" ? null : long.Parse(fields[19], CultureInfo.InvariantCulture);
        }
        catch (Exception e) when (e is IOException or UnauthorizedAccessException) { return null; }
    }

    [LibraryImport("libc", SetLastError = true)]
    private static partial int kill(int processId, int signal);
}
