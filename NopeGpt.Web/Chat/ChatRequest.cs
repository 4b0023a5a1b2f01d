namespace NopeGpt.Web.Chat;

/// <summary>A question to a model.</summary>
/// <param name="Model">A run's id (its newest checkpoint), "id/step", or a checkpoint folder.</param>
/// <param name="Temperature">0 takes the most probable token each time.</param>
/// <param name="TopK">Only the k most probable tokens are drawn from.</param>
/// <param name="TopP">Only the most probable tokens that together reach this probability are drawn from.</param>
/// <param name="Seed">The same seed, checkpoint and messages give the same reply; null draws one.</param>
/// <param name="MaxTokens">The reply ends here at the latest.</param>
public sealed record ChatRequest(string Model, IReadOnlyList<ChatMessage> Messages, double Temperature, int TopK, double TopP, ulong? Seed, int MaxTokens);

/// <param name="Role">system, user or assistant.</param>
public sealed record ChatMessage(string Role, string Content);

/// <summary>A part of a reply as it comes.</summary>
/// <param name="Text">The text that is new; empty in the last piece.</param>
/// <param name="FinishReason">Why it ended (stop, length); null until the last piece.</param>
/// <param name="Tokens">Tokens of the reply so far.</param>
/// <param name="TokensPerSecond">Speed so far; in the last piece as the model process measured it.</param>
/// <param name="Seed">The seed that was used; 0 until it is known.</param>
public sealed record ChatPiece(string Text, string? FinishReason, int Tokens, double TokensPerSecond, ulong Seed);

/// <summary>No reply, or no more of it; the message is a sentence to show.</summary>
public sealed class InferenceException(string message, Exception? inner = null) : Exception(message, inner);
