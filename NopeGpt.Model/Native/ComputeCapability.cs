using System.Runtime.InteropServices;
using TorchSharp;
using static TorchSharp.torch;

namespace NopeGpt.Model.Native;

/// <summary>The generation of an NVIDIA GPU, asked of the CUDA runtime that libtorch brings.</summary>
internal static unsafe class ComputeCapability
{
    // cudaDeviceAttr of the CUDA runtime's driver_types.h.
    private const int MajorAttribute = 75, MinorAttribute = 76;

    /// <summary>Null where nobody tells.</summary>
    public static (int Major, int Minor)? Of(Device device)
    {
        if (device.type != DeviceType.CUDA || !NativeLibrary.TryLoad(DeviceMemory.Library, out nint library) || !NativeLibrary.TryGetExport(library, "cudaDeviceGetAttribute", out nint function)) return null;
        int major, minor, index = Math.Max(0, device.index);
        delegate* unmanaged<int*, int, int, int> attribute = (delegate* unmanaged<int*, int, int, int>)function;
        return attribute(&major, MajorAttribute, index) == 0 && attribute(&minor, MinorAttribute, index) == 0 ? (major, minor) : null;
    }
}
