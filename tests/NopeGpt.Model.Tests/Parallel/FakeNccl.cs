using System.Collections.Concurrent;
using System.Runtime.InteropServices;
using NopeGpt.Model.Replicas;

namespace NopeGpt.Model.Tests;

/// <summary>NCCL's functions over the host's memory, by the signatures of nccl.h, and the few of the CUDA runtime: what is called through them is what a GPU
/// would be asked for. A call returns when all ranks have made it.</summary>
internal static unsafe class FakeNccl
{
    private const int MostDevices = 8, Refused = 4;

    private static readonly ConcurrentDictionary<nint, (Clique Clique, int Rank)> Communicators = [];
    private static readonly nint RefusedText = Marshal.StringToCoTaskMemUTF8("refused");
    private static long last;

    [ThreadStatic]
    private static List<Action>? grouped;

    public static nint Find(string name) => name switch
    {
        "ncclCommInitAll" => (nint)(delegate* unmanaged<nint*, int, int*, int>)&CommInitAll,
        "ncclCommDestroy" => (nint)(delegate* unmanaged<nint, int>)&CommDestroy,
        "ncclCommAbort" => (nint)(delegate* unmanaged<nint, int>)&CommAbort,
        "ncclAllReduce" => (nint)(delegate* unmanaged<float*, float*, nuint, int, int, nint, nint, int>)&AllReduce,
        "ncclReduceScatter" => (nint)(delegate* unmanaged<float*, float*, nuint, int, int, nint, nint, int>)&ReduceScatter,
        "ncclAllGather" => (nint)(delegate* unmanaged<float*, float*, nuint, int, nint, nint, int>)&AllGather,
        "ncclReduce" => (nint)(delegate* unmanaged<float*, float*, nuint, int, int, int, nint, nint, int>)&Reduce,
        "ncclBroadcast" => (nint)(delegate* unmanaged<float*, float*, nuint, int, int, nint, nint, int>)&Broadcast,
        "ncclGroupStart" => (nint)(delegate* unmanaged<int>)&GroupStart,
        "ncclGroupEnd" => (nint)(delegate* unmanaged<int>)&GroupEnd,
        "ncclGetErrorString" or "cudaGetErrorString" => (nint)(delegate* unmanaged<int, nint>)&ErrorString,
        "cudaSetDevice" => (nint)(delegate* unmanaged<int, int>)&SetDevice,
        "cudaStreamCreateWithFlags" or "cudaEventCreateWithFlags" => (nint)(delegate* unmanaged<nint*, uint, int>)&Create,
        "cudaStreamDestroy" or "cudaEventDestroy" => (nint)(delegate* unmanaged<nint, int>)&CommDestroy,
        "cudaStreamWaitEvent" => (nint)(delegate* unmanaged<nint, nint, uint, int>)&StreamWait,
        "cudaEventRecord" => (nint)(delegate* unmanaged<nint, nint, int>)&EventRecord,
        _ => 0,
    };

    [UnmanagedCallersOnly]
    private static int CommInitAll(nint* communicators, int count, int* devices)
    {
        if (count > MostDevices || new ReadOnlySpan<int>(devices, count).ToArray().Distinct().Count() < count) return Refused;
        Clique clique = new(count);
        for (int rank = 0; rank < count; rank++)
        {
            communicators[rank] = (nint)Interlocked.Increment(ref last);
            Communicators[communicators[rank]] = (clique, rank);
        }
        return 0;
    }

    [UnmanagedCallersOnly]
    private static int AllReduce(float* send, float* receive, nuint count, int type, int operation, nint communicator, nint stream) => Sum(type, operation, stream, () =>
        Together(communicator, send, (all, rank) => Add(all, 0, count), sum => sum.CopyTo(new Span<float>(receive, (int)count))));

