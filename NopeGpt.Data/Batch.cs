namespace NopeGpt.Data;

/// <summary>Rows of tokens, row-major.</summary>
/// <param name="Rows">number of rows</param>
/// <param name="Length">tokens in a row</param>
/// <param name="Tokens">ids that go in, [Rows x Length]</param>
/// <param name="Targets">ids to predict, [Rows x Length]: the tokens one position later in the stream</param>
/// <param name="Windows">the number of the window that each row is, [Rows]</param>
public sealed record Batch(int Rows, int Length, long[] Tokens, long[] Targets, long[] Windows);
