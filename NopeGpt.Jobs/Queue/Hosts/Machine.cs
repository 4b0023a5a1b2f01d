namespace NopeGpt.Jobs.Queue.Hosts;

/// <summary>Where process numbers mean something: one start of one machine, and within it one container.</summary>
internal static class Machine
{
    /// <summary>Differs for each machine, each of its starts, and each process-number namespace; empty where the system does not tell.</summary>
    public static string Id { get; } = Find();

    private static string Find()
    {
        try { return $"{File.ReadAllText("/proc/sys/kernel/random/boot_id").Trim()} {File.ResolveLinkTarget("/proc/self/ns/pid", false)?.Name}"; }
        catch (Exception e) when (e is IOException or UnauthorizedAccessException) { return ""; }
    }
}
