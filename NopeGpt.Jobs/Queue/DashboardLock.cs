using System.Globalization;

namespace NopeGpt.Jobs.Queue;

/// <summary>The right to work on a store as the only one: a dashboard has it for its life, a command for a moment. The system takes it back with the process,
/// however that ends.</summary>
internal sealed class DashboardLock : IDisposable
{
    private const string CommandWord = "command";

    /// <summary>A command has it only while it puts the table in order.</summary>
    private static readonly TimeSpan CommandPatience = TimeSpan.FromSeconds(20);

    private static readonly TimeSpan Patience = TimeSpan.FromSeconds(2), LookEvery = TimeSpan.FromMilliseconds(20);
    private readonly FileStream held;

    private DashboardLock(FileStream held) => this.held = held;

    /// <summary>For a dashboard. A command that has it is waited for.</summary>
    /// <exception cref="UserException">Another dashboard has it, or the store cannot be written.</exception>
    public static async Task<DashboardLock> TakeAsync(Store store, CancellationToken cancel)
    {
        (DashboardLock? taken, string process) = await TakeAsync(store, forCommand: false, cancel).ConfigureAwait(false);
        return taken ?? throw new UserException($"another dashboard{process} works on {store.Root}: close it first, or name another folder with Storage:Root");
    }

    /// <summary>For a command. Another command that has it is waited for.</summary>
    /// <returns>Null where a dashboard has it, with its process in brackets where that is known.</returns>
    /// <exception cref="UserException">The store cannot be written.</exception>
    public static Task<(DashboardLock? Taken, string Process)> TryTakeAsync(Store store, CancellationToken cancel) => TakeAsync(store, forCommand: true, cancel);

    public void Dispose() => held.Dispose();

    private static async Task<(DashboardLock? Taken, string Process)> TakeAsync(Store store, bool forCommand, CancellationToken cancel)
    {
        // Who holds the lock says so in a file of its own: one that is locked cannot be read.
        string holder = Path.Combine(store.Root, "dashboard.pid");
        long start = TimeProvider.System.GetTimestamp();
        FileStream stream;
        while (true)
        {
            try
            {
                stream = new FileStream(Path.Combine(store.Root, "dashboard.lock"), FileMode.OpenOrCreate, FileAccess.ReadWrite, FileShare.None);
                break;
            }
            catch (Exception e) when (DiskErrors.IsUnwritable(e)) { throw Unwritable(store, e); }
            catch (IOException)
            {
                (int? process, bool isCommand) = await HolderAsync(holder, cancel).ConfigureAwait(false);
                if (!isCommand || TimeProvider.System.GetElapsedTime(start) > CommandPatience) return (null, process is { } id ? $" (process {id})" : "");
                await Task.Delay(LookEvery, cancel).ConfigureAwait(false);
            }
        }
        try
        {
            TrainerIdentity self = TrainerProcess.Self();
            await File.WriteAllTextAsync(holder, string.Create(CultureInfo.InvariantCulture, $"{self.ProcessId} {self.StartTicks}{(forCommand ? " " + CommandWord : "")}\n"), cancel).ConfigureAwait(false);
            return (new DashboardLock(stream), "");
        }
        catch (Exception e)
        {
            await stream.DisposeAsync().ConfigureAwait(false);
            if (e is IOException or UnauthorizedAccessException) throw Unwritable(store, e);
            throw;
        }
    }

    private static UserException Unwritable(Store store, Exception e) =>
        new($"the storage root {store.Root} cannot be written ({e.Message.TrimEnd('.')}): make room, mend its rights, or name another folder with Storage:Root", ExitCode.DiskFull);

    /// <summary>One that has just begun names itself a moment later; until then the file names one that is gone. Null where nobody names himself in time.</summary>
    private static async Task<(int? Process, bool IsCommand)> HolderAsync(string path, CancellationToken cancel)
    {
        long start = TimeProvider.System.GetTimestamp();
        while (TimeProvider.System.GetElapsedTime(start) < Patience)
        {
            if (Read(path) is var (identity, isCommand) && TrainerProcess.IsAlive(identity)) return (identity.ProcessId, isCommand);
            // Whoever held it may be gone by now, and a dead command is none to wait for long: the lock is tried again.
            if (Read(path) is (_, true)) return (null, true);
            await Task.Delay(LookEvery, cancel).ConfigureAwait(false);
        }
        return (null, false);
    }

    private static (TrainerIdentity Identity, bool IsCommand)? Read(string path)
    {
        try
        {
            // Whole only with the end of its line.
            string[] words = File.ReadAllText(path).Split(' ', '\n');
            return words is [var id, var ticks, .. [] or [CommandWord], ""] && int.TryParse(id, out int process) && long.TryParse(ticks, out long start)
                ? (new TrainerIdentity(process, start), words.Length == 4) : null;
        }
        catch (Exception e) when (e is IOException or UnauthorizedAccessException) { return null; }
    }
}
