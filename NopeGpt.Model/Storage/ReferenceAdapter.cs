using static TorchSharp.torch;

namespace NopeGpt.Model.Storage;

/// <summary>An adapter as the Python package nope-gpt keeps it: lora.json {rank, alpha, vocabulary_size}, and the state of the whole model in lora.safetensors,
/// where a projection with a product is ….parametrizations.weight.original beside ….parametrizations.weight.0.lora_a and lora_b.</summary>
internal static class ReferenceAdapter
{
    public const string JsonName = "lora.json", TensorsName = "lora.safetensors";

    private const string Original = ".parametrizations.weight.original", FactorA = ".parametrizations.weight.0.lora_a", FactorB = ".parametrizations.weight.0.lora_b";

    public static Adapter Load(string folder, Decoder model)
    {
        AdapterJson json = AdapterJson.Read(Path.Combine(folder, JsonName));
        string path = Path.Combine(folder, TensorsName);
        using SafetensorsFile tensors = AdapterFolder.Open(path);
        LoraConfig config = new() { Rank = json.Integer("rank"), Alpha = json.Number("alpha") };
        LoraTarget[] targets = [.. config.Targets(model.Config).Where(t => tensors.Contains(t.Name + FactorA) || tensors.Contains(t.Name + FactorB))];
        config = config with { Projections = targets.Aggregate(Projections.None, (all, t) => all | t.Projection) };
        int vocabulary = json.Integer("vocabulary_size");
        json.Check(config.Problems(model.Config).Concat(Adapter.VocabularyProblems(model.Config, vocabulary)));

        AdapterTensors source = new(path, tensors);
        foreach (LoraTarget target in config.Targets(model.Config)) source.Add(target, config.Rank, target.Name + FactorA, target.Name + FactorB);
        source.AddTables(model.Config with { VocabularySize = vocabulary });
        // The file names no base, but has the weights of it.
        foreach ((string name, Tensor parameter) in model.Parameters())
        {
            if (name is Adapter.EmbeddingName or Adapter.HeadName) continue;
            string original = name[..^".weight".Length] + Original;
            string found = name.EndsWith(".weight", StringComparison.Ordinal) && tensors.Contains(original) ? original : name;
            source.MustEqual(found, parameter, $"the base's {name}");
        }
        if (model.Config.TiedHead && tensors.Contains(Adapter.HeadName) && tensors.Contains(Adapter.EmbeddingName))
        {
            using Tensor embedding = tensors.Load(Adapter.EmbeddingName);
            source.MustEqual(Adapter.HeadName, embedding, $"{Adapter.EmbeddingName}, to which it is tied");
        }
        return source.Read(model, config, vocabulary, model.WeightsHash());
    }
}
