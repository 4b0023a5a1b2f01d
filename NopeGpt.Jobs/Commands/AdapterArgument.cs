namespace NopeGpt.Jobs.Commands;

/// <summary>How a command names an adapter.</summary>
internal static class AdapterArgument
{
    /// <returns>The folder; null where none was given or it is not there, which is added to the problems.</returns>
    public static string? Read(Arguments arguments, string field, string? folder)
    {
        if (folder is null || Directory.Exists(folder)) return folder;
        arguments.Add(field, folder, "there is no such folder: name the folder of an adapter");
        return null;
    }
}
