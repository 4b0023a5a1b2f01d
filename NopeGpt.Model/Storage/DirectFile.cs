using System.Runtime.InteropServices;
using Microsoft.Win32.SafeHandles;

namespace NopeGpt.Model.Storage;

/// <summary>Writes a new file from its start to its end, past the page cache where the file system can: the data is on the disk when its
/// write returns, the writes overlap the filling of the next blocks, and memory holds three blocks instead of the file
/// (docs/experiments.md has what that brings). Elsewhere the same writes go through the page cache.</summary>
internal sealed unsafe class DirectFile : IDisposable
{
    private const int BlockSize = 4 << 20, Blocks = 3, Alignment = 1 << 16;
    private const int GetFlags = 3, SetFlags = 4, DirectFlag = 0x4000, KeepSize = 1;
    private const int InvalidArgument = 22, NoSpaceLeft = 28, QuotaExceeded = 122;

    private readonly string path;
    private readonly long length;
    private readonly SafeFileHandle handle;
    private readonly nint[] blocks = new nint[Blocks];
    private readonly Task[] writes = [.. Enumerable.Repeat(Task.CompletedTask, Blocks)];
    private int current, filled;
    private long begun;

    /// <param name="length">Bytes that the file will have.</param>
    /// <exception cref="IOException">The disk has no room for them, or the file cannot be made.</exception>
    public DirectFile(string path, long length)
    {
        (this.path, this.length) = (path, length);
        handle = File.OpenHandle(path, FileMode.CreateNew, FileAccess.Write, FileShare.None);
        try
        {
            Reserve();
            for (int i = 0; i < Blocks; i++) blocks[i] = (nint)NativeMemory.AlignedAlloc((nuint)BlockSize, Alignment);
            if (length >= BlockSize && RuntimeInformation.ProcessArchitecture == Architecture.X64) SetDirect(true);
        }
        catch
        {
            Dispose();
            throw;
        }
    }

    public void Write(ReadOnlySpan<byte> bytes)
    {
        while (!bytes.IsEmpty)
        {
            if (filled == 0) writes[current].GetAwaiter().GetResult(); // this block's write of before
            int size = Math.Min(bytes.Length, BlockSize - filled);
            bytes[..size].CopyTo(new Span<byte>((byte*)blocks[current] + filled, size));
            bytes = bytes[size..];
            if ((filled += size) < BlockSize) continue;
            (nint block, long offset) = (blocks[current], begun);
            writes[current] = Task.Run(() => WriteBlock(block, offset));
            (current, filled, begun) = ((current + 1) % Blocks, 0, begun + BlockSize);
        }
    }

    /// <summary>Waits until everything is on the disk.</summary>
    /// <exception cref="IOException">A write failed, or the bytes are not as many as were announced.</exception>
    public void Finish()
    {
        Task.WhenAll(writes).GetAwaiter().GetResult();
        if (begun + filled != length) throw new IOException($"{path}: {begun + filled} bytes were written in place of {length}.");
        SetDirect(false); // what is left is no whole block
        RandomAccess.Write(handle, new ReadOnlySpan<byte>((void*)blocks[current], filled), begun);
        RandomAccess.FlushToDisk(handle);
    }

    public void Dispose()
    {
        Task.WhenAll(writes).ContinueWith(_ => { }, TaskScheduler.Default).Wait();
        foreach (nint block in blocks) NativeMemory.AlignedFree((void*)block);
        handle.Dispose();
    }

    private void WriteBlock(nint block, long offset)
    {
        ReadOnlySpan<byte> bytes = new((void*)block, BlockSize);
        try
        {
            RandomAccess.Write(handle, bytes, offset);
        }
        catch (IOException e) when (e.HResult == InvalidArgument) // a file system that takes the flag and then refuses the write
        {
            SetDirect(false);
            RandomAccess.Write(handle, bytes, offset);
        }
    }

    // A full disk is known before the first byte, and blocks of one file lie together.
    private void Reserve()
    {
        if (length == 0 || fallocate((int)handle.DangerousGetHandle(), KeepSize, 0, length) == 0) return;
        if (Marshal.GetLastPInvokeError() is var error and (NoSpaceLeft or QuotaExceeded))
            throw new IOException($"{path}: the disk has no room for {length} bytes.", error);
    }

    private void SetDirect(bool on)
    {
        int descriptor = (int)handle.DangerousGetHandle(), flags = fcntl(descriptor, GetFlags, 0);
        if (flags >= 0) _ = fcntl(descriptor, SetFlags, on ? flags | DirectFlag : flags & ~DirectFlag);
    }

    [DllImport("libc", SetLastError = true)]
    private static extern int fallocate(int descriptor, int mode, long offset, long length);

    [DllImport("libc", SetLastError = true)]
    private static extern int fcntl(int descriptor, int command, int argument);
}
