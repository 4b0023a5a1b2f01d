using System.Runtime.InteropServices;

namespace NopeGpt.Jobs;

/// <summary>Files under two names: a second name costs no room, and deleting one leaves the other.</summary>
internal static partial class LinkedFiles
{
    /// <summary>Gives the files of a folder a second name each in a new one; where the file system cannot do that, they are copied. Nothing that this project
    /// writes into a checkpoint is changed later, so sharing is safe.</summary>
    /// <exception cref="IOException">A file cannot be linked and not be copied either.</exception>
    public static void Share(string folder, string into)
    {
        Directory.CreateDirectory(into);
        foreach (string file in Directory.EnumerateFiles(folder))
        {
            string target = Path.Combine(into, Path.GetFileName(file));
            if (link(file, target) != 0) File.Copy(file, target);
        }
    }

    [LibraryImport("libc", SetLastError = true, StringMarshalling = StringMarshalling.Utf8)]
    private static partial int link(string from, string to);
}
