using System.ComponentModel;
using System.Runtime.InteropServices;

namespace NopeGpt.Jobs.Training;

/// <summary>Makes this process independent of the one that started it: a session and process group of its own, nothing on the standard
/// streams but the log file, so that a crash of the dashboard neither signals it nor breaks its pipes.</summary>
internal static partial class Detached
{
    private const int WriteOnly = 0x1, Create = 0x40, Append = 0x400;

    public static void Enter(string logPath)
    {
        // Fails only for a process that leads a group already, which then has what is wanted.
        _ = setsid();
        Redirect(Check(open("/dev/null", 0, 0), "/dev/null"), 0);
        int log = Check(open(logPath, WriteOnly | Create | Append, 0x1A4 /* rw-r--r-- */), logPath);
        Redirect(log, 1);
        Redirect(log, 2);
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
}
