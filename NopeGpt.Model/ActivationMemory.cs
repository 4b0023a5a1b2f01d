namespace NopeGpt.Model;

/// <summary>Bytes that a step of training takes beside parameters, gradients and optimizer state: what the forward pass keeps for the backward pass, and the
/// temporary tensors where most of it is alive. Float32, counted from the operators of <see cref="Decoder"/>; a benchmark compares it with measured peaks.
/// What the allocator wastes comes on top.</summary>
/// <param name="Kept">What the blocks keep, when the backward pass begins.</param>
/// <param name="Head">The head and its loss: gradients of both factors, and the logits of one chunk.</param>
/// <param name="Block">The temporary tensors of one block's backward pass, and where blocks are computed again, what one keeps.</param>
/// <param name="Recomputed">Blocks are computed again, and what is kept of them goes when the backward pass is over.</param>
public sealed record ActivationMemory(long Kept, long Head, long Block, bool Recomputed)
{
    private const int Float = sizeof(float);

    /// <param name="rows">Samples of a micro-batch.</param>
    /// <param name="length">Tokens of each.</param>
    /// <param name="recomputed">Whether each block keeps only its input (<see cref="Decoder.ActivationCheckpointing"/>).</param>
    /// <param name="cpu">Whether the device is one: its chunks of logits are smaller.</param>
    public static ActivationMemory Of(ModelConfig config, int rows, int length, bool recomputed, bool cpu)
    {
        long tokens = (long)rows * length, d = config.EmbeddingDimensions;
        long block = PerToken(config, length) * tokens * Float, stream = d * tokens * Float, table = config.PaddedVocabularySize * d * Float;
        // The head's gradient by the weights, and once more as the backward pass scales it; the gradient by the stream; the last normalisation.
        long head = (2 * table) + ((Norm(config) + d) * tokens * Float) + (3 * Math.Min(tokens, HeadLoss.ChunkTokens(config.VocabularySize, cpu)) * config.PaddedVocabularySize * Float);
        // Gradients of the hidden layer, by the activation's output and by its input.
        long backward = 2 * config.HiddenDimensions * tokens * Float;
        // A block's input, its gradient, and the room that an autograd function of TorchSharp takes for its output.
        return recomputed ? new(3 * config.NumDecoderLayers * stream, head, block + backward, true) : new(config.NumDecoderLayers * block, head, backward, false);
    }

    /// <summary>The most at one time, gradients included. They grow as the activations go: at the head all activations are there, at the first block all gradients.</summary>
    /// <param name="gradients">Of all parameters.</param>
    /// <param name="held">Whether they are there from the beginning: several micro-batches, or replicas.</param>
    public long PeakWith(long gradients, bool held) => held
        ? gradients + Kept + Math.Max(Head, Block)
        : Math.Max(Kept + Math.Max(Head, Block), gradients + Block + (Recomputed ? Kept : 0));

    /// <summary>Numbers that a block keeps of each token.</summary>
    private static long PerToken(ModelConfig config, int length)
    {
        long d = config.EmbeddingDimensions, hidden = config.HiddenDimensions, heads = config.NumQHeads;
        // Queries, keys and values, the mixed values and how they are weighted in sum.
        long attention = (2 * d) + (2 * config.KvDimensions) + heads;
        // Written out for dropout: weights before and after it, and what was kept of them.
        if (config.AttentionDropout > 0) attention += 3 * heads * length;
        long mlp = config.Mlp == Mlp.Swiglu ? 4 * hidden : 2 * hidden;
        long dropped = (config.ResidualDropout > 0 ? 2 * d : 0) + (config.Dropout > 0 ? 1 : 0);
        return (2 * (Norm(config) + d)) + attention + mlp + dropped;
    }

    /// <summary>A normalisation's input and, where it is made of several operators, the normalised tokens; its output is the projections' input.</summary>
    private static long Norm(ModelConfig config) => (config.Norm == Model.Norm.RmsNorm ? 2 : 1) * config.EmbeddingDimensions;
}
