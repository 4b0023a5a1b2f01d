namespace NopeGpt.Model.Native;

/// <summary>TorchSharp's native half is built with GCC 13: it asks for GLIBCXX_3.4.32, which Debian 12 and Ubuntu 22.04 (GCC 12) lack.
/// The one symbol of that version (the start-up hook of iostreams) is listed but never used, no relocation refers to it, so a copy of the
/// library with that need marked as weak works there. The library itself is never written to: a build's outputs are hard links into the
/// package cache.</summary>
internal static class LibraryFit
{
    /// <summary>The only version that may be missing.</summary>
    public const string Unused = "GLIBCXX_3.4.32";

    /// <summary>The C++ runtime's file name.</summary>
    public const string CppRuntime = "libstdc++.so.6";

    /// <summary>The library as this machine needs it: null where it works as it is, else a changed copy.</summary>
    /// <param name="library">The bytes of TorchSharp's native library.</param>
    /// <param name="cppVersions">What the machine's C++ runtime defines.</param>
    /// <exception cref="TorchUnavailableException">The C++ runtime is older than a copy could make up for.</exception>
    public static byte[]? Fit(ReadOnlySpan<byte> library, IReadOnlyCollection<string> cppVersions)
    {
        string[] missing = [.. ElfVersions.Needed(library).Where(n => n.Library == CppRuntime && !n.Weak).Select(n => n.Version).Except(cppVersions)];
        if (missing.Length == 0) return null;
        if (missing is [Unused]) return ElfVersions.MarkWeak(library, CppRuntime, Unused);
        throw new TorchUnavailableException(
            $"This machine's C++ runtime ({CppRuntime}) is too old for libtorch, it lacks {string.Join(", ", missing.Where(v => v != Unused))}: use Debian 12, Ubuntu 22.04 or newer.");
    }

    /// <summary>Puts the copy where every later process of this user finds it again, and gives its path. The folder's name is the hash of
    /// the content; the file appears whole or not at all, also with two processes at once.</summary>
    /// <exception cref="IOException">The folder cannot be written to.</exception>
    /// <exception cref="UnauthorizedAccessException">The folder cannot be written to.</exception>
    public static string Store(byte[] library, string fileName, string cache)
    {
        string folder = Path.Combine(cache, Hash(library).ToString("x16"));
        string path = Path.Combine(folder, fileName);
        if (File.Exists(path) && File.ReadAllBytes(path).AsSpan().SequenceEqual(library)) return path;

        Directory.CreateDirectory(folder);
        string aside = $"{path}.{Guid.NewGuid():n}.tmp";
        try
        {
            using (FileStream stream = new(aside, FileMode.CreateNew, FileAccess.Write))
            {
                stream.Write(library);
                stream.Flush(flushToDisk: true);
            }
            File.Move(aside, path, overwrite: true);
        }
        finally
        {
            File.Delete(aside);
        }
        return path;
    }

    /// <summary>The versions of the C++ runtime that this process uses.</summary>
    /// <param name="memoryMap">The lines of /proc/self/maps, after the runtime was loaded.</param>
    /// <returns>Null where its file cannot be read any more (replaced by an upgrade since this process started).</returns>
    public static IReadOnlyCollection<string>? CppVersions(IEnumerable<string> memoryMap)
    {
        string? path = memoryMap.Select(MappedFile).FirstOrDefault(p => p is not null && Path.GetFileName(p).StartsWith(CppRuntime, StringComparison.Ordinal));
        return path is not null && File.Exists(path) ? ElfVersions.Defined(File.ReadAllBytes(path)) : null;
    }

    // FNV-1a, only to name the folder (the content is compared whole). .NET's SHA-256 would need OpenSSL, which small containers lack.
    private static ulong Hash(ReadOnlySpan<byte> bytes)
    {
        ulong hash = 14695981039346656037;
        foreach (byte b in bytes) hash = unchecked((hash ^ b) * 1099511628211);
        return hash;
    }

    // address perms offset dev inode   path
    private static string? MappedFile(string line)
    {
        int slash = line.IndexOf('/');
        return slash < 0 ? null : line[slash..];
    }
}
