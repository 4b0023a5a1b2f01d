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
        string path = Path.Combine(store.Root, "dashboard.lock");
        FileStream stream;
        try { stream = new FileStream(path, FileMode.OpenOrCreate, FileAccess.ReadWrite, FileShare.None); }
        catch (IOException)
        {
            throw new UserException($"another dashboard{Holder(path)} works on {store.Root}: close it first, or name another folder with Storage:Root");
        }
        stream.SetLength(0);
        stream.Write(System.Text.Encoding.ASCII.GetBytes(Environment.ProcessId.ToString(CultureInfo.InvariantCulture) + "\n"));
        stream.Flush();
        return new DashboardLock(stream);
    }

    public void Dispose() => held.Dispose();

    private static string Holder(string path)
    {
        try
        {
            // Sharing everything asks the system for no lock, so that the holder's file can be read.
            using FileStream stream = new(path, FileMode.Open, FileAccess.Read, FileShare.ReadWrite | FileShare.Delete);
            using StreamReader reader = new(stream);
            return reader.ReadLine() is { Length: > 0 } id ? $" (process {id})" : "";
        }
        catch (IOException) { return ""; }
    }
}
