using System.IO.MemoryMappedFiles;
using System.Runtime.InteropServices;
using Microsoft.Win32.SafeHandles;

namespace NopeGpt.Model.Storage;

/// <summary>A file mapped for reading. A copy asks the kernel for exactly its own pages before it touches them, so that a small tensor of a
/// file that is not in memory reads no more than that, and a file cut short in the meantime ends with an error and not with the process.
/// Safe for several threads.</summary>
internal sealed unsafe class MappedFile : IDisposable
{
    private const long PieceSize = 4 << 20;
    private const int MostThreads = 4, WillNeed = 3, PopulateRead = 22, Fault = 14;

    private readonly SafeFileHandle handle;
    private readonly MemoryMappedFile map;
    private readonly MemoryMappedViewAccessor view;

    /// <param name="handle">Owned from here on.</param>
    public MappedFile(SafeFileHandle handle)
    {
        this.handle = handle;
        map = MemoryMappedFile.CreateFromFile(handle, null, 0, MemoryMappedFileAccess.Read, HandleInheritability.None, leaveOpen: true);
        view = map.CreateViewAccessor(0, 0, MemoryMappedFileAccess.Read);
    }

    /// <summary>Copies bytes of the file to an address with room for them.</summary>
    /// <exception cref="ObjectDisposedException">The file was closed.</exception>
    /// <exception cref="EndOfStreamException">The file has become shorter since it was opened.</exception>
    public void Copy(long offset, long length, nint destination)
    {
        byte* start = null;
        // Holds the map open against a Dispose on another thread; throws after one.
        view.SafeMemoryMappedViewHandle.AcquirePointer(ref start);
        try
        {
            if (RandomAccess.GetLength(handle) < offset + length) throw Shortened();
            byte* source = start + view.PointerOffset + offset;
            long pieces = (length + PieceSize - 1) / PieceSize;
            bool whole = true;
            if (pieces <= 1) whole = CopyPiece(source, (byte*)destination, length);
            else
            {
                Parallel.For(0L, pieces, new ParallelOptions { MaxDegreeOfParallelism = Math.Min(Environment.ProcessorCount, MostThreads) }, i =>
                {
                    long done = i * PieceSize;
                    if (!CopyPiece(source + done, (byte*)destination + done, Math.Min(PieceSize, length - done))) Volatile.Write(ref whole, false);
                });
            }
            if (!whole) throw Shortened();
        }
        finally
        {
            view.SafeMemoryMappedViewHandle.ReleasePointer();
        }
    }

    public void Dispose()
    {
        view.Dispose();
        map.Dispose();
        handle.Dispose();
    }

    private static bool CopyPiece(byte* source, byte* destination, long length)
    {
        if (length == 0) return true;
        byte* page = (byte*)((nuint)source & ~((nuint)Environment.SystemPageSize - 1));
        nuint size = (nuint)(source + length - page);
        _ = madvise(page, size, WillNeed);
        // An older kernel does not know it; the copy then brings the pages in.
        if (madvise(page, size, PopulateRead) != 0 && Marshal.GetLastPInvokeError() == Fault) return false;
        Buffer.MemoryCopy(source, destination, length, length);
        return true;
    }

    private static EndOfStreamException Shortened() => new("it has become shorter since it was opened");

    [DllImport("libc", SetLastError = true)]
    private static extern int madvise(byte* address, nuint length, int advice);
}
