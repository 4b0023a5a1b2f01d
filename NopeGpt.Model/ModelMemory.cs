using NopeGpt.Model.Replicas;

namespace NopeGpt.Model;

/// <summary>Bytes that a model takes on a device, from its shapes. Activations are not in it: they depend on the batch.</summary>
/// <param name="Weights">Float32 weights, which is how every model is held.</param>
/// <param name="Gradients">As many again, while training all parameters.</param>
/// <param name="AdamWState">Two moments of each parameter.</param>
/// <param name="AdafactorState">A row and a column for each matrix, one value for each element of a vector.</param>
/// <param name="MuonState">One momentum of each hidden matrix, two moments of all else.</param>
/// <param name="CachePerToken">Keys and values of one token of one text, over all blocks.</param>
public sealed record ModelMemory(long Weights, long Gradients, long AdamWState, long AdafactorState, long MuonState, long CachePerToken)
{
    private const int Float = sizeof(float);

    public static ModelMemory Of(ModelConfig config)
    {
        long weights = config.ParameterCount * Float;
        return new(weights, weights, 2 * weights, Factored(config) * Float, (2 * weights) - (Hidden(config) * Float), 2L * config.NumDecoderLayers * config.KvDimensions * Float);
    }

    /// <summary>Parameters in the matrices of the blocks.</summary>
    private static long Hidden(ModelConfig config)
    {
        ModelConfig plain = config with { LinearBias = false };
        return plain.Parameters.Attention + plain.Parameters.Mlp;
    }

    /// <summary>What each of several devices holds at most, where they train one model together.</summary>
    /// <param name="state">Bytes of the whole optimizer state.</param>
    public static DeviceShare PerDevice(ModelConfig config, int devices, Sharding sharding, long state)
    {
        ModelMemory whole = Of(config);
        if (devices == 1) return new(whole.Weights, whole.Gradients, state);
        // What is split is whole for a while: two parts in a row, and gradients of a tied table from the head's pass to the embeddings'.
        long table = (long)config.PaddedVocabularySize * config.EmbeddingDimensions * Float;
        long block = (config.Parameters.Attention + config.Parameters.Mlp + config.Parameters.Norms) * Float / config.NumDecoderLayers;
        long second = config.NumDecoderLayers > 1 ? block : 0, two = block + Math.Max(table, second), reduced = config.TiedHead ? table + block + second : two;
        return new(
            sharding == Sharding.Parameters ? (whole.Weights / devices) + two : whole.Weights,
            sharding == Sharding.None ? whole.Gradients : (whole.Gradients / devices) + reduced,
            sharding == Sharding.None ? state : state / devices);
    }

    private static long Factored(ModelConfig config)
    {
        long d = config.EmbeddingDimensions, kv = config.KvDimensions, hidden = config.HiddenDimensions, inner = config.Mlp == Mlp.Swiglu ? 2 : 1;
        long table = config.PaddedVocabularySize + d;
        // q and out; k and v; linear1 (and 3) and linear2.
        long block = (4 * d) + (2 * (kv + d)) + ((inner + 1) * (hidden + d));
        if (config.LinearBias) block += (2 * d) + (2 * kv) + d + (inner * hidden);
        return table + (config.TiedHead ? 0 : table) + (config.Positions == Positions.Learned ? config.ContextLength + d : 0)
            + (config.NumDecoderLayers * block) + config.Parameters.Norms;
    }
}

/// <summary>Bytes that one of several devices holds at most, activations left out.</summary>
/// <param name="Weights">Its share, and what is gathered for a while, at sharding level 3; else all.</param>
/// <param name="Gradients">Its share, and what is whole until it is reduced, at levels 2 and 3; else all.</param>
/// <param name="Optimizer">Its share at levels 2 and 3; else all.</param>
public sealed record DeviceShare(long Weights, long Gradients, long Optimizer);
