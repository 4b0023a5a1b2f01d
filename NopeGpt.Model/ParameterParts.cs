namespace NopeGpt.Model;

/// <summary>How many parameters each part of a model has.</summary>
/// <param name="Embedding">V·d, with the padding of the vocabulary. A tied head is the same parameters and counted here only.</param>
/// <param name="Positions">context_length·d where positions are learned.</param>
/// <param name="Attention">L(2d² + 2d·kv), and 2d + 2kv biases a block.</param>
/// <param name="Mlp">2L·d·h, or 3L·d·h with a gate, and d + h (d + 2h) biases a block.</param>
/// <param name="Norms">(2L + 1)d, twice that with biases.</param>
/// <param name="Head">V·d where the head is not tied.</param>
public sealed record ParameterParts(long Embedding, long Positions, long Attention, long Mlp, long Norms, long Head)
{
    public long Total => Embedding + Positions + Attention + Mlp + Norms + Head;

    internal static ParameterParts Of(ModelConfig config)
    {
        long d = config.EmbeddingDimensions, kv = config.KvDimensions, hidden = config.HiddenDimensions, layers = config.NumDecoderLayers;
        long table = config.PaddedVocabularySize * d;
        long bias = config.LinearBias ? 1 : 0, inner = config.Mlp == Model.Mlp.Swiglu ? 2 : 1;
        return new(
            Embedding: table,
            Positions: config.Positions == Model.Positions.Learned ? config.ContextLength * d : 0,
            Attention: layers * ((2 * d * d) + (2 * d * kv) + (bias * ((2 * d) + (2 * kv)))),
            Mlp: layers * (((inner + 1) * d * hidden) + (bias * (d + (inner * hidden)))),
            Norms: ((2 * layers) + 1) * d * (config.NormBias ? 2 : 1),
            Head: config.TiedHead ? 0 : table);
    }
}
