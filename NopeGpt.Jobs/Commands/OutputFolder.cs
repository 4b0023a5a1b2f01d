using System.CommandLine;
using System.Text.Json;
using NopeGpt.Jobs.Inference.Http;
using NopeGpt.Model;

namespace NopeGpt.Jobs.Commands;

/// <summary>The folder that a command makes. One that is there already is refused before any work, unless it is empty.</summary>
internal static class OutputFolder
{
    // The temporary name beside it is longer, and file systems take 255 bytes.
    private const int LongestName = 200;

    public static Option<string?> Create(string description) => CommonOptions.Text("--out", "DIR", description, required: true);

    public static string Read(Arguments arguments, Option<string?> option)
    {
        if (arguments.Text(option) is not { } folder) return "";
        if (Problem(folder) is { } reason) arguments.Add(option.Name, folder, reason);
        // A link to an empty folder means that folder.
        return Directory.Exists(folder) ? new DirectoryInfo(folder).ResolveLinkTarget(returnFinalTarget: true)?.FullName ?? folder : folder;
    }

    /// <summary>Why a new folder cannot be made there; null where it can.</summary>
    public static string? Problem(string folder) =>
        folder.Trim().Length == 0 ? "name a new folder"
        : folder.Contains('\0') ? "cannot be a path: name a new folder"
        : File.Exists(folder) ? "a file has this name: name a new folder"
        : Path.GetFileName(Path.TrimEndingDirectorySeparator(folder)).Length > LongestName ? $"the name is longer than {LongestName} characters: choose a shorter one"
        : FileAbove(Path.GetFullPath(folder)) is { } file ? $"{file} is a file and no folder: name another place"
        : Directory.Exists(folder) && Directory.EnumerateFileSystemEntries(folder).Any() ? "the folder is there and not empty: name a new one"
        : null;

    /// <summary>Says what was made: a sentence on stderr, and with --json {folder, parameters, vocabulary_size} on stdout.</summary>
    public static void Tell(bool json, string folder, Decoder model, string sentence)
    {
        Console.Error.WriteLine(sentence);
        if (json) Console.WriteLine(JsonSerializer.Serialize(new { Folder = Path.GetFullPath(folder), Parameters = model.CountParameters(), model.Config.VocabularySize }, ReplyWriter.Json));
    }

    /// <summary>Makes the folder before the work, so that one that cannot be made costs none.</summary>
    public static ReservedFolder Reserve(string folder) => new(folder);

    private static string? FileAbove(string path)
    {
        for (string? above = Path.GetDirectoryName(path); above is not null; above = Path.GetDirectoryName(above))
            if (File.Exists(above)) return above;
        return null;
    }
}

/// <summary>A folder that was made, with those above it; disposed before it is kept, what is empty of them is deleted again.</summary>
internal sealed class ReservedFolder : IDisposable
{
    private readonly List<string> _made = [];

    public ReservedFolder(string folder)
    {
        for (string? path = Path.GetFullPath(folder); path is not null && !Directory.Exists(path); path = Path.GetDirectoryName(path)) _made.Add(path);
        Directory.CreateDirectory(folder);
    }

    public void Keep() => _made.Clear();

    public void Dispose()
    {
        try
        {
            foreach (string folder in _made) Directory.Delete(folder);
        }
        catch (IOException) { /* something else is in it by now */ }
    }
}
