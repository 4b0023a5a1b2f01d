using System.Runtime.Intrinsics.X86;
using NopeGpt.Model.Kernels;
using NopeGpt.Model.Native;
using TorchSharp;
using static TorchSharp.torch;

namespace NopeGpt.Model.Fused;

// Shapes: B rows, T tokens, H query heads, K key and value heads, D width of a head.

/// <summary>Causal attention of rows that are one sequence each. It keeps its inputs, its result and one number of each query.</summary>
internal sealed unsafe class AttentionPass : BackwardPass
{
    private readonly CausalAttention _kernel;
    private readonly Tensor _query;
    private readonly Tensor _keys;
    private readonly Tensor _values;
    private readonly Tensor _mixed;
    private readonly Tensor _logSum;

    private AttentionPass(CausalAttention kernel, Tensor query, Tensor keys, Tensor values, Tensor mixed, Tensor logSum) =>
        (_kernel, _query, _keys, _values, _mixed, _logSum) = (kernel, FusedOperators.Hold(query), FusedOperators.Hold(keys), FusedOperators.Hold(values), FusedOperators.Hold(mixed), logSum.DetachFromDisposeScope());

    /// <summary>Whether a training pass can take it.</summary>
    public static bool Fits(Tensor query_BTHD) => is_grad_enabled() && Fma.IsSupported && Blas.IsSupported
        && query_BTHD.device_type == DeviceType.CPU && query_BTHD.dtype == ScalarType.Float32 && query_BTHD.shape[3] % ThinProduct.Lanes == 0;

    /// <returns>[B, T, H, D].</returns>
    public static Tensor Apply(Tensor query_BTHD, Tensor keys_BTKD, Tensor values_BTKD)
    {
        Tensor mixed_BTHD;
        AttentionPass pass;
        using (no_grad())
        {
            Tensor query = query_BTHD.contiguous(), keys = keys_BTKD.contiguous(), values = values_BTKD.contiguous();
            long[] shape = query.shape;
            CausalAttention kernel = new((int)shape[0], (int)shape[1], (int)shape[2], (int)keys.shape[2], (int)shape[3]);
            mixed_BTHD = empty(shape, ScalarType.Float32, CPU);
            Tensor logSum = empty([shape[0] * shape[2], shape[1]], ScalarType.Float32, CPU);
            kernel.Forward(Pointer(query), Pointer(keys), Pointer(values), Pointer(mixed_BTHD), Pointer(logSum));
            pass = new(kernel, query, keys, values, mixed_BTHD, logSum);
        }
        return AutogradNode.Attach([mixed_BTHD], [query_BTHD, keys_BTKD, values_BTKD], pass, query_BTHD.requires_grad || keys_BTKD.requires_grad || values_BTKD.requires_grad)[0];
    }

    public override Tensor[] Run(IReadOnlyList<Tensor?> gradients)
    {
        Tensor g_BTHD = gradients[0]!.contiguous(), dQuery = empty_like(_query), dKeys = zeros_like(_keys), dValues = zeros_like(_values);
        _kernel.Backward(Pointer(_query), Pointer(_keys), Pointer(_values), Pointer(_mixed), Pointer(_logSum), Pointer(g_BTHD), Pointer(dQuery), Pointer(dKeys), Pointer(dValues));
        return [dQuery, dKeys, dValues];
    }

    public override void Dispose()
    {
        foreach (Tensor tensor in (Tensor[])[_query, _keys, _values, _mixed, _logSum]) tensor.Dispose();
    }

    private static float* Pointer(Tensor tensor) => FusedOperators.Pointer(tensor);
}
