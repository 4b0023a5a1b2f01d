using static TorchSharp.torch;

namespace NopeGpt.Model.Replicas;

/// <summary>Chooses how replicas work together.</summary>
internal static class Collectives
{
    /// <param name="threads">Of libtorch's operators for each replica.</param>
    public static ICollective Between(IReadOnlyList<Device> devices, int threads) => new InProcessCollective(devices.Count, threads, "copies within the process");
}
