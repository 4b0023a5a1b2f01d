using System.Globalization;
using NopeGpt.Model.Native;
using static TorchSharp.torch;

namespace NopeGpt.Jobs.Inference;

/// <summary>Starts libtorch in this process.</summary>
internal static class InferenceDevice
{
    /// <param name="name">auto, cpu, cuda or cuda:N. auto takes the first GPU that libtorch can use, else the CPU.</param>
    /// <param name="threads">CPU threads; 0 takes all cores.</param>
    /// <exception cref="TorchUnavailableException">libtorch cannot be loaded.</exception>
    /// <exception cref="UserException">The device is not there.</exception>
    public static Device Start(string? torchLibrary, string name, int threads)
    {
        TorchRuntime.Load(torchLibrary);
        TorchRuntime.SetThreads(threads == 0 ? Environment.ProcessorCount : threads);
        int devices = cuda.is_available() ? cuda.device_count() : 0;
        if (name == "cpu" || (name == "auto" && devices == 0)) return CPU;
        int index = name.StartsWith("cuda:", StringComparison.Ordinal) ? int.Parse(name["cuda:".Length..], CultureInfo.InvariantCulture) : 0;
        if (index >= devices)
            throw new UserException($"device {name} is not there: libtorch sees {(devices == 0 ? "no CUDA device" : $"{devices} CUDA device(s)")}; use auto or cpu");
        return device($"cuda:{index}");
    }
}
