using System.Runtime.CompilerServices;
using System.Runtime.InteropServices;

namespace NopeGpt.Model.Native;

/// <summary>TorchSharp's own entry points for nodes of the autograd graph whose backward pass is C#.</summary>
internal static unsafe class AutogradFunctions
{
    public struct TensorArray
    {
        public nint* Tensors;
        public long Size;
    }

    /// <summary>What a node calls when its gradients are there, and what it returns to libtorch.</summary>
    [UnmanagedFunctionPointer(CallingConvention.Cdecl)]
    public delegate TensorArray Arrived(nint* gradients, int size);

    // Where THSAutograd_Function_wrapOutputs puts its results; it asks on the thread that calls it.
    [ThreadStatic]
    private static nint* results;

    /// <summary>Puts a node between tensors and what was made of them.</summary>
    /// <param name="arrive">An <see cref="Arrived"/> as a pointer, which must live as long as the node.</param>
    /// <param name="deleted">Called without arguments when the node goes.</param>
    /// <param name="made">Gets a handle for each of `outputs`; stays as it is where libtorch refuses, with its reason on the error stream.</param>
    public static void Attach(nint arrive, nint deleted, TensorArray inputs, TensorArray outputs, nint* made)
    {
        Node node = THSAutograd_CSharpNode_ctor(arrive, deleted);
        try
        {
            THSAutograd_CSharpNode_setNextEdges(node, inputs, true);
            results = made;
            THSAutograd_Function_wrapOutputs(inputs, default, default, outputs, node, (nint)(delegate* unmanaged[Cdecl]<nuint, nint*>)&Allocate);
        }
        finally
        {
            results = null;
            THSAutograd_CSharpNode_disposeSharedPtr(node);
            THSAutograd_CSharpNode_disposeWeakPtr(node);
        }
    }

    [UnmanagedCallersOnly(CallConvs = [typeof(CallConvCdecl)])]
    private static nint* Allocate(nuint size) => results;

    /// <summary>Both pointers to a node.</summary>
    private readonly record struct Node(nint Shared, nint Weak);

    [DllImport("LibTorchSharp")]
    private static extern Node THSAutograd_CSharpNode_ctor(nint apply, nint deleted);

    [DllImport("LibTorchSharp")]
    private static extern void THSAutograd_CSharpNode_setNextEdges(Node node, TensorArray inputs, [MarshalAs(UnmanagedType.U1)] bool executable);

    [DllImport("LibTorchSharp")]
    private static extern void THSAutograd_Function_wrapOutputs(TensorArray inputs, TensorArray notDifferentiable, TensorArray dirty, TensorArray outputs, Node node, nint allocate);

    [DllImport("LibTorchSharp")]
    private static extern void THSAutograd_CSharpNode_disposeSharedPtr(Node node);

    [DllImport("LibTorchSharp")]
    private static extern void THSAutograd_CSharpNode_disposeWeakPtr(Node node);
}
