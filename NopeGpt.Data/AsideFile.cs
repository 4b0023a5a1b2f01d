namespace NopeGpt.Data;

/// <summary>A file that is written under a temporary name beside its own and renamed when complete; disposed before that, it is deleted.
/// So there is never half a file under the final name.</summary>
internal sealed class AsideFile : IDisposable
{
    private readonly string _path;
    private readonly string _temporary;
    private bool _complete;

    public AsideFile(string path)
    {
        _path = Path.GetFullPath(path);
        _temporary = $"{_path}.{Guid.NewGuid():N}.tmp";
        Directory.CreateDirectory(Path.GetDirectoryName(_path)!);
        Stream = new FileStream(_temporary, FileMode.CreateNew, FileAccess.ReadWrite, FileShare.Read, 1 << 16);
    }

    public FileStream Stream { get; }

    /// <summary>Flushes to the disk and renames over whatever has the final name.</summary>
    public void Complete()
    {
        Stream.Flush(flushToDisk: true);
        Stream.Dispose();
        File.Move(_temporary, _path, overwrite: true);
        _complete = true;
    }

    public void Dispose()
    {
        if (_complete) return;
        try { Stream.Dispose(); }
        catch (IOException) { /* a full disk: what could not be flushed is thrown away anyhow */ }
        File.Delete(_temporary);
    }
}
