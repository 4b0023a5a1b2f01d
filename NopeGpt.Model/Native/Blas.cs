using System.Runtime.InteropServices;

namespace NopeGpt.Model.Native;

/// <summary>The matrix product of the library that libtorch carries, for blocks in a CPU's memory that are too small to be tensors. Matrices are row by row.</summary>
internal static unsafe class Blas
{
    private static readonly delegate* unmanaged<byte*, byte*, int*, int*, int*, float*, float*, int*, float*, int*, float*, float*, int*, void> Product;
    private static readonly delegate* unmanaged<int, int> ShareThreads;

    static Blas()
    {
        nint library = TorchRuntime.TorchCpu();
        if (NativeLibrary.TryGetExport(library, "sgemm_", out nint product))
            Product = (delegate* unmanaged<byte*, byte*, int*, int*, int*, float*, float*, int*, float*, int*, float*, float*, int*, void>)product;
        if (NativeLibrary.TryGetExport(library, "MKL_Set_Num_Threads_Local", out nint threads)) ShareThreads = (delegate* unmanaged<int, int>)threads;
    }

    /// <summary>Whether there is one, and it can be told to stay on the calling thread.</summary>
    public static bool IsSupported => Product != null && ShareThreads != null;

    /// <summary>Products of the calling thread take so many threads; 0 as many as the process has it.</summary>
    /// <returns>What it was.</returns>
    public static int SetThreads(int threads) => ShareThreads(threads);

    /// <summary>C = A·Bᵀ of [n, k] and [m, k].</summary>
    public static void TimesTransposed(Block a, Block b, Block c, int n, int m, int k) => Call((byte)'T', (byte)'N', m, n, k, b, a, 0, c);

    /// <summary>C = A·B of [n, k] and [k, m].</summary>
    public static void Times(Block a, Block b, Block c, int n, int m, int k) => Call((byte)'N', (byte)'N', m, n, k, b, a, 0, c);

    /// <summary>C += Aᵀ·B of [k, n] and [k, m].</summary>
    public static void AddTransposedTimes(Block a, Block b, Block c, int n, int m, int k) => Call((byte)'N', (byte)'T', m, n, k, b, a, 1, c);

    // The library goes by columns, to which everything here is transposed and in the other order.
    private static void Call(byte first, byte second, int m, int n, int k, Block a, Block b, float beta, Block c)
    {
        float one = 1;
        (int lineA, int lineB, int lineC) = (a.Line, b.Line, c.Line);
        Product(&first, &second, &m, &n, &k, &one, a.Start, &lineA, b.Start, &lineB, &beta, c.Start, &lineC);
    }
}

/// <summary>A part of a matrix: where it begins, and numbers from one row to the next.</summary>
internal readonly unsafe struct Block(float* start, int line)
{
    public readonly float* Start = start;
    public readonly int Line = line;

    public Block From(long row) => new(Start + (row * Line), Line);
}
