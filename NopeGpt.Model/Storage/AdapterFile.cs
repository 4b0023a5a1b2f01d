using System.Security.Cryptography;
using System.Text.Json;
using System.Text.Json.Nodes;
using static TorchSharp.torch;

namespace NopeGpt.Model.Storage;

/// <summary>An adapter's own files. adapter.json has the keys of <see cref="LoraConfig"/>, format_version, vocabulary_size, base {sha256, config}
/// (<see cref="Decoder.WeightsHash"/>) and hashes {adapter.safetensors}; the tensors are named after their projections: ….lora_a, ….lora_b.</summary>
internal static class AdapterFile
{
    public const string JsonName = "adapter.json", TensorsName = "adapter.safetensors";

    private const int FormatVersion = 1;
    private const string VersionKey = "format_version", VocabularyKey = "vocabulary_size", BaseKey = "base", HashKey = "sha256", ConfigKey = "config", HashesKey = "hashes";

    private static readonly JsonSerializerOptions Indented = new() { WriteIndented = true };

    private static readonly string[] ConfigKeys = [.. ((JsonObject)JsonSerializer.SerializeToNode(new LoraConfig())!).Select(p => p.Key)];

    public static void Save(string folder, Adapter adapter, IReadOnlyDictionary<string, Tensor> values)
    {
        string[] others = Directory.Exists(folder)
            ? [.. Directory.EnumerateFileSystemEntries(folder).Select(p => Path.GetFileName(p)).Where(n => n is not (JsonName or TensorsName))]
            : [];
        if (others.Length > 0) throw new IOException($"{folder}: holds {others[0]}, which would be lost, so no adapter is written there; choose a new folder.");
        CheckpointFolder.Write(folder, aside => WriteInto(aside, adapter, values));
    }

    /// <summary>Writes the two files into a folder that is not yet under its final name.</summary>
    /// <param name="values">Of its tensors, by name; null for its own.</param>
    public static void WriteInto(string folder, Adapter adapter, IReadOnlyDictionary<string, Tensor>? values = null)
    {
        string tensors = Path.Combine(folder, TensorsName);
        using TorchSharp.DisposeScope scope = TorchSharp.torch.NewDisposeScope();
        // Without the vocabulary's padding, which the same base may not have in another layout.
        SafetensorsFile.Save(tensors, adapter.Tensors().Select(t => (t.Name, Value(t.Name, t.Tensor))), new Dictionary<string, string> { ["format"] = "pt" });
        JsonObject json = (JsonObject)JsonSerializer.SerializeToNode(adapter.Config)!;
        json.Insert(0, VersionKey, FormatVersion);
        json[VocabularyKey] = adapter.VocabularySize;
        json[BaseKey] = new JsonObject { [HashKey] = adapter.BaseHash, [ConfigKey] = JsonNode.Parse(ModelConfigFile.Serialize(adapter.BaseConfig)) };
        json[HashesKey] = new JsonObject { [TensorsName] = Hash(tensors) };
        File.WriteAllText(Path.Combine(folder, JsonName), json.ToJsonString(Indented) + "\n");

        Tensor Value(string name, Tensor own) => (values?[name] ?? own) is var value && name is Adapter.EmbeddingName or Adapter.HeadName ? value.narrow(0, 0, adapter.VocabularySize) : value;
    }

    public static Adapter Load(string folder, Decoder model)
    {
        AdapterJson json = AdapterJson.Read(Path.Combine(folder, JsonName));
        int version = json.Integer(VersionKey);
        if (version is < 1 or > FormatVersion) throw json.Wrong(VersionKey, $"is not one of the versions from 1 to {FormatVersion} that this program knows: use a newer NopeGpt");
        LoraConfig config = json.Settings<LoraConfig>(ConfigKeys);
        AdapterJson of = json.Object(BaseKey);
        string expected = of.String(HashKey), actual = model.WeightsHash();
        if (expected != actual)
            throw new InvalidDataException($"{json.Path}: the adapter is for the base with the SHA-256 {expected}, and this one has {actual}{Differences(of.Object(ConfigKey).Values, model.Config)}; use the base that it was trained on.");
        int vocabulary = json.Integer(VocabularyKey);
        json.Check(config.Problems(model.Config).Concat(Adapter.VocabularyProblems(model.Config, vocabulary)));
        string path = Path.Combine(folder, TensorsName), hash = json.Object(HashesKey).String(TensorsName);
        using SafetensorsFile tensors = AdapterFolder.Open(path);
        if (Hash(path) != hash) throw new InvalidDataException($"{path}: its SHA-256 is not the one in {JsonName}, so it was changed or damaged; copy the adapter again.");
        AdapterTensors source = new(path, tensors);
        foreach (LoraTarget target in config.Targets(model.Config))
            source.Add(target, config.Rank, target.Name + Adapter.FactorA, target.Name + Adapter.FactorB);
        if (tensors.Contains(Adapter.EmbeddingName) || vocabulary > model.Config.VocabularySize) source.AddTables(model.Config with { VocabularySize = vocabulary });
        return source.Read(model, config, vocabulary, actual);
    }

    private static string Hash(string path)
    {
        using FileStream stream = new(path, FileMode.Open, FileAccess.Read, FileShare.Read, bufferSize: 1 << 20, FileOptions.SequentialScan);
        return Convert.ToHexStringLower(SHA256.HashData(stream));
    }

    // Where already the architectures differ, that says more than hashes.
    private static string Differences(JsonObject recorded, ModelConfig config)
    {
        JsonObject found = (JsonObject)JsonNode.Parse(ModelConfigFile.Serialize(config))!;
        string[] differences = [.. recorded.Select(p => p.Key).Union(found.Select(p => p.Key))
            .Where(k => recorded[k]?.ToJsonString() != found[k]?.ToJsonString())
            .Select(k => $"{k} {recorded[k]?.ToJsonString() ?? "by default"} in place of {found[k]?.ToJsonString() ?? "the default"}")];
        return differences.Length == 0 ? "" : $" (it was made for {string.Join(", ", differences)})";
    }
}