    [UnmanagedCallersOnly]
    private static int ReduceScatter(float* send, float* receive, nuint count, int type, int operation, nint communicator, nint stream) => Sum(type, operation, stream, () =>
        Together(communicator, send, (all, rank) => Add(all, rank * (int)count, count), sum => sum.CopyTo(new Span<float>(receive, (int)count))));

    [UnmanagedCallersOnly]
    private static int Reduce(float* send, float* receive, nuint count, int type, int operation, int root, nint communicator, nint stream) => Sum(type, operation, stream, () =>
        Together(communicator, send, (all, rank) => rank == root ? Add(all, 0, count) : [], sum => sum.CopyTo(new Span<float>(receive, (int)count))));

    [UnmanagedCallersOnly]
    private static int AllGather(float* send, float* receive, nuint count, int type, nint communicator, nint stream) => Sum(type, NcclFunctions.Sum, stream, () =>
        Together(communicator, send, (all, rank) => [.. all.SelectMany(part => new Span<float>((void*)part, (int)count).ToArray())], whole => whole.CopyTo(new Span<float>(receive, whole.Length))));

    [UnmanagedCallersOnly]
    private static int Broadcast(float* send, float* receive, nuint count, int type, int root, nint communicator, nint stream) => Sum(type, NcclFunctions.Sum, stream, () =>
        Together(communicator, send, (all, rank) => new Span<float>((void*)all[root], (int)count).ToArray(), values => values.CopyTo(new Span<float>(receive, (int)count))));

    [UnmanagedCallersOnly]
    private static int GroupStart()
    {
        grouped = [];
        return 0;
    }

    [UnmanagedCallersOnly]
    private static int GroupEnd()
    {
        List<Action> calls = grouped!;
        grouped = null;
        foreach (Action call in calls) call();
        return 0;
    }

    [UnmanagedCallersOnly]
    private static int CommDestroy(nint communicator) => 0;

    [UnmanagedCallersOnly]
    private static int CommAbort(nint communicator)
    {
        Communicators[communicator].Clique.Meeting.Cancel();
        return 0;
    }

    [UnmanagedCallersOnly]
    private static nint ErrorString(int error) => RefusedText;

    [UnmanagedCallersOnly]
    private static int SetDevice(int device) => 0;

    [UnmanagedCallersOnly]
    private static int Create(nint* handle, uint flags)
    {
        *handle = (nint)Interlocked.Increment(ref last);
        return 0;
    }

    [UnmanagedCallersOnly]
    private static int StreamWait(nint stream, nint point, uint flags) => point != 0 && flags == 0 ? 0 : Refused;

    [UnmanagedCallersOnly]
    private static int EventRecord(nint point, nint stream) => point != 0 ? 0 : Refused;

    private static int Sum(int type, int operation, nint stream, Action work)
    {
        if (type != NcclFunctions.Float32 || operation != NcclFunctions.Sum || stream == 0) return Refused;
        if (grouped is not null) grouped.Add(work);
        else work();
        return 0;
    }

    /// <summary>All ranks' pointers are known, each computes its result, and only then is any written.</summary>
    private static void Together(nint communicator, float* send, Func<nint[], int, float[]> compute, Action<float[]> write)
    {
        (Clique clique, int rank) = Communicators[communicator];
        try
        {
            clique.Given[rank] = (nint)send;
            clique.Meeting.Arrive();
            float[] result = compute(clique.Given, rank);
            clique.Meeting.Arrive();
            write(result);
            clique.Meeting.Arrive();
        }
        // An aborted kernel ends, and its call has returned long before.
        catch (OperationCanceledException) { }
    }

    private static float[] Add(nint[] all, int start, nuint count)
    {
        float[] sum = new float[count];
        foreach (nint part in all)
            for (int i = 0; i < sum.Length; i++) sum[i] += ((float*)part)[start + i];
        return sum;
    }

    private sealed class Clique(int count)
    {
        public nint[] Given { get; } = new nint[count];

        public Meeting Meeting { get; } = new(count);
    }
}
