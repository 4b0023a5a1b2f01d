using System.Globalization;
using System.Runtime.InteropServices;
using NopeGpt.Model.Native;
using static TorchSharp.torch;

namespace NopeGpt.Jobs.Inference;

/// <summary>What replies are computed on.</summary>
/// <param name="Threads">CPU threads that were asked for; 0 takes as many as suit the model.</param>
internal sealed partial record InferenceDevice(Device Device, int Threads)
{
    /// <summary>A model below this many parameters fits the caches of one core, and its operators are too short to be shared out.</summary>
    private const long OneThreadParameters = 8_000_000;

    /// <summary>The CPU, with libtorch loaded.</summary>
    public static InferenceDevice Cpu
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
    public static InferenceDevice Start(string? torchLibrary, string name, int threads)
    {
        // libtorch's threads wait for each other some dozen times a token. Where another program (a training run) has the cores, waiting
        // busily made tokens 10 to 20 times slower; sleeping costs little where the cores are free. libgomp reads it when it is loaded.
        _ = SetEnvironment("OMP_WAIT_POLICY", "passive", overwrite: 0);
        TorchRuntime.Load(torchLibrary);
        int devices = cuda.is_available() ? cuda.device_count() : 0;
        if (name == "cpu" || (name == "auto" && devices == 0)) return new(CPU, threads);
        int index = name.StartsWith("cuda:", StringComparison.Ordinal) ? int.Parse(name["cuda:".Length..], CultureInfo.InvariantCulture) : 0;
        if (index >= devices)
            throw new UserException($"device {name} is not there: libtorch sees {(devices == 0 ? "no CUDA device" : $"{devices} CUDA device(s)")}; use auto or cpu");
        return new(device($"cuda:{index}"), threads);
    }

    public int ThreadsFor(long parameters) =>
        Threads > 0 ? Threads : parameters < OneThreadParameters ? 1 : Environment.ProcessorCount;

    // .NET's own changes only its copy of the environment.
    [LibraryImport("libc", EntryPoint = "setenv", StringMarshalling = StringMarshalling.Utf8)]
    private static partial int SetEnvironment(string name, string value, int overwrite);
}
