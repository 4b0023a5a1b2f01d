using System.Globalization;
using NopeGpt.Model.Native;
using static TorchSharp.torch;

namespace NopeGpt.Jobs;

/// <summary>What training and replies are computed on.</summary>
/// <param name="Threads">CPU threads that were asked for; 0 takes as many as suit the model.</param>
internal sealed record ComputeDevice(Device Device, int Threads)
{
    /// <summary>A model below this many parameters fits the caches of one core, and its operators are too short to be shared out.</summary>
    private const long OneThreadParameters = 8_000_000;

    /// <summary>The CPU, with libtorch loaded.</summary>
    public static ComputeDevice Cpu
    {
        get
        {
            TorchRuntime.Load();
            return new(CPU, 0);
        }
    }

    /// <summary>Loads libtorch and finds the device.</summary>
    /// <param name="name">auto, cpu, cuda or cuda:N. auto takes the first GPU that libtorch can use, else the CPU.</param>
    /// <exception cref="TorchUnavailableException">libtorch cannot be loaded.</exception>
    /// <exception cref="UserException">The device is not there.</exception>
    public static ComputeDevice Start(string? torchLibrary, string name, int threads) =>
        name.Contains(',') || name.Contains('*') ? throw new UserException($"device {name}: one device is needed here, and only training takes several") : new(StartAll(torchLibrary, name)[0], threads);

    /// <summary>Loads libtorch and finds one or several devices. GPUs have the numbers that nvidia-smi gives them.</summary>
    /// <param name="names">As for <see cref="Start"/>, several joined by commas, or cuda*N for the first N GPUs.</param>
    /// <inheritdoc cref="Start"/>
    public static IReadOnlyList<Device> StartAll(string? torchLibrary, string names)
    {
        DeviceRequest wanted = DeviceRequest.Parse(names) ?? throw new UserException($"device {names}: {DeviceRequest.Fault(names)}");
        TorchRuntime.Load(torchLibrary);
        int there = cuda.is_available() ? cuda.device_count() : 0;
        string seen = $"libtorch sees {(there == 0 ? "no CUDA device" : $"{there} CUDA device(s)")}; use auto or cpu";
        if (names.Contains('*', StringComparison.Ordinal))
        {
            return wanted.Count <= there ? [.. Enumerable.Range(0, wanted.Count).Select(Gpu)]
                : throw new UserException($"{names} asks for {wanted.Count} GPU{(wanted.Count == 1 ? "" : "s")}: {seen}");
        }
        List<Device> devices = [];
        List<string> missing = [];
        foreach (string name in names.Split(','))
        {
            int index = name.StartsWith("cuda:", StringComparison.Ordinal) ? int.Parse(name.AsSpan("cuda:".Length), CultureInfo.InvariantCulture) : 0;
            if (name == "cpu" || (name == "auto" && there == 0)) devices.Add(CPU);
            else if (index < there) devices.Add(Gpu(index));
            else missing.Add(name);
        }
        if (missing.Count > 0)
            throw new UserException($"device{(missing.Count == 1 ? "" : "s")} {string.Join(" and ", missing)} {(missing.Count == 1 ? "is" : "are")} not there: {seen}");
        return devices;

        static Device Gpu(int index) => device(DeviceRequest.Gpu(index));
    }

    public int ThreadsFor(long parameters) =>
        Threads > 0 ? Threads : parameters < OneThreadParameters ? 1 : Environment.ProcessorCount;
}
