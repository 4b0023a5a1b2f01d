using System.Security.Cryptography;
using System.Text;

namespace NopeGpt.Data.Documents.Hub;

/// <summary>The folder of one data set's downloads. Files lie under their hashes, so that revisions share them. A file has its name only when it
/// is whole; processes keep out of each other's way by a lock on each, which the system takes back from a dead one.</summary>
internal sealed class HubCache
{
    private static readonly TimeSpan _firstLook = TimeSpan.FromMilliseconds(20), _lastLook = TimeSpan.FromSeconds(1);

    /// <summary>EWOULDBLOCK, which flock gives where another has the lock. Other errors, such as of a disk that cannot be written, do not pass by waiting.</summary>
    private const int WouldBlock = 11;

    private readonly string _folder;

    public HubCache(string root, string dataset) => _folder = Path.Combine(Path.GetFullPath(root), "datasets--" + dataset.Replace("/", "--", StringComparison.Ordinal));

    public string Blob(HubFile file) => Path.Combine(_folder, "blobs", file.Sha256 ?? file.Id);

    public string Part(HubFile file) => Blob(file) + ".part";

    /// <summary>Where an answer about a commit is kept; such an answer never changes.</summary>
    public string Answer(string commit, string kind) => Path.Combine(_folder, "commits", commit, kind + ".json");

    /// <summary>Where the commit is kept that a branch or tag meant when it was last asked.</summary>
    public string Reference(string revision) => Path.Combine(_folder, "refs", Convert.ToHexStringLower(SHA256.HashData(Encoding.UTF8.GetBytes(revision)))[..16]);

    /// <summary>Waits for the exclusive right to get a file.</summary>
    public async Task<IDisposable> LockAsync(HubFile file, TimeProvider time, CancellationToken cancel)
    {
        string path = Path.Combine(_folder, "locks", Path.GetFileName(Blob(file)) + ".lock");
        Directory.CreateDirectory(Path.GetDirectoryName(path)!);
        for (TimeSpan wait = _firstLook; ; wait = wait * 2 < _lastLook ? wait * 2 : _lastLook)
        {
            try
            {
                // An advisory lock on the open file (flock). The file itself stays: deleting it would let two have the lock.
                return new FileStream(path, FileMode.OpenOrCreate, FileAccess.ReadWrite, FileShare.None, 1);
            }
            catch (IOException busy) when (busy.HResult == WouldBlock)
            {
                await Task.Delay(wait, time, cancel).ConfigureAwait(false);
            }
        }
    }
}
