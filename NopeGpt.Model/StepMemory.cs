namespace NopeGpt.Model;

/// <summary>Bytes that a step of training takes beside parameters, gradients and optimizer state: what the forward pass keeps for the backward pass, and the
/// temporary tensors where most of it is alive. Float32, counted from the operators of <see cref="Decoder"/>; a benchmark compares it with peaks
/// measured on a CPU. What the allocator wastes comes on top.</summary>
/// <param name="Kept">What the blocks keep, when the backward pass begins.</param>
/// <param name="Reserved">What is used again from pass to pass and never given back (<see cref="Fused.ActivationPool"/>); only on a CPU.</param>
/// <param name="Head">The head and its loss, where they are the most: gradients of both factors, and the logits of one chunk.</param>
/// <param name="Block">The temporary tensors of one block's backward pass, and where blocks are computed again, what one keeps.</param>
/// <param name="StaysToTheEnd">What is kept goes only when the backward pass is over.</param>
public sealed record StepMemory(long Kept, long Reserved, long Head, long Block, bool StaysToTheEnd)
{
    private const int Float = sizeof(float);

    /// <param name="rows">Samples of a micro-batch.</param>
    /// <param name="length">Tokens of each.</param>
    /// <param name="recomputed">Whether each block keeps only its input (<see cref="Decoder.ActivationCheckpointing"/>).</param>
    /// <param name="cpu">Whether the device is one, which has operators of its own.</param>
    public static StepMemory Of(ModelConfig config, int rows, int length, bool recomputed, bool cpu)
    {
        long token = (long)rows * length * Float, d = config.EmbeddingDimensions * token, hidden = config.HiddenDimensions * token, layers = config.NumDecoderLayers;
        long table = (long)config.PaddedVocabularySize * config.EmbeddingDimensions * Float;
        long logits = Math.Min(token, HeadLoss.ChunkTokens(config.VocabularySize, cpu) * Float) * config.PaddedVocabularySize;
        long block = PerToken(config, length, cpu) * token;
        if (cpu)
        {
            // What linear1 made, in each block that is kept; beside it one hidden layer, one normalised stream, and a chunk's logits.
            long rented = ((recomputed ? 1 : layers) * (config.Mlp == Mlp.Swiglu ? 2 : 1) * hidden) + hidden + d + logits;
            // As measured, the operators' gradients are as large as what they keep, and all of both is there until the backward pass is over.
            return recomputed ? new(2 * layers * d, rented, 0, block, true) : new(2 * layers * block, rented, 0, 0, true);
        }
        // The gradient by the weights and by the stream, the last normalisation, and logits with two of their like.
        long head = table + (3 * d) + (3 * logits);
        // Gradients of the hidden layer, by the activation's output and by its input.
        long backward = 2 * hidden;
        // A block's input, its gradient, and the room that an autograd function of TorchSharp takes for its output.
        return recomputed ? new(3 * layers * d, 0, head, block + backward, true) : new(layers * block, 0, head, backward, false);
    }

    /// <summary>The most at one time, gradients included. They grow as the activations go: at the head all activations are there, at the first block all gradients.</summary>
    /// <param name="gradients">Of all parameters.</param>
    /// <param name="held">Whether they are there from the beginning: several micro-batches, or replicas.</param>
    public long PeakWith(long gradients, bool held) => Reserved + (StaysToTheEnd ? gradients + Kept + Block
        : held ? gradients + Kept + Math.Max(Head, Block)
        : Math.Max(Kept + Math.Max(Head, Block), gradients + Block));

    /// <summary>Numbers that a block keeps of each token, the hidden layer left out where its memory is reserved.</summary>
    private static long PerToken(ModelConfig config, int length, bool cpu)
    {
        long d = config.EmbeddingDimensions, heads = config.NumQHeads;
        // Queries, keys and values, the mixed values and how they are weighted in sum.
        long attention = (2 * d) + (2 * config.KvDimensions) + heads;
        // Written out for dropout: weights before and after it, and what was kept of them.
        if (config.AttentionDropout > 0) attention += 3 * heads * length;
        long dropped = (config.ResidualDropout > 0 ? 2 * d : 0) + (config.Dropout > 0 ? 1 : 0);
        // The input of each normalisation; where it is made of several operators, also the normalised tokens, and its output for the projections.
        if (cpu) return (2 * d) + attention + dropped;
        return ((config.Norm == Norm.RmsNorm ? 6 : 4) * d) + attention + dropped + ((config.Mlp == Mlp.Swiglu ? 4 : 2) * config.HiddenDimensions);
    }
}
