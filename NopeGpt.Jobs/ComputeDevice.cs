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
        name.Contains(',') ? throw new UserException($"device {name}: one device is needed here, and only training takes several") : new(StartAll(torchLibrary, name)[0], threads);

    /// <summary>Loads libtorch and finds one or several devices.</summary>
    /// <param name="names">As for <see cref="Start"/>, or several joined by commas.</param>
    /// <inheritdoc cref="Start"/>
    public static IReadOnlyList<Device> StartAll(string? torchLibrary, string names)
    {
        TorchRuntime.Load(torchLibrary);
        int there = cuda.is_available() ? cuda.device_count() : 0;
        List<Device> devices = [];
        List<string> missing = [];
        foreach (string name in names.Split(','))
        {
            int index = name.StartsWith("cuda:", StringComparison.Ordinal) ? int.Parse(name["cuda:".Length..], CultureInfo.InvariantCulture) : 0;
            if (name == "cpu" || (name == "auto" && there == 0)) devices.Add(CPU);
            else if (index < there) devices.Add(device($"cuda:{index}"));
            else missing.Add(name);
        }
        if (missing.Count > 0)
            throw new UserException($"device{(missing.Count == 1 ? "" : "s")} {string.Join(" and ", missing)} {(missing.Count == 1 ? "is" : "are")} not there: libtorch sees {(there == 0 ? "no CUDA device" : $"{there} CUDA device(s)")}; use auto or cpu");
        return devices;
    }

    public int ThreadsFor(long parameters) =>
        Threads > 0 ? Threads : parameters < OneThreadParameters ? 1 : Environment.ProcessorCount;
}
