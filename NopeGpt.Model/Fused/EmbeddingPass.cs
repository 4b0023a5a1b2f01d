using System.Numerics;
using NopeGpt.Model.Kernels;
using NopeGpt.Model.Native;
using TorchSharp;
using static TorchSharp.torch;

namespace NopeGpt.Model.Fused;

// Shapes: N tokens, d width, P rows of the table.

/// <summary>Rows of a table by their numbers, whose gradients are added to the table's in place.</summary>
internal sealed unsafe class EmbeddingPass : BackwardPass
{
    private readonly Tensor _table_Pd;
    private readonly Tensor _ids_N;

    private EmbeddingPass(Tensor table_Pd, Tensor ids_N) => (_table_Pd, _ids_N) = (table_Pd, FusedOperators.Hold(ids_N));

    public static Tensor Apply(Tensor table_Pd, Tensor ids_N)
    {
        Tensor rows_Nd, dense_N;
        using (no_grad())
        {
            dense_N = ids_N.contiguous();
            rows_Nd = table_Pd.index_select(0, dense_N);
        }
        return AutogradNode.Attach([rows_Nd], [], new EmbeddingPass(table_Pd, dense_N), needed: true)[0];
    }

    public override Tensor[] Run(IReadOnlyList<Tensor?> gradients)
    {
        Tensor g_Nd = FusedOperators.Flat(gradients[0]!), sum_Pd = FusedOperators.GradientOf(_table_Pd)!;
        int tokens = checked((int)g_Nd.shape[0]), width = checked((int)g_Nd.shape[1]);
        if (!sum_Pd.is_contiguous())
        {
            sum_Pd.index_add_(0, _ids_N, g_Nd, Scalars.One);
            return [];
        }
        float* from = FusedOperators.Pointer(g_Nd), to = FusedOperators.Pointer(sum_Pd);
        long* ids = (long*)Dispatcher.DataPointer(_ids_N);
        // Each part has channels of its own, in which the tokens are added in their order.
        const int columns = 64;
        Crew.Run((width + columns - 1) / columns, part =>
        {
            int first = part * columns, count = Math.Min(columns, width - first);
            for (long t = 0; t < tokens; t++) Add(new(from + (t * width) + first, count), new(to + (ids[t] * width) + first, count));
        });
        return [];
    }

    public override void Dispose() => _ids_N.Dispose();

    private static void Add(ReadOnlySpan<float> from, Span<float> to)
    {
        int i = 0;
        for (; i <= from.Length - Vector<float>.Count; i += Vector<float>.Count) (new Vector<float>(from[i..]) + new Vector<float>(to[i..])).CopyTo(to[i..]);
        for (; i < from.Length; i++) to[i] += from[i];
    }
}
