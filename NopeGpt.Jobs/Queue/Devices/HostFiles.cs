using System.Globalization;

namespace NopeGpt.Jobs.Queue;

/// <summary>What Linux tells in files of a machine's processor, memory and driver.</summary>
/// <param name="root">The folder that stands for /; tests have their own.</param>
internal sealed class HostFiles(string root = "/")
{
    private const string Unlimited = "max";

    // One second of one core.
    private const int ShortestTicks = 100;

    private readonly Lock gate = new();
    private (long Busy, long All) sampled;
    private double? load;

    /// <summary>True where NVIDIA's driver is loaded.</summary>
    public bool HasNvidiaDriver => Directory.Exists(Path("proc/driver/nvidia"));

    /// <summary>For example "AMD EPYC 7R13 Processor"; not every kind of processor tells.</summary>
    public string CpuName => Lines("proc/cpuinfo").Select(l => l.Split(':', 2)).FirstOrDefault(p => p.Length == 2 && p[0].Trim() is "model name" or "Model" or "cpu model")?[1].Trim() is { Length: > 0 } name
        ? name : System.Runtime.InteropServices.RuntimeInformation.ProcessArchitecture.ToString();

    /// <summary>Bytes of memory: the machine's, or what its control group may take where that is less. Null where neither can be read.</summary>
    public (long Total, long Free)? Memory()
    {
        Dictionary<string, long> machine = Kilobytes("proc/meminfo");
        (long Total, long Free)? whole = machine.TryGetValue("MemTotal", out long total) && machine.TryGetValue("MemAvailable", out long free) ? (total, Math.Min(free, total)) : null;
        foreach ((long limit, long used) in Limits())
            whole = whole is var (all, left) ? (Math.Min(all, limit), Math.Min(left, Math.Max(0, limit - used))) : (limit, Math.Max(0, limit - used));
        return whole;
    }

    /// <summary>Bytes that a process has in memory; 0 for one that is gone.</summary>
    public long ResidentBytes(int processId) => Kilobytes(string.Create(CultureInfo.InvariantCulture, $"proc/{processId}/status")).GetValueOrDefault("VmRSS");

    /// <summary>Percent of all cores that were busy since the time before; null the first time.</summary>
    public double? Load()
    {
        long[] times = [.. (Lines("proc/stat").FirstOrDefault(l => l.StartsWith("cpu ", StringComparison.Ordinal)) ?? "").Split(' ', StringSplitOptions.RemoveEmptyEntries).Skip(1).Select(t => long.TryParse(t, out long v) ? v : 0)];
        if (times.Length < 5) return null;
        // Guests are in the first two already; idle and waiting for the disk are not busy.
        long all = times.Take(8).Sum(), busy = all - times[3] - times[4];
        lock (gate)
        {
            (long busyBefore, long allBefore) = sampled;
            // Two who ask one after the other get the same answer.
            if (all - allBefore < ShortestTicks && allBefore > 0) return load;
            load = allBefore == 0 ? null : Math.Clamp(100.0 * (busy - busyBefore) / (all - allBefore), 0, 100);
            sampled = (busy, all);
            return load;
        }
    }

    /// <summary>Limits of the memory of this process's control group and those above it, of both versions, with what they use; without what could be given back at once.</summary>
    private IEnumerable<(long Limit, long Used)> Limits()
    {
        foreach (string[] group in Lines("proc/self/cgroup").Select(l => l.Split(':', 3)).Where(g => g.Length == 3))
        {
            bool second = group[0] == "0" && group[1].Length == 0;
            if (!second && !group[1].Split(',').Contains("memory")) continue;
            string top = second ? "sys/fs/cgroup" : "sys/fs/cgroup/memory", reclaimable = second ? "inactive_file" : "total_inactive_file";
            (string limitFile, string usedFile) = second ? ("memory.max", "memory.current") : ("memory.limit_in_bytes", "memory.usage_in_bytes");
            // In a container its own group is mounted as the top, and the path that it has outside is not there.
            string[] names = group[2].Split('/', StringSplitOptions.RemoveEmptyEntries);
            for (int depth = names.Length; depth >= 0; depth--)
            {
                string folder = string.Join('/', [top, .. names.Take(depth)]);
                if (Number($"{folder}/{limitFile}") is not { } limit || Number($"{folder}/{usedFile}") is not { } used) continue;
                long given = Lines($"{folder}/memory.stat").Select(l => l.Split(' ')).FirstOrDefault(p => p.Length == 2 && p[0] == reclaimable) is { } line && long.TryParse(line[1], out long back) ? back : 0;
                yield return (limit, Math.Max(0, used - given));
            }
        }
    }

    private long? Number(string path) => Lines(path).FirstOrDefault() is { } text && text != Unlimited && long.TryParse(text, NumberStyles.None, CultureInfo.InvariantCulture, out long value) ? value : null;

    /// <summary>Lines of the form "Name:   123 kB", in bytes.</summary>
    private Dictionary<string, long> Kilobytes(string path)
    {
        Dictionary<string, long> values = [];
        foreach (string[] parts in Lines(path).Select(l => l.Split([':', ' ', '\t'], StringSplitOptions.RemoveEmptyEntries)))
            if (parts.Length == 3 && parts[2] == "kB" && long.TryParse(parts[1], NumberStyles.None, CultureInfo.InvariantCulture, out long kilobytes)) values[parts[0]] = kilobytes * 1024;
        return values;
    }

    private string[] Lines(string path)
    {
        try { return File.ReadAllLines(Path(path)); }
        catch (Exception e) when (e is IOException or UnauthorizedAccessException) { return []; }
    }

    private string Path(string path) => System.IO.Path.Combine(root, path);
}
