namespace NopeGpt.Tests;

/// <summary>A folder of a test's own, deleted at the end.</summary>
public sealed class TemporaryFolder : IDisposable
{
    public string Path { get; } = Directory.CreateTempSubdirectory("nopegpt-test-").FullName;

    public string this[string relative] => System.IO.Path.Combine(Path, relative);

    public void Dispose()
    {
        try { Directory.Delete(Path, recursive: true); }
        catch (IOException) { /* a process of the test may still be closing its files; the folder is in the system's temporary place */ }
        catch (UnauthorizedAccessException) { }
    }
}
