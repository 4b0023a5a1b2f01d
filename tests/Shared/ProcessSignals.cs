using System.Globalization;
using System.Runtime.InteropServices;

namespace NopeGpt.Tests;

/// <summary>Signals to processes that a test has started.</summary>
internal static class ProcessSignals
{
    private const int Sigkill = 9, Sigterm = 15, Sigcont = 18, Sigstop = 19;

    /// <summary>Returns once none of its threads runs any more, so that what it has done so far can be looked at in peace.</summary>
    public static void Freeze(int process)
    {
        Send(process, Sigstop);
        while (IsAlive(process) && !Directory.EnumerateDirectories($"/proc/{process}/task").All(IsStopped)) Thread.Yield();
    }

    public static void Continue(int process) => Send(process, Sigcont);

    public static void Kill(int process) => Send(process, Sigkill);

    public static void Terminate(int process) => Send(process, Sigterm);

    /// <summary>False for a process that is gone, or dead and not yet collected.</summary>
    public static bool IsAlive(int process) => State($"/proc/{process.ToString(CultureInfo.InvariantCulture)}/stat") is not ('Z' or 'X' or '\0');

    // A thread that is ending is stopped as well as one can be.
    private static bool IsStopped(string task) => State(Path.Combine(task, "stat")) is 'T' or 't' or 'Z' or 'X' or '\0';

    private static char State(string path)
    {
        try
        {
            string stat = File.ReadAllText(path);
            return stat[stat.LastIndexOf(')') + 2];
        }
        catch (Exception e) when (e is IOException or UnauthorizedAccessException) { return '\0'; }
    }

    private static void Send(int process, int signal) => _ = kill(process, signal);

    [DllImport("libc", SetLastError = true)]
    private static extern int kill(int process, int signal);
}
