using System.Runtime.InteropServices;
using TorchSharp;
using static TorchSharp.torch;

namespace NopeGpt.Model.Native;

/// <summary>A run of float32 numbers on a device that many tensors are views of, and whose memory can be given back and taken again while they stay:
/// also the views that autograd keeps for a backward pass. Views must be made while the memory is held, and read or written only while it is.</summary>
/// <remarks>libtorch frees a storage's memory when it takes new memory for it, and takes new memory when a tensor outgrows it. So the storage is told
/// that it has nothing, and a tensor of it resized: to one number, or to all. Contents are not kept.</remarks>
internal sealed class FlatMemory : IDisposable
{
    // Resized; a tensor of its own, so that Whole keeps its shape.
    private readonly Tensor _storage;
    private readonly long _size;

    public FlatMemory(long size, Device device)
    {
        _size = size;
        using IDisposable quiet = no_grad();
        Whole = zeros([size], ScalarType.Float32, device).DetachFromDisposeScope();
        // Not detach, which forbids resizing.
        _storage = Whole.alias().DetachFromDisposeScope();
    }

    /// <summary>All of it, [size].</summary>
    public Tensor Whole { get; }

    public bool Held { get; private set; } = true;

    /// <summary>A part of it, in the caller's dispose scope.</summary>
    public Tensor View(long start, params long[] shape)
    {
        using IDisposable quiet = no_grad();
        using DisposeScope scope = NewDisposeScope();
        return Whole.narrow(0, start, shape.Aggregate(1L, (product, size) => product * size)).view(shape).MoveToOuterDisposeScope();
    }

    /// <summary>Takes the memory. What is in it is not known.</summary>
    /// <exception cref="InsufficientMemoryException">The device has not so much.</exception>
    public void Hold()
    {
        if (Held) return;
        Resize(_size);
        Held = true;
    }

    /// <summary>Gives the memory back, but for one number.</summary>
    public void Release()
    {
        if (!Held) return;
        Held = false;
        Resize(1);
    }

    public void Dispose()
    {
        _storage.Dispose();
        Whole.Dispose();
    }

    private void Resize(long size)
    {
        THSStorage_set_nbytes(_storage.Handle, 0);
        try { Aten.Resize(_storage, size); }
        catch (InvalidOperationException e)
        {
            throw new InsufficientMemoryException($"{_storage.device} is out of memory: {size * sizeof(float)} bytes were asked for. Take a smaller batch or model.", e);
        }
    }

    [DllImport("LibTorchSharp")]
    private static extern void THSStorage_set_nbytes(nint tensor, nuint bytes);
}
