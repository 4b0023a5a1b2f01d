using System.Globalization;
using NopeGpt.Model.Native;
using TorchSharp;
using static TorchSharp.torch;

namespace NopeGpt.Model;

/// <summary>What a device computes with, as far as the choice of a type depends on it.</summary>
/// <param name="Name">In words.</param>
/// <param name="Units">Its units, in words.</param>
/// <param name="Narrow">Types narrower than float32 that the units multiply, and so faster.</param>
public sealed record ComputeUnits(string Name, string Units, IReadOnlyList<Precision> Narrow)
{
    /// <summary>No GPU.</summary>
    public bool IsCpu { get; init; }

    private const string CpuFacts = "/proc/cpuinfo";

    /// <summary>Asks the device.</summary>
    public static ComputeUnits Of(Device device)
    {
        if (device.type == DeviceType.CPU) return OfCpu(File.Exists(CpuFacts) ? File.ReadAllText(CpuFacts) : "");
        return device.type == DeviceType.CUDA && ComputeCapability.Of(device) is { } capability
            ? OfCuda(device.ToString(), capability.Major, capability.Minor)
            : new(device.ToString(), "no units that are known", []);
    }

    /// <param name="facts">The text of /proc/cpuinfo.</param>
    internal static ComputeUnits OfCpu(string facts)
    {
        string[] flags = facts.Split('\n').FirstOrDefault(l => l.StartsWith("flags", StringComparison.Ordinal))?.Split(' ', StringSplitOptions.RemoveEmptyEntries) ?? [];
        string[] units = [.. ((string[])["amx_bf16", "avx512_bf16", "amx_fp16", "avx512_fp16"]).Where(flags.Contains)];
        List<Precision> narrow = [];
        if (units.Any(u => u.EndsWith("bf16", StringComparison.Ordinal))) narrow.Add(Precision.Bfloat16);
        if (units.Any(u => u.EndsWith("fp16", StringComparison.Ordinal))) narrow.Add(Precision.Float16);
        return new("the CPU", units.Length == 0 ? "no units for narrow types" : string.Join(", ", units), narrow) { IsCpu = true };
    }

    /// <param name="major">Of the compute capability.</param>
    internal static ComputeUnits OfCuda(string name, int major, int minor)
    {
        // Tensor cores: float16 since Volta (7.0), bfloat16 since Ampere (8.0).
        Precision[] narrow = major >= 8 ? [Precision.Bfloat16, Precision.Float16] : major == 7 ? [Precision.Float16] : [];
        return new(name, string.Create(CultureInfo.InvariantCulture, $"compute capability {major}.{minor}{(narrow.Length == 0 ? " and no units for narrow types" : "")}"), narrow);
    }
}
