using System.CommandLine;

namespace NopeGpt.Jobs.Commands;

/// <summary>The folder that a command makes. One that is there already is refused before any work, unless it is empty.</summary>
internal static class OutputFolder
{
    public static Option<string?> Create(string description) => CommonOptions.Text("--out", "DIR", description, required: true);

    public static string Read(Arguments arguments, Option<string?> option)
    {
        if (arguments.Text(option) is not { } folder) return "";
        if (folder.Trim().Length == 0) arguments.Add(option.Name, folder, "name a new folder");
        else if (File.Exists(folder)) arguments.Add(option.Name, folder, "a file has this name: name a new folder");
        else if (Directory.Exists(folder) && Directory.EnumerateFileSystemEntries(folder).Any()) arguments.Add(option.Name, folder, "the folder is there and not empty: name a new one");
        return folder;
    }
}
