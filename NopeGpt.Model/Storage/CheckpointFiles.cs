namespace NopeGpt.Model.Storage;

/// <summary>Where the parts of a complete checkpoint lie.</summary>
/// <param name="Folder">The checkpoint's folder, named after its step in a run.</param>
public sealed record CheckpointFiles(string Folder)
{
    internal const string ConfigName = "config.json", ModelName = "model.safetensors", TokenizerName = "tokenizer.json";
    internal const string OptimizerName = "optimizer.safetensors", TrainerName = "trainer.json";

    /// <summary>All but trainer.json, which holds their hashes beside the one of its own values.</summary>
    internal static readonly IReadOnlyList<string> Hashed = [ConfigName, ModelName, TokenizerName, OptimizerName];

    /// <summary>The same of an adapter's checkpoint, whose base is elsewhere and never changes.</summary>
    internal static readonly IReadOnlyList<string> HashedOfAdapter = [AdapterFile.JsonName, AdapterFile.TensorsName, TokenizerName, OptimizerName];

    /// <summary>True for the checkpoint of an adapter in training: it has the adapter's files in place of a model's.</summary>
    public bool IsAdapter => File.Exists(Path.Combine(Folder, AdapterFile.JsonName)) && !File.Exists(Model);

    public string Config => Path.Combine(Folder, ConfigName);

    public string Model => Path.Combine(Folder, ModelName);

    public string Tokenizer => Path.Combine(Folder, TokenizerName);

    public string Optimizer => Path.Combine(Folder, OptimizerName);

    public string Trainer => Path.Combine(Folder, TrainerName);
}
