using TorchSharp;
using static TorchSharp.torch;

namespace NopeGpt.Model;

/// <summary>Which tokens of a batch belong together, where rows hold several sequences: each sequence is read as if it were alone, with attention
/// inside it only and places from 0 on. There is no mask: attention takes one sequence after the other, which costs the square of each and
/// not of the row (docs/experiments.md).</summary>
public sealed class Packing
{
    private readonly long[] _places;
    private readonly long _rows;
    private readonly long _length;

    /// <param name="sequences">The number of the sequence that each token belongs to, row-major [rows x length]. Within a row they are in order,
    /// each in one piece; a negative number is padding.</param>
    /// <exception cref="ArgumentException">The numbers are not that many, or a sequence is not in one piece.</exception>
    public Packing(ReadOnlySpan<int> sequences, int rows, int length)
    {
        if (rows < 1 || length < 1 || sequences.Length != (long)rows * length)
            throw new ArgumentException($"{rows} rows of {length} tokens need as many sequence numbers, there are {sequences.Length}", nameof(sequences));
        (_rows, _length, _places) = (rows, length, new long[sequences.Length]);
        List<long> lengths = [];
        for (int row = 0; row < rows; row++)
        {
            int newest = -1;
            ReadOnlySpan<int> inRow = sequences.Slice(row * length, length);
            for (int i = 0, start = 0; i < length; i++)
            {
                int number = inRow[i];
                if (i == 0 || number != inRow[i - 1])
                {
                    if (number >= 0 && number <= newest)
                        throw new ArgumentException($"sequence {number} of row {row} goes on at token {i}, behind sequence {newest}: each must be in one piece, in order", nameof(sequences));
                    newest = Math.Max(newest, number);
                    lengths.Add(0);
                    start = i;
                }
                lengths[^1]++;
                // Padding has no place: it may be longer than the positions that a model has learned.
                _places[(row * length) + i] = number < 0 ? 0 : i - start;
                Longest = Math.Max(Longest, (int)_places[(row * length) + i] + 1);
            }
        }
        Lengths = [.. lengths];
    }

    /// <summary>Tokens of each sequence and of each piece of padding, all rows one after the other.</summary>
    internal long[] Lengths { get; }

    /// <summary>Tokens of the longest sequence.</summary>
    internal int Longest { get; }

    /// <summary>The place of each token in its sequence.</summary>
    /// <returns>positions_BT, int64.</returns>
    internal Tensor Positions(Device device) => tensor(_places, [_rows, _length], device: device);

    internal void Check(Tensor tokens_BT)
    {
        if (tokens_BT.dim() != 2 || tokens_BT.shape[0] != _rows || tokens_BT.shape[1] != _length)
            throw new ArgumentException($"the packing is of {_rows} rows of {_length} tokens, the ids have the shape [{string.Join(", ", tokens_BT.shape)}]");
    }
}
