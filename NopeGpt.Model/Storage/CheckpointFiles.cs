namespace NopeGpt.Model.Storage;

/// <summary>Where the parts of a complete checkpoint lie.</summary>
/// <param name="Folder">The checkpoint's folder, named after its step in a run.</param>
public sealed record CheckpointFiles(string Folder)
{
    internal const string ConfigName = "config.json", ModelName = "model.safetensors", TokenizerName = "tokenizer.json";
    internal const string OptimizerName = "optimizer.safetensors", TrainerName = "trainer.json";

    /// <summary>All but trainer.json, which holds their hashes beside the one of its own values.</summary>
    internal static readonly IReadOnlyList<string> Hashed = [ConfigName, ModelName, TokenizerName, OptimizerName];

    public string Config => Path.Combine(Folder, ConfigName);

    public string Model => Path.Combine(Folder, ModelName);

    public string Tokenizer => Path.Combine(Folder, TokenizerName);

    public string Optimizer => Path.Combine(Folder, OptimizerName);

    public string Trainer => Path.Combine(Folder, TrainerName);
}
