namespace NopeGpt.Model;
public sealed record ModelConfig { public int VocabularySize { get; init; } public int EmbeddingDimensions { get; init; } = 192; public int NumQHeads { get; init; } = 6; public int NumKvHeads { get; init; } = 2; public int NumDecoderLayers { get; init; } = 4; public int HiddenRatio { get; init; } = 4; public double Dropout { get; init; } }
