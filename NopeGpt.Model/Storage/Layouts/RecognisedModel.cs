namespace NopeGpt.Model.Storage.Layouts;

/// <summary>A model on disk whose layout was recognised and whose tensors fit its config. No weights were read.</summary>
/// <param name="Path">The folder or file that was asked for.</param>
/// <param name="Layout">One of <see cref="HubLayout.Names"/>.</param>
/// <param name="Config">The architecture and the sizes, as a <see cref="Decoder"/> takes them.</param>
/// <param name="ConfigPath">The file that gave the config: a config.json, a hparams.json, or the file with the weights itself.</param>
/// <param name="WeightFiles">The files that hold the weights.</param>
/// <param name="WeightBytes">Bytes of all tensors as they are stored.</param>
public sealed record RecognisedModel(string Path, string Layout, ModelConfig Config, string ConfigPath, IReadOnlyList<string> WeightFiles, long WeightBytes);
