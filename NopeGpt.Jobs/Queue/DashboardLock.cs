using System.Globalization;

namespace NopeGpt.Jobs.Queue;

/// <summary>The right of one dashboard to work on a store. The system takes it back with the process, however that ends.</summary>
internal sealed class DashboardLock : IDisposable
{
    private readonly FileStream held;

    private DashboardLock(FileStream held) => this.held = held;

    /// <exception cref="UserException">Another dashboard has it.</exception>
    public static DashboardLock Take(Store store)
    {
        // The number lies in a file of its own: one that is locked cannot be read.
        string number = Path.Combine(store.Root, "dashboard.pid");
        FileStream stream;
        try { stream = new FileStream(Path.Combine(store.Root, "dashboard.lock"), FileMode.OpenOrCreate, FileAccess.ReadWrite, FileShare.None); }
        catch (IOException)
        {
            throw new UserException($"another dashboard{Holder(number)} works on {store.Root}: close it first, or name another folder with Storage:Root");
        }
        File.WriteAllText(number, Environment.ProcessId.ToString(CultureInfo.InvariantCulture) + "\n");
        return new DashboardLock(stream);
    }

    public void Dispose() => held.Dispose();

    private static string Holder(string path)
    {
        try { return File.ReadAllText(path).Trim() is { Length: > 0 } id ? $" (process {id})" : ""; }
        catch (IOException) { return ""; }
    }
}
