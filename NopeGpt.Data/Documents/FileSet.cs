using System.IO.Enumeration;

namespace NopeGpt.Data.Documents;

/// <summary>Finds the files that a path, a folder or a pattern means, in an order that does not depend on the machine.</summary>
internal static class FileSet
{
    private static readonly System.Buffers.SearchValues<char> _wild = System.Buffers.SearchValues.Create("*?");

    /// <summary>The files, sorted by path. A folder means every file below it that has a known ending, but for hidden ones.</summary>
    /// <exception cref="FileNotFoundException">Nothing is there; the message says what was looked for.</exception>
    /// <exception cref="ArgumentException">A single file has no known ending.</exception>
    public static IReadOnlyList<SourceFile> Find(string path)
    {
        ArgumentException.ThrowIfNullOrEmpty(path);
        if (File.Exists(path)) return [SourceFile.Local(path)];
        if (Directory.Exists(path))
        {
            string[] below = [.. Below(path).Where(p => SourceFile.FormatOf(p) is not null)];
            return below.Length > 0 ? [.. below.Select(SourceFile.Local)]
                : throw new FileNotFoundException($"The folder {path} holds no file that ends in {SourceFile.KnownEndings} (or one of these with .gz or .zst behind it).", path);
        }
        if (!path.AsSpan().ContainsAny(_wild)) throw new FileNotFoundException($"The file or folder {path} does not exist; give a path, a folder or a pattern such as data/*.jsonl.gz.", path);
        string[] matching = [.. Matching(path).Where(p => SourceFile.FormatOf(p) is not null)];
        return matching.Length > 0 ? [.. matching.Select(SourceFile.Local)]
            : throw new FileNotFoundException($"No file matches {path} and ends in {SourceFile.KnownEndings} (or one of these with .gz or .zst behind it).", path);
    }

    /// <summary>Whether a path with / between its parts matches a pattern: * and ? stay within a part, ** is any number of parts.</summary>
    public static bool Matches(string pattern, string path) => Matches(pattern.Split('/'), path.Split('/'));

    private static bool Matches(ReadOnlySpan<string> pattern, ReadOnlySpan<string> path)
    {
        if (pattern.IsEmpty) return path.IsEmpty;
        if (pattern[0] == "**")
        {
            for (int skipped = 0; skipped <= path.Length; skipped++)
                if (Matches(pattern[1..], path[skipped..])) return true;
            return false;
        }
        return !path.IsEmpty && FileSystemName.MatchesSimpleExpression(pattern[0], path[0], ignoreCase: false) && Matches(pattern[1..], path[1..]);
    }

    private static IEnumerable<string> Matching(string pattern)
    {
        string[] parts = pattern.Split('/');
        int fixedParts = Array.FindIndex(parts, p => p.AsSpan().ContainsAny(_wild));
        string root = string.Join('/', parts[..fixedParts]);
        string folder = root.Length > 0 ? root : pattern.StartsWith('/') ? "/" : ".";
        if (!Directory.Exists(folder)) return [];
        string[] wild = parts[fixedParts..];
        // Without ** nothing deeper than the pattern can match.
        int depth = wild.Contains("**") ? int.MaxValue : wild.Length;
        return Below(folder, depth).Where(p => Matches(wild, Path.GetRelativePath(folder, p).Split('/'))).Select(p => root.Length > 0 || pattern.StartsWith('/') ? p : Path.GetRelativePath(".", p));
    }

    private static List<string> Below(string folder, int depth = int.MaxValue)
    {
        List<string> files = [];
        Collect(folder, depth, files, []);
        files.Sort(StringComparer.Ordinal);
        return files;
    }

    /// <param name="above">Where the folders really are that this one is in: a link may lead back to one of them.</param>
    private static void Collect(string folder, int depth, List<string> files, HashSet<string> above)
    {
        string real = Real(folder);
        if (!above.Add(real)) return;
        foreach (FileSystemInfo entry in new DirectoryInfo(folder).EnumerateFileSystemInfos())
        {
            if (entry.Name.StartsWith('.')) continue;
            string path = Path.Combine(folder, entry.Name);
            if (File.Exists(path)) files.Add(path);
            else if (depth > 1 && Directory.Exists(path)) Collect(path, depth - 1, files, above);
        }
        above.Remove(real);
    }

    /// <summary>A folder's path without links.</summary>
    private static string Real(string folder)
    {
        string path = Path.GetFullPath(folder);
        string? parent = Path.GetDirectoryName(path);
        if (parent is null) return path;
        FileSystemInfo? target = new DirectoryInfo(path).ResolveLinkTarget(returnFinalTarget: true);
        return target is null ? Path.Combine(Real(parent), Path.GetFileName(path)) : Real(target.FullName);
    }
}
