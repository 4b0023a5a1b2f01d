using System.Runtime.Intrinsics.X86;
using NopeGpt.Model.Fused;
using NopeGpt.Model.Kernels;
using NopeGpt.Model.Native;
using TorchSharp;
using static TorchSharp.torch;
using static TorchSharp.torch.nn;

namespace NopeGpt.Model;

/// <summary>The head and its cross-entropy, a chunk of tokens at a time, so that the logits, the widest tensor of all, are never whole in memory.</summary>
/// <param name="weight_Pd">The head's matrix: the vocabulary and, behind it, rows of padding, which get probability 0 and no gradient.</param>
/// <param name="type">Of the products in training, where it is not that of x. Softmax, loss and gradients have x's.</param>
/// <param name="memory">For the logits of a chunk.</param>
internal readonly struct HeadLoss(Tensor weight_Pd, int vocabulary, ScalarType? type, ActivationPool memory)
{
    /// <summary>Cross-entropy summed with the given weights. The gradients of both factors of the head are computed with the loss, so that
    /// the logits are neither kept nor computed twice.</summary>
    /// <param name="share_N">Weight of each token's loss in the sum.</param>
    public Tensor Sum(Tensor x_Nd, Tensor targets_N, Tensor share_N)
    {
        // A frozen head costs no gradient.
        bool backward = x_Nd.requires_grad, wBackward = backward && weight_Pd.requires_grad;
        Tensor loss;
        Tensor? dx_Nd, dw_Pd;
        using (no_grad())
        {
            loss = zeros([], device: x_Nd.device);
            Tensor target_N = targets_N.clamp(min: Scalars.Zero), narrow_Pd = weight_Pd.As(type);
            using ActivationPool.Loan? room_CP = Fits(x_Nd) ? memory.Rent(Math.Min(ChunkTokens(x_Nd), x_Nd.shape[0]), weight_Pd.shape[0]) : null;
            dx_Nd = backward ? empty_like(x_Nd) : null;
            dw_Pd = !wBackward ? null : room_CP is null ? zeros_like(weight_Pd) : empty_like(weight_Pd);
            foreach ((long start, long count) in Chunks(x_Nd))
            {
                using DisposeScope chunk = NewDisposeScope();
                Tensor x_Cd = x_Nd.narrow(0, start, count), target_C = target_N.narrow(0, start, count), share_C = share_N.narrow(0, start, count);
                Tensor? dx_Cd = dx_Nd?.narrow(0, start, count);
                if (room_CP is null) AddChunk(x_Cd, narrow_Pd, target_C.unsqueeze(1), share_C.unsqueeze(1), loss, dx_Cd, dw_Pd);
                else AddChunk(room_CP.Tensor.narrow(0, 0, count), x_Cd, target_C.contiguous(), share_C.to(ScalarType.Float32).contiguous(), loss, dx_Cd, dw_Pd, first: start == 0);
            }
        }
        return backward ? HeadPass.Apply(loss, x_Nd, weight_Pd, dx_Nd!, dw_Pd) : loss;
    }

    private bool Fits(Tensor x_Nd) =>
        type is null && Fma.IsSupported && x_Nd.device_type == DeviceType.CPU && x_Nd.dtype == ScalarType.Float32 && weight_Pd.dtype == ScalarType.Float32;

    /// <summary>Adds a chunk to the loss and to the gradients.</summary>
    private void AddChunk(Tensor x_Cd, Tensor narrow_Pd, Tensor target_C1, Tensor share_C1, Tensor loss, Tensor? dx_Cd, Tensor? dw_Pd)
    {
        Tensor logits_CP = functional.linear(x_Cd.As(type), narrow_Pd).As(x_Cd.dtype);
        if (vocabulary < weight_Pd.shape[0]) logits_CP.narrow(1, vocabulary, weight_Pd.shape[0] - vocabulary).fill_(Scalars.MinusInfinity);
        Tensor logP_CP = functional.log_softmax(logits_CP, -1);
        loss.sub_(logP_CP.gather(1, target_C1).mul_(share_C1).sum());
        if (dx_Cd is null) return;
        // The gradient by the logits is share · (softmax - one_hot(target)); the share is applied where it is narrow.
        Tensor error_CP = logP_CP.exp_().scatter_add_(1, target_C1, full_like(share_C1, Scalars.Of(-1)));
        dx_Cd.copy_(error_CP.As(type).matmul(narrow_Pd)).mul_(share_C1);
        if (dw_Pd is null) return;
        if (type is null) dw_Pd.addmm_(error_CP.T, x_Cd.mul(share_C1));
        else AddProduct(dw_Pd, error_CP, x_Cd, share_C1);
    }

    /// <summary>The same with the softmax and its gradient in one go over each token's logits.</summary>
    /// <param name="room_CP">For the logits and their gradient.</param>
    /// <param name="first">Nothing is in dw yet.</param>
    private unsafe void AddChunk(Tensor room_CP, Tensor x_Cd, Tensor target_C, Tensor share_C, Tensor loss, Tensor? dx_Cd, Tensor? dw_Pd, bool first)
    {
        room_CP.addmm_(x_Cd, weight_Pd.t(), beta: 0);
        Tensor loss_C = empty_like(share_C);
        SoftmaxError.Apply((float*)Dispatcher.DataPointer(room_CP), (long*)Dispatcher.DataPointer(target_C), (float*)Dispatcher.DataPointer(share_C), (float*)Dispatcher.DataPointer(loss_C),
            (int)room_CP.shape[0], (int)room_CP.shape[1], vocabulary);
        loss.add_(loss_C.dot(share_C), Scalars.One);
        dx_Cd?.addmm_(room_CP, weight_Pd, beta: 0);
        dw_Pd?.addmm_(room_CP.t(), x_Cd, beta: first ? 0 : 1);
    }

    /// <summary>Cross-entropy of each token, with autograd's own gradients.</summary>
    /// <returns>loss_N, 0 where the target is <see cref="Decoder.IgnoredTarget"/>.</returns>
    public Tensor Each(Tensor x_Nd, Tensor targets_N)
    {
        Tensor weight_Vd = weight_Pd.narrow(0, 0, vocabulary);
        return cat([.. Chunks(x_Nd).Select(c => functional.cross_entropy(
            functional.linear(x_Nd.narrow(0, c.Start, c.Count), weight_Vd), targets_N.narrow(0, c.Start, c.Count), ignore_index: Decoder.IgnoredTarget, reduction: Reduction.None))]);
    }

    /// <summary>Adds errorᵀ·(x·share), multiplied in the narrow type and added up in float32. A share, which is one of thousands, is only brought to the
    /// largest one's scale, as it would lose digits in float16; and to a part of it, as many tokens of one sum would leave its range.</summary>
    private void AddProduct(Tensor sum_Pd, Tensor error_CP, Tensor x_Cd, Tensor share_C1)
    {
        const double part = 1.0 / 16, least = 1.17549435e-38;
        Tensor largest = share_C1.max().div_(Scalars.Of(part)).clamp_(min: Scalars.Of(least));
        sum_Pd.add_(error_CP.As(type).T.matmul(x_Cd.mul(share_C1.div(largest)).As(type)).As(ScalarType.Float32).mul_(largest), Scalars.One);
    }

    /// <summary>Tokens of which the logits are there at a time: 32 MB on a CPU, where a matrix product of fewer tokens runs below its full rate, and 512 on a GPU.</summary>
    public static long ChunkTokens(int vocabulary, bool cpu) => Math.Max(128, (cpu ? 1L << 23 : 1L << 27) / vocabulary);

    private IEnumerable<(long Start, long Count)> Chunks(Tensor x_Nd)
    {
        long tokens = x_Nd.shape[0], size = ChunkTokens(x_Nd);
        for (long start = 0; start < tokens; start += size) yield return (start, Math.Min(size, tokens - start));
    }

    private long ChunkTokens(Tensor x_Nd) => ChunkTokens(vocabulary, x_Nd.device.type == DeviceType.CPU);
}
