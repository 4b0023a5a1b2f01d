using System.Text.Json.Nodes;
using static TorchSharp.torch;

namespace NopeGpt.Model.Storage.Layouts;

/// <summary>The .bin files of llama2.c (karpathy/llama2.c) in float32: <see cref="Llama2CFile"/> reads and writes them. Rotary pairs are adjacent, as ours.</summary>
internal sealed class Llama2CLayout : RotaryLayout
{
    private const string FileName = "model.bin";

    public override string Name => "llama2.c";

    public override string Embedding => "tok_embeddings.weight";

    public override string Head => "output.weight";

    protected override string Blocks => "layers.";

    protected override IReadOnlyList<string> BlockNames =>
        ["attention_norm", "attention.wq", "attention.wk", "attention.wv", "attention.wo", "ffn_norm", "feed_forward.w1", "feed_forward.w2", "feed_forward.w3"];

    protected override string FinalNorm => "norm";

    // The config is in the file itself.
    public override bool Owns(ConfigReader config) => false;

    public override ModelConfig ReadConfig(ConfigReader? config, FileTensors tensors) => tensors.Source is Llama2CFile file ? file.Config
        : throw new InvalidDataException($"{tensors.Source.Path}: the tensors have the names of Meta's Llama files, which can be loaded only from a .bin file of llama2.c; convert it with llama2.c's export.py.");

    public override IEnumerable<Problem> Obstacles(ModelConfig config) =>
    [
        .. base.Obstacles(config), .. NeedsContext(config), .. NeedsTheta(config), .. NeedsNoBias(config),
        .. Unless(Name, (config.NormEpsilon == Llama2CFile.Epsilon, "norm_epsilon", config.NormEpsilon, "1e-5")),
    ];

    public override JsonObject? WriteConfig(ModelConfig config, ExportOptions options) => null;

    public override void WriteWeights(string folder, ModelConfig config, IReadOnlyList<(string Name, Tensor Tensor)> tensors, ExportOptions options)
    {
        if (options.Type != ScalarType.Float32 || options.MaxShardBytes is not null) throw new ArgumentException($"{Name} has only float32 in one file: leave out type and shards.", nameof(options));
        Llama2CFile.Save(Path.Combine(folder, FileName), config, tensors.ToDictionary(t => t.Name, t => t.Tensor));
    }
}
