using System.Diagnostics;

namespace NopeGpt.Jobs.Tests.Faults;

/// <summary>A trainer.log that takes no more lines from some time on: a pipe that is full. Whoever writes one stands still there, which is a place in the code
/// that no look from outside would meet in time.</summary>
internal sealed class HeldLog : IDisposable
{
    private const int MostBytes = 1 << 20;
    private readonly string path;
    private readonly FileStream filling, emptying;
    private Task? filler;

    public HeldLog(RunFolder run)
    {
        path = run.LogPath;
        using (Process make = Process.Start("mkfifo", [path])) make.WaitForExit();
        (filling, emptying) = (Open(), Open());
    }

    /// <summary>From now on the next line waits.</summary>
    public void Hold() => filler ??= Task.Factory.StartNew(Fill, TaskCreationOptions.LongRunning);

    /// <summary>Puts an ordinary file in its place, while nobody writes.</summary>
    public void Replace()
    {
        File.Delete(path);
        File.WriteAllText(path, "");
    }

    public void Dispose()
    {
        byte[] rest = new byte[1 << 16];
        while (filler is { IsCompleted: false })
        {
            // Each part that is read lets the filler write another, up to its end.
            _ = emptying.Read(rest);
            filler.Wait(TimeSpan.FromMilliseconds(1));
        }
        filling.Dispose();
        emptying.Dispose();
    }

    private FileStream Open() => new(path, FileMode.Open, FileAccess.ReadWrite, FileShare.ReadWrite | FileShare.Delete, bufferSize: 0);

    private void Fill()
    {
        byte[] part = new byte[256];
        for (int written = 0; written < MostBytes; written += part.Length) filling.Write(part);
    }
}
