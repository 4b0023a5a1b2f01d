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

    /// <summary>Both pointers to a node.</summary>
    public readonly record struct Node(nint Shared, nint Weak);

    [DllImport("LibTorchSharp")]
    public static extern Node THSAutograd_CSharpNode_ctor(nint apply, nint deleted);

    [DllImport("LibTorchSharp")]
    public static extern void THSAutograd_CSharpNode_setNextEdges(Node node, TensorArray inputs, [MarshalAs(UnmanagedType.U1)] bool executable);

    [DllImport("LibTorchSharp")]
    public static extern void THSAutograd_Function_wrapOutputs(TensorArray inputs, TensorArray notDifferentiable, TensorArray dirty, TensorArray outputs, Node node, nint allocate);

    [DllImport("LibTorchSharp")]
    public static extern void THSAutograd_CSharpNode_disposeSharedPtr(Node node);

    [DllImport("LibTorchSharp")]
    public static extern void THSAutograd_CSharpNode_disposeWeakPtr(Node node);
}
