using System.Text.Json.Nodes;
using static TorchSharp.torch;

namespace NopeGpt.Model.Storage.Layouts;

/// <summary>The Python package nope-gpt, and our own checkpoints, which have more keys in config.json where the architecture is another.</summary>
internal sealed class NopeGptLayout : Layout
{
    public override string Name => "nope-gpt";

    public override string Embedding => CanonicalNames.Embedding;

    public override string Head => CanonicalNames.Head;

    public override bool Owns(string name) =>
        name == Embedding || name.StartsWith("decoder.layers.", StringComparison.Ordinal) || name.StartsWith("token_classifier.", StringComparison.Ordinal);

    public override bool Owns(ConfigReader config) => config.Has("num_q_heads") || config.Has("embedding_dimensions");

    public override ModelConfig ReadConfig(ConfigReader? config, FileTensors tensors) =>
        ModelConfig.Read(config?.Path ?? Path.Combine(Path.GetDirectoryName(Path.GetFullPath(tensors.Source.Path))!, CheckpointFiles.ConfigName));

    public override IEnumerable<LayoutTensor> Tensors(ModelConfig config, bool transposed) =>
        ParameterShapes.Of(config).Select(p => new LayoutTensor(p.Name, p.Name));

    public override IEnumerable<Problem> Obstacles(ModelConfig config) => Unless(
        Name,
        (config.Positions == Positions.None, "positions", Snake(config.Positions), "none"),
        (config.Norm == Norm.RmsNorm, "norm", Snake(config.Norm), "rms_norm"),
        (config.NormEpsilon == ModelConfig.ReferenceEpsilon, "norm_epsilon", config.NormEpsilon, "2^-23 = 1.1920928955078125e-07"),
        (config.Mlp == Mlp.Silu, "mlp", Snake(config.Mlp), "silu"),
        (Ratio(config) is not null, config.HiddenSize > 0 ? "hidden_size" : "hidden_multiple_of", config.HiddenDimensions, "a hidden layer of 1, 2 or 4 times the width"),
        (!config.LinearBias, "linear_bias", config.LinearBias, "projections without a bias"),
        (config.TiedHead, "tied_head", config.TiedHead, "a head that is the embedding"));

    // The options beyond the seven keys are training settings here or at their defaults, so a config of defaults writes the seven.
    public override JsonObject? WriteConfig(ModelConfig config, ExportOptions options) => new()
    {
        ["vocabulary_size"] = config.VocabularySize,
        ["embedding_dimensions"] = config.EmbeddingDimensions,
        ["num_q_heads"] = config.NumQHeads,
        ["num_kv_heads"] = config.NumKvHeads,
        ["num_decoder_layers"] = config.NumDecoderLayers,
        ["hidden_ratio"] = Ratio(config),
        ["dropout"] = config.Dropout,
    };

    public override void WriteWeights(string folder, ModelConfig config, IReadOnlyList<(string Name, Tensor Tensor)> tensors, ExportOptions options)
    {
        long bytes = tensors.Sum(t => t.Tensor.numel()) * (options.Type == ScalarType.Float32 ? 4 : 2);
        if (bytes > options.MaxShardBytes)
            throw new ArgumentException($"The Python package {Name} reads one file, and the weights take {bytes} bytes, more than the {options.MaxShardBytes} of a shard: leave the size of shards out.", nameof(options));
        base.WriteWeights(folder, config, tensors, options);
    }

    private static int? Ratio(ModelConfig config) =>
        config.HiddenDimensions % config.EmbeddingDimensions == 0 && config.HiddenDimensions / config.EmbeddingDimensions is var ratio and (1 or 2 or 4) ? ratio : null;
}
