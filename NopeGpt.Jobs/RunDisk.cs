using NopeGpt.Model.Storage;

namespace NopeGpt.Jobs;

/// <summary>What a run takes on the disk.</summary>
public static class RunDisk
{
    private static readonly EnumerationOptions Inside = new() { RecurseSubdirectories = true, AttributesToSkip = FileAttributes.ReparsePoint, IgnoreInaccessible = true };

    /// <summary>Bytes of all files in a folder and below. Links to elsewhere count for nothing; a file that goes meanwhile, neither.</summary>
    public static long Bytes(string folder)
    {
        try { return new DirectoryInfo(folder).EnumerateFiles("*", Inside).Sum(Length); }
        catch (DirectoryNotFoundException) { return 0; }
    }

    /// <summary>The checkpoints that lie in a run's folder, newest first.</summary>
    public static IReadOnlyList<KeptCheckpoint> Checkpoints(RunFolder folder)
    {
        ArgumentNullException.ThrowIfNull(folder);
        IReadOnlyList<long> pinned = folder.ReadCard().Pinned;
        return [.. Checkpoint.List(folder.CheckpointsPath).Select(c => new KeptCheckpoint(c.Step, Path.GetRelativePath(folder.Path, c.Path), Bytes(c.Path), pinned.Contains(c.Step)))];
    }

    private static long Length(FileInfo file)
    {
        try { return file.Length; }
        catch (FileNotFoundException) { return 0; }
    }
}

/// <summary>A checkpoint on the disk.</summary>
/// <param name="Path">Relative to the run's folder: checkpoints/step-000000100.</param>
/// <param name="Pinned">It is never deleted by itself.</param>
public sealed record KeptCheckpoint(long Step, string Path, long Bytes, bool Pinned);
