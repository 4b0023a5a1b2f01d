namespace NopeGpt.Model.Storage.Layouts;

/// <summary>The parameters' names that a mapping speaks of; <see cref="ParameterShapes"/> has all of them.</summary>
internal static class CanonicalNames
{
    public const string Embedding = "token_embeddings.weight", Positions = "position_embeddings.weight", FinalNorm = "token_classifier.norm", Head = "token_classifier.linear.weight";

    /// <summary>What a block's names begin with.</summary>
    public static string Layer(int layer) => $"decoder.layers.{layer}.";
}
