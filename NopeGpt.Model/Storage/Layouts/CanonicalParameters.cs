namespace NopeGpt.Model.Storage.Layouts;

/// <summary>The names and shapes of a <see cref="Decoder"/>'s parameters, computed from its config alone, so that a file can be judged before
/// anything is allocated.</summary>
internal static class CanonicalParameters
{
    public const string Embedding = "token_embeddings.weight", Positions = "position_embeddings.weight", FinalNorm = "token_classifier.norm";
    public const string Head = "token_classifier.linear.weight";

    public static string Layer(int layer) => $"decoder.layers.{layer}.";

    /// <summary>One after the other, for a config of any size.</summary>
    public static IEnumerable<(string Name, long[] Shape)> Of(ModelConfig config)
    {
        long d = config.EmbeddingDimensions, kv = config.KvDimensions, hidden = config.HiddenDimensions, rows = config.PaddedVocabularySize;
        bool normBias = config.Norm == Norm.LayerNorm && config.NormBias;
        yield return (Embedding, [rows, d]);
        if (config.Positions == Model.Positions.Learned) yield return (Positions, [config.ContextLength, d]);
        for (int i = 0; i < config.NumDecoderLayers; i++)
        {
            string layer = Layer(i);
            (string Name, long[] Shape)[] projections =
            [
                ("stage1.q_proj", [d, d]), ("stage1.k_proj", [kv, d]), ("stage1.v_proj", [kv, d]), ("stage1.out_proj", [d, d]),
                ("stage2.linear1", [hidden, d]), ("stage2.linear2", [d, hidden]),
            ];
            if (config.Mlp == Mlp.Swiglu) projections = [.. projections, ("stage2.linear3", [hidden, d])];
            foreach (string norm in (string[])["norm1", "norm2"])
            {
                yield return ($"{layer}{norm}.weight", [d]);
                if (normBias) yield return ($"{layer}{norm}.bias", [d]);
            }
            foreach ((string name, long[] shape) in projections)
            {
                yield return ($"{layer}{name}.weight", shape);
                if (config.LinearBias) yield return ($"{layer}{name}.bias", [shape[0]]);
            }
        }
        yield return ($"{FinalNorm}.weight", [d]);
        if (normBias) yield return ($"{FinalNorm}.bias", [d]);
        if (!config.TiedHead) yield return (Head, [rows, d]);
    }
}
