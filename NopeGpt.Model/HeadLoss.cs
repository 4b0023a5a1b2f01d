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
internal readonly struct HeadLoss(Tensor weight_Pd, int vocabulary, ActivationMemory memory)
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
            dx_Nd = backward ? empty_like(x_Nd) : null;
            dw_Pd = wBackward ? empty_like(weight_Pd) : null;
            Tensor target_N = targets_N.clamp(min: Scalars.Zero);
            using ActivationMemory.Loan? room_CP = Fits(x_Nd) ? memory.Rent(Math.Min(ChunkTokens(x_Nd), x_Nd.shape[0]), weight_Pd.shape[0]) : null;
            foreach ((long start, long count) in Chunks(x_Nd))
            {
                using DisposeScope chunk = NewDisposeScope();
                Tensor x_Cd = x_Nd.narrow(0, start, count), target_C = target_N.narrow(0, start, count), share_C = share_N.narrow(0, start, count);
                Tensor error_CP = room_CP is null ? Error(x_Cd, target_C, share_C, loss) : Error(x_Cd, target_C, share_C, loss, room_CP.Tensor.narrow(0, 0, count));
                dx_Nd?.narrow(0, start, count).addmm_(error_CP, weight_Pd, beta: 0);
                dw_Pd?.addmm_(error_CP.t(), x_Cd, beta: start == 0 ? 0 : 1);
            }
        }
        return backward ? HeadPass.Apply(loss, x_Nd, weight_Pd, dx_Nd!, dw_Pd) : loss;
    }

    private bool Fits(Tensor x_Nd) =>
        Fma.IsSupported && x_Nd.device_type == DeviceType.CPU && x_Nd.dtype == ScalarType.Float32 && weight_Pd.dtype == ScalarType.Float32;

    /// <summary>Adds to the loss and gives its gradient by the logits: share · (softmax - one_hot(target)).</summary>
    private Tensor Error(Tensor x_Cd, Tensor target_C, Tensor share_C, Tensor loss)
    {
        Tensor target_C1 = target_C.unsqueeze(1), share_C1 = share_C.unsqueeze(1), logits_CP = functional.linear(x_Cd, weight_Pd);
        if (vocabulary < weight_Pd.shape[0]) logits_CP.narrow(1, vocabulary, weight_Pd.shape[0] - vocabulary).fill_(Scalars.MinusInfinity);
        Tensor logP_CP = functional.log_softmax(logits_CP, -1);
        loss.sub_(logP_CP.gather(1, target_C1).mul_(share_C1).sum());
        return logP_CP.exp_().scatter_add_(1, target_C1, full_like(share_C1, Scalars.Of(-1))).mul_(share_C1);
    }

    /// <summary>The same in one go over logits that are in the cache.</summary>
    /// <param name="room_CP">Becomes the result.</param>
    private unsafe Tensor Error(Tensor x_Cd, Tensor target_C, Tensor share_C, Tensor loss, Tensor room_CP)
    {
        room_CP.addmm_(x_Cd, weight_Pd.t(), beta: 0);
        Tensor dense_C = share_C.to(ScalarType.Float32).contiguous(), target = target_C.contiguous(), loss_C = empty_like(dense_C);
        SoftmaxError.Apply((float*)Dispatcher.DataPointer(room_CP), (long*)Dispatcher.DataPointer(target), (float*)Dispatcher.DataPointer(dense_C), (float*)Dispatcher.DataPointer(loss_C),
            (int)room_CP.shape[0], (int)room_CP.shape[1], vocabulary);
        loss.add_(loss_C.dot(dense_C), Scalars.One);
        return room_CP;
    }

    /// <summary>Cross-entropy of each token, with autograd's own gradients.</summary>
    /// <returns>loss_N, 0 where the target is <see cref="Decoder.IgnoredTarget"/>.</returns>
    public Tensor Each(Tensor x_Nd, Tensor targets_N)
    {
        Tensor weight_Vd = weight_Pd.narrow(0, 0, vocabulary);
        return cat([.. Chunks(x_Nd).Select(c => functional.cross_entropy(
            functional.linear(x_Nd.narrow(0, c.Start, c.Count), weight_Vd), targets_N.narrow(0, c.Start, c.Count), ignore_index: Decoder.IgnoredTarget, reduction: Reduction.None))]);
    }

    private IEnumerable<(long Start, long Count)> Chunks(Tensor x_Nd)
    {
        long tokens = x_Nd.shape[0], size = ChunkTokens(x_Nd);
        for (long start = 0; start < tokens; start += size) yield return (start, Math.Min(size, tokens - start));
    }

    // Logits of 32 MB on a CPU, where a matrix product of fewer tokens runs below its full rate, and of 512 on a GPU.
    private long ChunkTokens(Tensor x_Nd) => Math.Max(128, (x_Nd.device.type == DeviceType.CPU ? 1L << 23 : 1L << 27) / vocabulary);
}
