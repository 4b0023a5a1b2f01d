using System.Runtime.InteropServices;
using TorchSharp;
using static TorchSharp.torch;

namespace NopeGpt.Model.Native;

/// <summary>The memory of an NVIDIA GPU, asked of the CUDA runtime that libtorch brings.</summary>
public static unsafe class DeviceMemory
{
    /// <summary>Depends on the CUDA runtime, whose own file has another name in each package.</summary>
    internal const string Library = "libc10_cuda.so";

    private static readonly Lazy<Functions?> Cuda = new(Functions.Find);

    /// <summary>Bytes in use on the device, by all processes; null for a CPU, or where nobody tells.</summary>
    public static long? Used(Device device)
    {
        if (device.type != DeviceType.CUDA || Cuda.Value is not { } cuda) return null;
        int before;
        nuint free, total;
        if (cuda.GetDevice(&before) != 0 || cuda.SetDevice(Math.Max(0, device.index)) != 0) return null;
        bool told = cuda.MemGetInfo(&free, &total) == 0;
        return cuda.SetDevice(before) == 0 && told ? (long)(total - free) : null;
    }

    private sealed class Functions
    {
        public readonly delegate* unmanaged<int*, int> GetDevice;
        public readonly delegate* unmanaged<int, int> SetDevice;
        public readonly delegate* unmanaged<nuint*, nuint*, int> MemGetInfo;

        private Functions(nint get, nint set, nint info)
        {
            GetDevice = (delegate* unmanaged<int*, int>)get;
            SetDevice = (delegate* unmanaged<int, int>)set;
            MemGetInfo = (delegate* unmanaged<nuint*, nuint*, int>)info;
        }

        /// <summary>A library's exports are looked for in what it depends on, too.</summary>
        public static Functions? Find() =>
            NativeLibrary.TryLoad(Library, out nint library) && NativeLibrary.TryGetExport(library, "cudaGetDevice", out nint get)
            && NativeLibrary.TryGetExport(library, "cudaSetDevice", out nint set) && NativeLibrary.TryGetExport(library, "cudaMemGetInfo", out nint info)
                ? new(get, set, info)
                : null;
    }
}
