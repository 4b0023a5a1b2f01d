using System.ComponentModel;
using System.Globalization;
using System.Runtime.InteropServices;

namespace NopeGpt.Jobs.Training;

/// <summary>Makes this process independent of the one that started it: a session and process group of its own, nothing on the standard
/// streams but the log file, so that a crash of the dashboard neither signals it nor breaks its pipes.</summary>
internal static partial class Detached
{
    private const int WriteOnly = 0x1, Create = 0x40, Append = 0x400, CloseOnExec = 0x80000;

    public static void Enter(string logPath)
    {
        // Fails only for a process that leads a group already, which then has what is wanted.
        _ = setsid();
        int[] copies = Copies();
        Redirect(Check(open("/dev/null", 0, 0), "/dev/null"), 0);
        int log = Check(open(logPath, WriteOnly | Create | Append, 0x1A4 /* rw-r--r-- */), logPath);
        Redirect(log, 1);
        Redirect(log, 2);
        foreach (int copy in copies) Check(dup3(log, copy, CloseOnExec), "a copy of a standard stream");
    }

    /// <summary>The runtime keeps copies of the streams that it was started with: whoever reads the dashboard's output would wait for its end until this process ends, too.</summary>
    private static int[] Copies()
    {
        (string? output, string? error) = (Target(1), Target(2));
        return [.. Directory.EnumerateFiles("/proc/self/fd").Select(path => int.Parse(Path.GetFileName(path), CultureInfo.InvariantCulture))
            .Where(fd => fd > 2 && Target(fd) is { } target and not "/dev/null" && (target == output || target == error))];
    }

    private static string? Target(int descriptor)
    {
        try { return new FileInfo($"/proc/self/fd/{descriptor.ToString(CultureInfo.InvariantCulture)}").LinkTarget; }
        catch (IOException) { return null; }
    }

    private static void Redirect(int from, int to) => Check(dup2(from, to), "a standard stream");

    private static int Check(int result, string what) =>
        result >= 0 ? result : throw new IOException($"{what}: {new Win32Exception(Marshal.GetLastPInvokeError()).Message}");

    [LibraryImport("libc", SetLastError = true)]
    private static partial int setsid();

    [LibraryImport("libc", SetLastError = true, StringMarshalling = StringMarshalling.Utf8)]
    private static partial int open(string path, int flags, int mode);

    [LibraryImport("libc", SetLastError = true)]
    private static partial int dup2(int from, int to);

    [LibraryImport("libc", SetLastError = true)]
    private static partial int dup3(int from, int to, int flags);
}
