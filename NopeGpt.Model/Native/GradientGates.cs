using System.Runtime.CompilerServices;
using System.Runtime.InteropServices;
using TorchSharp;
using static NopeGpt.Model.Native.AutogradFunctions;
using static TorchSharp.torch;

namespace NopeGpt.Model.Native;

/// <summary>Places in a network where the backward pass reports. A tensor goes through a gate unchanged and without a copy; when the backward pass
/// reaches the gate, everything behind it in the network is done, gradients of parameters included: autograd works off what was computed last first.
/// TorchSharp binds no hooks, and its autograd functions allocate a tensor as large as each output, so the nodes are made here. For one thread's
/// passes at a time; the backward pass may call from another thread, as it does for CUDA.</summary>
internal sealed unsafe class GradientGates : IDisposable
{
    // The nodes hold pointers to the delegates, which live as long as this object.
    private readonly Arrived[] _delegates;
    private readonly nint[] _functions;
    private readonly nint* _result = (nint*)NativeMemory.Alloc((nuint)sizeof(nint));
    private readonly Func<int, bool> _arrived;
    private Tensor? _passing;

    /// <param name="count">Gates, by their numbers from 0.</param>
    /// <param name="arrived">Called with the gate's number when the gradient is there. It must not throw: that would end the process. False ends the
    /// backward pass, whose caller then gets an exception.</param>
    public GradientGates(int count, Func<int, bool> arrived)
    {
        _arrived = arrived;
        _delegates = [.. Enumerable.Range(0, count).Select(gate => (Arrived)((gradients, size) => Pass(gate, gradients, size)))];
        _functions = [.. _delegates.Select(Marshal.GetFunctionPointerForDelegate)];
    }

    /// <summary>The same values, seen through the gate. Where x needs no gradient nothing will be reported, and x itself is returned.</summary>
    public Tensor Through(int gate, Tensor x)
    {
        if (!x.requires_grad || !is_grad_enabled()) return x;
        nint input = x.Handle, output = 0;
        TensorArray one = new() { Tensors = &input, Size = 1 };
        Attach(_functions[gate], (nint)(delegate* unmanaged[Cdecl]<void>)&Deleted, one, one, &output);
        GC.KeepAlive(x);
        if (output == 0) throw new InvalidOperationException($"libtorch refused gate {gate} of the backward pass.");
        return Tensor.UnsafeCreateTensor(output);
    }

    /// <summary>Lets go of the last gradient that passed. After each backward pass.</summary>
    public void Release()
    {
        _passing?.Dispose();
        _passing = null;
    }

    public void Dispose()
    {
        Release();
        NativeMemory.Free(_result);
    }

    private TensorArray Pass(int gate, nint* gradients, int size)
    {
        if (size != 1 || !_arrived(gate)) return default;
        // libtorch copies the handle after this returns and does not free it, so it is kept until the next one comes.
        Release();
        _passing = Tensor.UnsafeCreateTensor(gradients[0]).DetachFromDisposeScope();
        _result[0] = gradients[0];
        return new() { Tensors = _result, Size = 1 };
    }

    [UnmanagedCallersOnly(CallConvs = [typeof(CallConvCdecl)])]
    private static void Deleted()
    {
    }
}
