namespace NopeGpt.Model;

/// <summary>The names and shapes of a model's parameters without building it, so that a loader can compare a file with its config before it
/// allocates what the config asks for.</summary>
public static class ParameterShapes
{
    /// <summary>Those of <see cref="Decoder.Parameters"/>, in its order. The config must have no problems.</summary>
    public static IEnumerable<(string Name, long[] Shape)> Of(ModelConfig config)
    {
        long d = config.EmbeddingDimensions, kv = config.KvDimensions, hidden = config.HiddenDimensions, rows = config.PaddedVocabularySize;
        yield return ("token_embeddings.weight", [rows, d]);
        if (config.Positions == Positions.Learned) yield return ("position_embeddings.weight", [config.ContextLength, d]);
        for (int i = 0; i < config.NumDecoderLayers; i++)
        {
            string layer = $"decoder.layers.{i}.";
            IEnumerable<(string, long[])> block =
            [
                .. Norm(config, layer + "norm1"),
                .. Linear(config, layer + "stage1.q_proj", d, d),
                .. Linear(config, layer + "stage1.k_proj", kv, d),
                .. Linear(config, layer + "stage1.v_proj", kv, d),
                .. Linear(config, layer + "stage1.out_proj", d, d),
                .. Norm(config, layer + "norm2"),
                .. Linear(config, layer + "stage2.linear1", hidden, d),
                .. Linear(config, layer + "stage2.linear2", d, hidden),
                .. config.Mlp == Mlp.Swiglu ? Linear(config, layer + "stage2.linear3", hidden, d) : [],
            ];
            foreach ((string, long[]) parameter in block) yield return parameter;
        }
        foreach ((string, long[]) parameter in Norm(config, "token_classifier.norm")) yield return parameter;
        if (!config.TiedHead) yield return ("token_classifier.linear.weight", [rows, d]);
    }

    private static IEnumerable<(string, long[])> Norm(ModelConfig config, string name) =>
        config.NormBias ? [(name + ".weight", [config.EmbeddingDimensions]), (name + ".bias", [config.EmbeddingDimensions])] : [(name + ".weight", [config.EmbeddingDimensions])];

    private static IEnumerable<(string, long[])> Linear(ModelConfig config, string name, long outputs, long inputs) =>
        config.LinearBias ? [(name + ".weight", [outputs, inputs]), (name + ".bias", [outputs])] : [(name + ".weight", [outputs, inputs])];
}
