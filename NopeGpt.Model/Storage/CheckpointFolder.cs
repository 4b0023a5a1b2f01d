using System.Runtime.InteropServices;

namespace NopeGpt.Model.Storage;

/// <summary>Writes a folder so that under its name it is there whole or not at all: everything goes into a temporary sibling, which is
/// flushed to the disk and then renamed. Where the name is taken the two change places in one step, so that a kill loses neither.</summary>
internal static class CheckpointFolder
{
    private const string Prefix = ".", Unfinished = ".tmp", Replaced = ".old";

    /// <param name="fill">Writes the files into the folder that it is given.</param>
    public static void Write(string folder, Action<string> fill)
    {
        string full = Path.TrimEndingDirectorySeparator(Path.GetFullPath(folder));
        string parent = Path.GetDirectoryName(full) ?? throw new ArgumentException($"{folder} cannot be a checkpoint's folder: it has no parent.", nameof(folder));
        Directory.CreateDirectory(parent);
        string aside = Aside(parent, full, Unfinished);
        try
        {
            Directory.CreateDirectory(aside);
            fill(aside);
            foreach (string file in Directory.EnumerateFiles(aside)) FlushFile(file);
            FlushFolder(aside);
            string? old = PutInPlace(aside, full, Exchange);
            FlushFolder(parent);
            if (old is not null) Directory.Delete(old, recursive: true);
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
        string full = Path.TrimEndingDirectorySeparator(Path.GetFullPath(folder)), aside = Aside(Path.GetDirectoryName(full)!, full, Unfinished);
        Directory.Move(full, aside);
        Directory.Delete(aside, recursive: true);
    }

    /// <summary>Deletes what a crash in the middle of <see cref="Write"/> or <see cref="Delete"/> has left, and gives a folder its name back that
    /// was to be replaced and is not.</summary>
    public static void CleanTemporary(string parent) => Clean(parent, "*");

    /// <summary>As <see cref="CleanTemporary"/>, of what <see cref="Write"/> has begun for this folder.</summary>
    public static void CleanTemporaryOf(string folder)
    {
        string full = Path.TrimEndingDirectorySeparator(Path.GetFullPath(folder));
        Clean(Path.GetDirectoryName(full)!, Path.GetFileName(full) + ".*");
    }

    private static void Clean(string parent, string names)
    {
        if (!Directory.Exists(parent)) return;
        foreach (string old in Directory.EnumerateDirectories(parent, Prefix + names + Replaced))
        {
            string full = Path.Combine(parent, Path.GetFileNameWithoutExtension(Path.GetFileNameWithoutExtension(old))[Prefix.Length..]);
            if (Directory.Exists(full)) Directory.Delete(old, recursive: true);
            else Directory.Move(old, full);
        }
        foreach (string folder in Directory.EnumerateDirectories(parent, Prefix + names + Unfinished)) Directory.Delete(folder, recursive: true);
    }

    /// <summary>Gives a finished folder its name. A folder cannot be renamed over one that has files, which a step that is saved again meets.</summary>
    /// <param name="exchange">Makes two folders change places in one step; false where the file system cannot. Then the old one gets a name by which
    /// <see cref="CleanTemporary"/> knows it.</param>
    /// <returns>Where the folder lies now that had the name; null where none had.</returns>
    internal static string? PutInPlace(string aside, string full, Func<string, string, bool> exchange)
    {
        if (!Directory.Exists(full))
        {
            Directory.Move(aside, full);
            return null;
        }
        if (exchange(aside, full)) return aside;
        string old = Aside(Path.GetDirectoryName(full)!, full, Replaced);
        Directory.Move(full, old);
        try
        {
            Directory.Move(aside, full);
        }
        catch
        {
            Directory.Move(old, full);
            throw;
        }
        return old;
    }

    internal static bool Exchange(string one, string other)
    {
        const int here = -100;
        const uint exchange = 2;
        try { return OperatingSystem.IsLinux() && renameat2(here, one, here, other, exchange) == 0; }
        catch (EntryPointNotFoundException) { return false; }
    }

    private static string Aside(string parent, string full, string suffix) => Path.Combine(parent, $"{Prefix}{Path.GetFileName(full)}.{Guid.NewGuid():n}{suffix}");

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

    [DllImport("libc", SetLastError = true, CharSet = CharSet.Ansi, BestFitMapping = false, ThrowOnUnmappableChar = true)]
    private static extern int renameat2(int fromFolder, [MarshalAs(UnmanagedType.LPUTF8Str)] string from, int toFolder, [MarshalAs(UnmanagedType.LPUTF8Str)] string to, uint flags);

    [DllImport("libc", SetLastError = true)]
    private static extern int fsync(int descriptor);

    [DllImport("libc")]
    private static extern int close(int descriptor);
}
