using NopeGpt.Model.Native;
using TorchSharp;
using static TorchSharp.torch;
using static TorchSharp.torch.nn;

namespace NopeGpt.Model;

/// <summary>The head and its cross-entropy, a chunk of tokens at a time, so that the logits, the widest tensor of all, are never whole in memory.</summary>
/// <param name="weight_Pd">The head's matrix: the vocabulary and, behind it, rows of padding, which get probability 0 and no gradient.</param>
/// <param name="type">Of the products in training, where it is not that of x. Softmax, loss and gradients have x's.</param>
internal readonly struct HeadLoss(Tensor weight_Pd, int vocabulary, ScalarType? type)
{
    /// <summary>Cross-entropy summed with the given weights. The gradients of both factors of the head are computed with the loss, so that
    /// the logits are neither kept nor computed twice. Against one product and cross_entropy this takes two thirds of the time at
    /// V = 4096 on a CPU.</summary>
    /// <param name="share_N">Weight of each token's loss in the sum.</param>
    public Tensor Sum(Tensor x_Nd, Tensor targets_N, Tensor share_N)
    {
        Tensor loss, xGradient_Nd, wGradient_Pd;
        // A frozen head costs no gradient.
        bool backward = x_Nd.requires_grad, wBackward = backward && weight_Pd.requires_grad;
        using (no_grad())
        {
            Tensor target_N1 = targets_N.clamp(min: Scalars.Zero).unsqueeze(1), share_N1 = share_N.unsqueeze(1);
            loss = zeros([], device: x_Nd.device);
            xGradient_Nd = backward ? empty_like(x_Nd) : loss;
            wGradient_Pd = wBackward ? zeros_like(weight_Pd) : loss;
            Tensor narrow_Pd = weight_Pd.As(type);
            foreach ((long start, long count) in Chunks(x_Nd))
            {
                using DisposeScope chunk = NewDisposeScope();
                Tensor x_Cd = x_Nd.narrow(0, start, count), target_C1 = target_N1.narrow(0, start, count), share_C1 = share_N1.narrow(0, start, count);
                Tensor logits_CP = functional.linear(x_Cd.As(type), narrow_Pd).As(x_Nd.dtype);
                if (vocabulary < weight_Pd.shape[0]) logits_CP.narrow(1, vocabulary, weight_Pd.shape[0] - vocabulary).fill_(Scalars.MinusInfinity);
                Tensor logP_CP = functional.log_softmax(logits_CP, -1);
                loss.sub_(logP_CP.gather(1, target_C1).mul_(share_C1).sum());
                if (!backward) continue;
                // The gradient by the logits is share · (softmax - one_hot(target)); the share is applied where it is narrow.
                Tensor error_CP = logP_CP.exp_().scatter_add_(1, target_C1, full_like(share_C1, Scalars.Of(-1)));
                xGradient_Nd.narrow(0, start, count).copy_(error_CP.As(type).matmul(narrow_Pd)).mul_(share_C1);
                if (!wBackward) continue;
                if (type is null) wGradient_Pd.addmm_(error_CP.T, x_Cd.mul(share_C1));
                else AddProduct(wGradient_Pd, error_CP, x_Cd, share_C1);
            }
        }
        if (!backward) return loss;
        // This has exactly those gradients, and its own value is taken off again.
        Tensor carrier = x_Nd.flatten().dot(xGradient_Nd.flatten());
        if (wBackward) carrier = carrier.add(weight_Pd.flatten().dot(wGradient_Pd.flatten()), Scalars.One);
        return loss.add(carrier.sub(carrier.detach()), Scalars.One);
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

    // Runs of tokens whose logits stay in a CPU's cache, or fill a GPU.
    private IEnumerable<(long Start, long Count)> Chunks(Tensor x_Nd)
    {
        long tokens = x_Nd.shape[0], size = Math.Max(128, (x_Nd.device.type == DeviceType.CPU ? 1L << 20 : 1L << 27) / vocabulary);
        for (long start = 0; start < tokens; start += size) yield return (start, Math.Min(size, tokens - start));
    }
}
