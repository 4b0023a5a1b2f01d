using TorchSharp;
using static TorchSharp.torch;

namespace NopeGpt.Model.Replicas;

/// <summary>Chooses how replicas work together.</summary>
internal static class Collectives
{
    private const string Nccl = "libnccl.so.2", TorchCuda = "libtorch_cuda.so";

    /// <summary>NCCL for different NVIDIA GPUs where it is there, and copies otherwise. The description says which, and why.</summary>
    /// <param name="threads">Of libtorch's operators for each replica on a CPU.</param>
    public static ICollective Between(IReadOnlyList<Device> devices, int threads) => Between(devices, threads, NativeSource.Library);

    /// <param name="library">A library by its name; null where it cannot be loaded.</param>
    internal static ICollective Between(IReadOnlyList<Device> devices, int threads, Func<string, NativeSource?> library)
    {
        if (devices.Any(d => d.type != DeviceType.CUDA)) return Copies("copies within the process");
        int[] numbers = [.. devices.Select(d => Math.Max(0, d.index))];
        if (numbers.Distinct().Count() < numbers.Length) return Copies("device copies, as NCCL takes one replica on each GPU and here several share one");
        // libtorch's CUDA half has the runtime with it, and NCCL in or beside it.
        NativeSource? own = library(Nccl), torch = library(TorchCuda);
        NativeSource? nccl = new[] { own, torch }.FirstOrDefault(s => s is not null && s.FirstMissing(NcclFunctions.Needed) is null);
        if (nccl is null)
            return Copies($"device copies, which are slower than NCCL: {Missing(own, Nccl, NcclFunctions.Needed)}, and {Missing(torch, TorchCuda, NcclFunctions.Needed)}; install NCCL 2 (libnccl2) for it");
        if (torch?.FirstMissing(CudaFunctions.Needed) is not null || torch is null)
            return Copies($"device copies, which are slower than NCCL: {Missing(torch, TorchCuda, CudaFunctions.Needed)}");
        try { return new NcclCollective(numbers, new(nccl), new(torch), $"NCCL from {nccl.Name}"); }
        catch (InvalidOperationException e) { return Copies($"device copies, which are slower than NCCL: {e.Message}"); }

        InProcessCollective Copies(string description) => new(devices.Count, threads, description);
    }

    private static string Missing(NativeSource? source, string name, IEnumerable<string> functions) =>
        source is null ? $"{name} cannot be loaded" : $"{name} has no {source.FirstMissing(functions)}";
}
