namespace NopeGpt.Jobs.Queue;

/// <summary>A device of this machine as it is now; null is what is not known of it.</summary>
/// <param name="Id">As a run's `device` names it: cpu, cuda:0 ...</param>
/// <param name="Kind">cpu or cuda.</param>
/// <param name="Name">The maker's.</param>
/// <param name="TotalBytes">Its memory; of the CPU the machine's, or what this process's control group may take.</param>
/// <param name="FreeBytes">What nobody uses of it, be it a run of ours or another program.</param>
/// <param name="Utilization">Percent, 0 to 100.</param>
/// <param name="Temperature">Degrees Celsius.</param>
public sealed record DeviceView(string Id, string Kind, string Name, long? TotalBytes, long? FreeBytes, double? Utilization, double? Temperature, double? PowerWatts);

/// <summary>What a run gets to work on now, or why it gets nothing.</summary>
/// <param name="Devices">As many as the run has replicas, in their order; empty while it waits.</param>
/// <param name="Reason">One sentence for people, beginning with "waiting: "; null where it gets devices.</param>
/// <param name="Kept">Devices that are free and that this run needs beside others that are not: no run behind it should take them, or one that asks for several would
/// never find them free together.</param>
internal sealed record DeviceAnswer(IReadOnlyList<string> Devices, string? Reason, IReadOnlyList<string> Kept)
{
    public static DeviceAnswer Gets(params IReadOnlyList<string> devices) => new(devices, null, []);

    public static DeviceAnswer Waits(string reason, params IReadOnlyList<string> kept) => new([], "waiting: " + reason, kept);
}

/// <summary>The Hangfire queue of a device of this machine, with a server of its own.</summary>
/// <param name="Queue">Hangfire's name: small letters, digits, hyphens and underscores.</param>
/// <param name="Workers">Runs that it supervises at a time.</param>
internal sealed record DeviceSlot(string Queue, int Workers);
