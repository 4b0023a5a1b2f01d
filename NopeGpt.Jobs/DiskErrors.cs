namespace NopeGpt.Jobs;

/// <summary>What a full or forbidden disk looks like.</summary>
public static class DiskErrors
{
    // Linux's error numbers, which an IOException carries as they are.
    private const int NoSpaceLeft = 28, ReadOnlyFileSystem = 30, QuotaExceeded = 122;

    /// <summary>True where the disk is full or may not be written: <see cref="ExitCode.DiskFull"/>.</summary>
    public static bool IsUnwritable(Exception e) =>
        e is UnauthorizedAccessException or IOException { HResult: NoSpaceLeft or ReadOnlyFileSystem or QuotaExceeded };
}
