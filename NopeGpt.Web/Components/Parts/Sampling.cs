namespace NopeGpt.Web.Components.Parts;

/// <summary>How the next token is drawn.</summary>
/// <param name="Seed">Null draws one for each reply.</param>
public sealed record Sampling(double Temperature = 0.8, int TopK = 40, double TopP = 0.95, ulong? Seed = null, int MaxTokens = 200);
