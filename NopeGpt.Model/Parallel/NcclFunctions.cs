using System.Runtime.InteropServices;

namespace NopeGpt.Model.Replicas;

/// <summary>Where native functions are looked up.</summary>
/// <param name="Name">For messages.</param>
/// <param name="Find">The address of a function, or 0.</param>
internal sealed record NativeSource(string Name, Func<string, nint> Find)
{
    /// <summary>A library with all that it depends on; null where it cannot be loaded. One that is loaded already is found by its name, wherever it lies.</summary>
    public static NativeSource? Library(string name) => NativeLibrary.TryLoad(name, out nint library)
        ? new(name, symbol => NativeLibrary.TryGetExport(library, symbol, out nint address) ? address : 0)
        : null;

    /// <summary>The first of the functions that is missing; null where all are there.</summary>
    public string? FirstMissing(IEnumerable<string> functions) => functions.FirstOrDefault(f => Find(f) == 0);
}

/// <summary>The functions of NCCL that are used here (nccl.h, NCCL 2).</summary>
internal sealed unsafe class NcclFunctions
{
    public const int Float32 = 7, Sum = 0;

    public static readonly IReadOnlyList<string> Needed =
    [
        "ncclCommInitAll", "ncclCommDestroy", "ncclCommAbort", "ncclAllReduce", "ncclReduceScatter", "ncclAllGather", "ncclReduce", "ncclBroadcast",
        "ncclGroupStart", "ncclGroupEnd", "ncclGetErrorString",
    ];

    // communicators, count, devices
    public readonly delegate* unmanaged<nint*, int, int*, int> CommInitAll;
    public readonly delegate* unmanaged<nint, int> CommDestroy, CommAbort;

    // send, receive, count, type, operation, communicator, stream
    public readonly delegate* unmanaged<nint, nint, nuint, int, int, nint, nint, int> AllReduce;

    // send, receive, count received, type, operation, communicator, stream
    public readonly delegate* unmanaged<nint, nint, nuint, int, int, nint, nint, int> ReduceScatter;

    // send, receive, count sent, type, communicator, stream
    public readonly delegate* unmanaged<nint, nint, nuint, int, nint, nint, int> AllGather;

    // send, receive, count, type, operation, root, communicator, stream
    public readonly delegate* unmanaged<nint, nint, nuint, int, int, int, nint, nint, int> Reduce;

    // send, receive, count, type, root, communicator, stream
    public readonly delegate* unmanaged<nint, nint, nuint, int, int, nint, nint, int> Broadcast;
    public readonly delegate* unmanaged<int> GroupStart, GroupEnd;
    private readonly delegate* unmanaged<int, nint> _errorString;

    /// <param name="source">Has all that are <see cref="Needed"/>.</param>
    public NcclFunctions(NativeSource source)
    {
        Func<string, nint> find = source.Find;
        CommInitAll = (delegate* unmanaged<nint*, int, int*, int>)find("ncclCommInitAll");
        CommDestroy = (delegate* unmanaged<nint, int>)find("ncclCommDestroy");
        CommAbort = (delegate* unmanaged<nint, int>)find("ncclCommAbort");
        AllReduce = (delegate* unmanaged<nint, nint, nuint, int, int, nint, nint, int>)find("ncclAllReduce");
        ReduceScatter = (delegate* unmanaged<nint, nint, nuint, int, int, nint, nint, int>)find("ncclReduceScatter");
        AllGather = (delegate* unmanaged<nint, nint, nuint, int, nint, nint, int>)find("ncclAllGather");
        Reduce = (delegate* unmanaged<nint, nint, nuint, int, int, int, nint, nint, int>)find("ncclReduce");
        Broadcast = (delegate* unmanaged<nint, nint, nuint, int, int, nint, nint, int>)find("ncclBroadcast");
        GroupStart = (delegate* unmanaged<int>)find("ncclGroupStart");
        GroupEnd = (delegate* unmanaged<int>)find("ncclGroupEnd");
        _errorString = (delegate* unmanaged<int, nint>)find("ncclGetErrorString");
    }

