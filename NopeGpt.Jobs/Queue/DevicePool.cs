namespace NopeGpt.Jobs.Queue;

/// <summary>What runs work on, and so wait for. Each has a Hangfire queue and server of its own, with one worker.</summary>
/// <param name="Queue">Hangfire's name: small letters.</param>
/// <param name="Title">In a sentence: "the CPU".</param>
internal sealed record DeviceSlot(string Queue, string Title);

/// <summary>The slots of this machine: one for models and one for making data sets, tokenizers and exports, so that the next data set is made while a model trains.</summary>
internal static class DevicePool
{
    private static readonly DeviceSlot Device = new("device", File.Exists("/proc/driver/nvidia/version") ? "the GPU" : "the CPU");
    private static readonly DeviceSlot Preparation = new("preparation", "the place for preparation");

    public static IReadOnlyList<DeviceSlot> Slots { get; } = [Device, Preparation];

    public static DeviceSlot For(RunKind kind) => kind.NeedsDevice() ? Device : Preparation;
}
