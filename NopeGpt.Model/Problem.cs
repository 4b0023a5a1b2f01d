namespace NopeGpt.Model;

/// <summary>One thing wrong with what a person asked for.</summary>
/// <param name="Field">Its name with its path, in snake_case: model.num_q_heads.</param>
/// <param name="Value">What was given.</param>
/// <param name="Message">What is wrong and the cure, in one sentence.</param>
public sealed record Problem(string Field, string Value, string Message);
