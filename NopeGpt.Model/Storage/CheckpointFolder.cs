using System.Runtime.InteropServices;

namespace NopeGpt.Model.Storage;

/// <summary>Writes a folder so that under its name it is there whole or not at all: everything goes into a temporary sibling, which is
/// flushed to the disk and then renamed.</summary>
internal static class CheckpointFolder
{
    private const string Prefix = ".", Suffix = ".tmp";

    /// <param name="fill">Writes the files into the folder that it is given.</param>
    public static void Write(string folder, Action<string> fill)
    {
        string full = Path.TrimEndingDirectorySeparator(Path.GetFullPath(folder));
        string parent = Path.GetDirectoryName(full) ?? throw new ArgumentException($"{folder} cannot be a checkpoint's folder: it has no parent.", nameof(folder));
        Directory.CreateDirectory(parent);
        string aside = Temporary(parent, full);
        try
        {
            Directory.CreateDirectory(aside);
            fill(aside);
            foreach (string file in Directory.EnumerateFiles(aside)) FlushFile(file);
            FlushFolder(aside);
            Replace(full, aside, parent);
            FlushFolder(parent);
        }
        catch
        {
            if (Directory.Exists(aside)) Directory.Delete(aside, recursive: true);
            throw;
        }
    }

    /// <summary>Renames a folder to a temporary name and deletes it.</summary>
    public static void Delete(string folder)
    {
        string full = Path.TrimEndingDirectorySeparator(Path.GetFullPath(folder)), aside = Temporary(Path.GetDirectoryName(full)!, full);
        Directory.Move(full, aside);
        Directory.Delete(aside, recursive: true);
    }

    /// <summary>Deletes what a crash in the middle of <see cref="Write"/> or <see cref="Delete"/> has left.</summary>
    public static void CleanTemporary(string parent)
    {
        if (!Directory.Exists(parent)) return;
        foreach (string folder in Directory.EnumerateDirectories(parent, Prefix + "*" + Suffix)) Directory.Delete(folder, recursive: true);
    }

    /// <summary>Deletes what <see cref="Write"/> has begun for this folder.</summary>
    public static void CleanTemporaryOf(string folder)
    {
        string full = Path.TrimEndingDirectorySeparator(Path.GetFullPath(folder)), parent = Path.GetDirectoryName(full)!;
        if (!Directory.Exists(parent)) return;
        foreach (string aside in Directory.EnumerateDirectories(parent, $"{Prefix}{Path.GetFileName(full)}.*{Suffix}")) Directory.Delete(aside, recursive: true);
    }

    // A folder cannot be renamed over one that has files. Only a step that is saved again (its first checkpoint was damaged) has one.
    private static void Replace(string full, string aside, string parent)
    {
        string? old = Directory.Exists(full) ? Temporary(parent, full) : null;
        if (old is not null) Directory.Move(full, old);
        Directory.Move(aside, full);
        if (old is not null) Directory.Delete(old, recursive: true);
    }

    private static string Temporary(string parent, string full) => Path.Combine(parent, $"{Prefix}{Path.GetFileName(full)}.{Guid.NewGuid():n}{Suffix}");

    private static void FlushFile(string path)
    {
        using FileStream stream = new(path, FileMode.Open, FileAccess.Write, FileShare.Read);
        stream.Flush(flushToDisk: true);
    }

    /// <summary>Brings the names in a folder to the disk: .NET opens no folders, and without this a power cut could lose the names though the data is there.</summary>
    internal static void FlushFolder(string path)
    {
        int descriptor = open(path, flags: 0);
        if (descriptor < 0) throw new IOException($"{path}: the folder cannot be opened to flush it (error {Marshal.GetLastPInvokeError()}).");
        try
        {
            const int unsupported = 22;
            if (fsync(descriptor) != 0 && Marshal.GetLastPInvokeError() is var error and not unsupported)
                throw new IOException($"{path}: the folder cannot be flushed to the disk (error {error}).");
        }
        finally
        {
            _ = close(descriptor);
        }
    }

    [DllImport("libc", SetLastError = true, CharSet = CharSet.Ansi, BestFitMapping = false, ThrowOnUnmappableChar = true)]
    private static extern int open([MarshalAs(UnmanagedType.LPUTF8Str)] string path, int flags);

    [DllImport("libc", SetLastError = true)]
    private static extern int fsync(int descriptor);

    [DllImport("libc")]
    private static extern int close(int descriptor);
}
