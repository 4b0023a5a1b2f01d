namespace NopeGpt.Data;

/// <summary>Rows of tokens, row-major.</summary>
/// <param name="Rows">number of rows</param>
/// <param name="Length">tokens in a row</param>
/// <param name="Tokens">ids that go in, [Rows x Length]</param>
/// <param name="Targets">ids to predict, [Rows x Length]: the tokens one position later in the stream</param>
/// <param name="Windows">the number of the window that each row is, [Rows]</param>
public sealed record Batch(int Rows, int Length, long[] Tokens, long[] Targets, long[] Windows)
{
    /// <summary>The number in <see cref="Sequences"/> of tokens that only fill a row.</summary>
    public const int Padding = -1;

    /// <summary>Of which sequence in its row each token is, [Rows x Length]: 0, 1, … from left to right, then <see cref="Padding"/>. Null where every row
    /// is one sequence.</summary>
    public int[]? Sequences { get; init; }

    /// <summary>The place of each token in its sequence, [Rows x Length]; padding counts from 0 too. Null where every row is one sequence.</summary>
    public int[]? Positions { get; init; }

    /// <summary>Whether attention must be kept within <see cref="Sequences"/>, because a row has several. Padding alone needs no mask: it is to the right
    /// of everything that counts.</summary>
    public bool Packed { get; init; }

    /// <summary>For each row the numbers of the documents that its sequences are. Null where rows are windows over documents.</summary>
    public IReadOnlyList<IReadOnlyList<long>>? Documents { get; init; }
}