    public void Check(int result, string what)
    {
        if (result != 0) throw new InvalidOperationException($"NCCL: {what} failed ({Marshal.PtrToStringUTF8(_errorString(result))}).");
    }
}

/// <summary>The functions of the CUDA runtime that NCCL's streams need (cuda_runtime_api.h).</summary>
internal sealed unsafe class CudaFunctions
{
    private const uint NonBlocking = 1, DisableTiming = 2;

    public static readonly IReadOnlyList<string> Needed =
    [
        "cudaSetDevice", "cudaStreamCreateWithFlags", "cudaStreamDestroy", "cudaStreamWaitEvent", "cudaEventCreateWithFlags", "cudaEventRecord", "cudaEventDestroy",
        "cudaGetErrorString",
    ];

    private readonly delegate* unmanaged<int, int> _setDevice;
    private readonly delegate* unmanaged<nint*, uint, int> _streamCreate, _eventCreate;
    private readonly delegate* unmanaged<nint, int> _streamDestroy, _eventDestroy;
    private readonly delegate* unmanaged<nint, nint, uint, int> _streamWait;
    private readonly delegate* unmanaged<nint, nint, int> _eventRecord;
    private readonly delegate* unmanaged<int, nint> _errorString;

    /// <param name="source">Has all that are <see cref="Needed"/>.</param>
    public CudaFunctions(NativeSource source)
    {
        Func<string, nint> find = source.Find;
        _setDevice = (delegate* unmanaged<int, int>)find("cudaSetDevice");
        _streamCreate = (delegate* unmanaged<nint*, uint, int>)find("cudaStreamCreateWithFlags");
        _streamDestroy = (delegate* unmanaged<nint, int>)find("cudaStreamDestroy");
        _streamWait = (delegate* unmanaged<nint, nint, uint, int>)find("cudaStreamWaitEvent");
        _eventCreate = (delegate* unmanaged<nint*, uint, int>)find("cudaEventCreateWithFlags");
        _eventRecord = (delegate* unmanaged<nint, nint, int>)find("cudaEventRecord");
        _eventDestroy = (delegate* unmanaged<nint, int>)find("cudaEventDestroy");
        _errorString = (delegate* unmanaged<int, nint>)find("cudaGetErrorString");
    }

    /// <summary>For the calling thread.</summary>
    public void SetDevice(int device) => Check(_setDevice(device), "cudaSetDevice");

    /// <summary>A stream of the current device that does not wait for the default one.</summary>
    public nint NewStream()
    {
        nint stream;
        Check(_streamCreate(&stream, NonBlocking), "cudaStreamCreateWithFlags");
        return stream;
    }

    public void Destroy(nint stream) => Check(_streamDestroy(stream), "cudaStreamDestroy");

    /// <summary>What comes later on one stream of the current device begins after what is on the other now. 0 is the default stream, which is libtorch's.</summary>
    public void Follow(nint later, nint now)
    {
        nint point = Mark(now);
        WaitAndDestroy(later, point);
    }

    /// <summary>An event after what is on the stream now.</summary>
    public nint Mark(nint stream)
    {
        nint point;
        Check(_eventCreate(&point, DisableTiming), "cudaEventCreateWithFlags");
        Check(_eventRecord(point, stream), "cudaEventRecord");
        return point;
    }

    public void WaitAndDestroy(nint stream, nint point)
    {
        Check(_streamWait(stream, point, 0), "cudaStreamWaitEvent");
        Check(_eventDestroy(point), "cudaEventDestroy");
    }

    private void Check(int result, string what)
    {
        if (result != 0) throw new InvalidOperationException($"CUDA: {what} failed ({Marshal.PtrToStringUTF8(_errorString(result))}).");
    }
}
