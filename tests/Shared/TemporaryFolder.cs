namespace NopeGpt.Tests;

/// <summary>A folder of a test's own, deleted at the end.</summary>
public sealed class TemporaryFolder : IDisposable
{
    private const string Memory = "/dev/shm", Prefix = "nopegpt-test-";

    public TemporaryFolder() : this(Directory.CreateTempSubdirectory(Prefix).FullName)
    {
    }

    private TemporaryFolder(string path) => Path = path;

    public string Path { get; }

    public string this[string relative] => System.IO.Path.Combine(Path, relative);

    /// <summary>One without a disk where the system has such a place, for tests that write thousands of files.</summary>
    public static TemporaryFolder InMemory() =>
        Directory.Exists(Memory) ? new(Directory.CreateDirectory(System.IO.Path.Combine(Memory, Prefix + Guid.NewGuid().ToString("n"))).FullName) : new();

    public void Dispose()
    {
        try { Directory.Delete(Path, recursive: true); }
        catch (IOException) { /* a process of the test may still be closing its files; the folder is in the system's temporary place */ }
        catch (UnauthorizedAccessException) { }
    }
}
