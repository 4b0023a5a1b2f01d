using System.Runtime.InteropServices;

namespace NopeGpt.Jobs.Commands;

/// <summary>stdin and stdout as bytes.</summary>
internal static partial class StandardStreams
{
    private const int Output = 1;
    private const short Error = 0x8, HungUp = 0x10;

    /// <summary>Converts the lines of stdin to lines of stdout until its end.</summary>
    /// <param name="wanted">What a person at a terminal is asked for.</param>
    /// <returns>Lines in which something was replaced.</returns>
    /// <exception cref="UserException">A line is not of the right form; everything before it is written.</exception>
    public static async Task<long> FilterAsync(Func<LineConverter> converter, string wanted, CancellationToken cancel)
    {
        if (!Console.IsInputRedirected) await Console.Error.WriteLineAsync($"Type {wanted}; Ctrl+D ends.");
        using Stream input = Console.OpenStandardInput(), output = Console.OpenStandardOutput();
        LineFilter filter = new(input, output, converter, OutputIsGone);
        await filter.RunAsync(cancel);
        return filter.Counts.Repaired;
    }

    /// <summary>Whether the program that read our output has ended, as `head` does. .NET hides this, and would go on forever with an endless input.</summary>
    private static bool OutputIsGone()
    {
        PollFd stdout = new() { Fd = Output };
        return poll(ref stdout, 1, 0) > 0 && (stdout.Found & (Error | HungUp)) != 0;
    }

    [LibraryImport("libc")]
    private static partial int poll(ref PollFd files, nuint count, int milliseconds);

    [StructLayout(LayoutKind.Sequential)]
    private struct PollFd
    {
        public int Fd;
        public short Wanted, Found;
    }
}
