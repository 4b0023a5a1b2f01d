using System.Runtime.InteropServices;
using TorchSharp;

namespace NopeGpt.Model.Native;

/// <summary>How many threads libtorch's operators take when the current thread calls them. libtorch's own setting is the whole process's.</summary>
internal static unsafe class ThreadShare
{
    /// <summary>For the calling thread only. Where libtorch was built without one of the two libraries, that one has nothing to be told.</summary>
    public static void Set(int threads)
    {
        // What a thread calls first sets its number to the process's.
        _ = torch.get_num_threads();
        nint library = TorchRuntime.TorchCpu();
        if (NativeLibrary.TryGetExport(library, "omp_set_num_threads", out nint openMp)) ((delegate* unmanaged<int, void>)openMp)(threads);
        if (NativeLibrary.TryGetExport(library, "MKL_Set_Num_Threads_Local", out nint mkl)) _ = ((delegate* unmanaged<int, int>)mkl)(threads);
    }
}
