using System.Globalization;

namespace NopeGpt.Jobs.Queue;

/// <summary>The right of one dashboard to work on a store. The system takes it back with the process, however that ends.</summary>
internal sealed class DashboardLock : IDisposable
{
    private static readonly TimeSpan Patience = TimeSpan.FromSeconds(2), LookEvery = TimeSpan.FromMilliseconds(20);
    private readonly FileStream held;

    private DashboardLock(FileStream held) => this.held = held;

    /// <exception cref="UserException">Another dashboard has it, or the store cannot be written.</exception>
    public static async Task<DashboardLock> TakeAsync(Store store, CancellationToken cancel)
    {
        // Who holds the lock says so in a file of its own: one that is locked cannot be read.
        string holder = Path.Combine(store.Root, "dashboard.pid");
        FileStream stream;
        try { stream = new FileStream(Path.Combine(store.Root, "dashboard.lock"), FileMode.OpenOrCreate, FileAccess.ReadWrite, FileShare.None); }
        catch (Exception e) when (DiskErrors.IsUnwritable(e)) { throw Unwritable(store, e); }
        catch (IOException)
        {
            string process = await HolderAsync(holder, cancel).ConfigureAwait(false) is { } id ? $" (process {id})" : "";
            throw new UserException($"another dashboard{process} works on {store.Root}: close it first, or name another folder with Storage:Root");
        }
        try
        {
            TrainerIdentity self = TrainerProcess.Self();
            await File.WriteAllTextAsync(holder, string.Create(CultureInfo.InvariantCulture, $"{self.ProcessId} {self.StartTicks}\n"), cancel).ConfigureAwait(false);
            return new DashboardLock(stream);
        }
        catch (Exception e)
        {
            await stream.DisposeAsync().ConfigureAwait(false);
            if (e is IOException or UnauthorizedAccessException) throw Unwritable(store, e);
            throw;
        }
    }

    public void Dispose() => held.Dispose();

    private static UserException Unwritable(Store store, Exception e) =>
        new($"the storage root {store.Root} cannot be written ({e.Message.TrimEnd('.')}): make room, mend its rights, or name another folder with Storage:Root", ExitCode.DiskFull);

    /// <summary>One that has just begun names itself a moment later; until then the file names a dashboard that is gone. Null where nobody names himself in time.</summary>
    private static async Task<string?> HolderAsync(string path, CancellationToken cancel)
    {
        long start = TimeProvider.System.GetTimestamp();
        while (TimeProvider.System.GetElapsedTime(start) < Patience)
        {
            if (Read(path) is { } identity && TrainerProcess.IsAlive(identity)) return identity.ProcessId.ToString(CultureInfo.InvariantCulture);
            await Task.Delay(LookEvery, cancel).ConfigureAwait(false);
        }
        return null;
    }

    private static TrainerIdentity? Read(string path)
    {
        try
        {
            // Whole only with the end of its line.
            string[] words = File.ReadAllText(path).Split(' ', '\n');
            return words is [var id, var ticks, ""] && int.TryParse(id, out int process) && long.TryParse(ticks, out long start) ? new TrainerIdentity(process, start) : null;
        }
        catch (Exception e) when (e is IOException or UnauthorizedAccessException) { return null; }
    }
}
