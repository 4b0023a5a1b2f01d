using NopeGpt.Model.Native;
using TorchSharp;
using static TorchSharp.torch;

namespace NopeGpt.Model;

/// <content>How a decoder reads new columns through the cache.</content>
public sealed partial class KeyValueCache
{
    private Columns _columns;

    /// <summary>Reads new columns, in as many steps as the buffers and the learned positions want.</summary>
    /// <param name="counts">The tokens of each row in them, at their right; what stands before them is padding.</param>
    /// <param name="layers">Takes ids through all layers, which <see cref="Append(int, Tensor, Tensor)"/>.</param>
    /// <returns>hidden_B1d, what the layers give for the last column.</returns>
    /// <exception cref="ArgumentException">The ids or the counts do not fit the rows, or the cache is for another model.</exception>
    internal Tensor Read(ModelConfig config, Tensor tokens_BT, IReadOnlyList<int> counts, Func<Tensor, CacheStep, Tensor> layers)
    {
        Check(config, tokens_BT, counts);
        int left = (int)tokens_BT.shape[1];
        int[] unread = [.. counts];
        while (true)
        {
            using DisposeScope step = NewDisposeScope();
            int[] usedUp = UsedUp(left, unread);
            if (usedUp.Length > 0) ReadAgain(usedUp, layers);
            int count = NextChunk(left, unread);
            int[] now = Array.ConvertAll(unread, u => Math.Max(0, count - (left - u)));
            Tensor chunk_BT = tokens_BT.narrow(1, tokens_BT.shape[1] - left, count);
            Tensor hidden_BTd = layers(chunk_BT, Reserve(chunk_BT, now));
            Advance();
            left -= count;
            if (left == 0) return hidden_BTd.narrow(1, count - 1, 1).MoveToOuterDisposeScope();
            for (int r = 0; r < unread.Length; r++) unread[r] -= now[r];
        }
    }

    private void Check(ModelConfig config, Tensor tokens_BT, IReadOnlyList<int> counts)
    {
        if (config != _config) throw new ArgumentException("the cache was made for another model config");
        if (tokens_BT.dim() != 2 || tokens_BT.shape[0] != Rows || tokens_BT.shape[1] == 0)
            throw new ArgumentException($"ids of shape [{Rows}, at least 1] are wanted, not [{string.Join(", ", tokens_BT.shape)}]", nameof(tokens_BT));
        if (counts.Count != Rows) throw new ArgumentException($"{Rows} counts are wanted, one for each row, not {counts.Count}", nameof(counts));
        foreach (int count in counts)
        {
            if (count < 0 || count > tokens_BT.shape[1])
                throw new ArgumentOutOfRangeException(nameof(counts), count, $"a row has from 0 to {tokens_BT.shape[1]} tokens in these columns");
        }
    }

    /// <summary>How many of the next columns one step can take: no row may pass the end of its table of learned positions in the midst of it.</summary>
    /// <param name="columns">Columns that are left to read.</param>
    /// <param name="unread">The tokens of each row in them, at their right.</param>
    private int NextChunk(int columns, int[] unread)
    {
        int count = Math.Min(columns, MaxChunk);
        for (int r = 0; HasTable && r < Rows; r++)
        {
            if (unread[r] > 0) count = (int)Math.Min(count, columns - unread[r] + _config.ContextLength - _rows[r].Position);
        }
        return count;
    }

    /// <summary>The rows whose next token is in the next column and has no place left in the table of learned positions.</summary>
    private int[] UsedUp(int columns, int[] unread) =>
        HasTable ? [.. Enumerable.Range(0, Rows).Where(r => unread[r] == columns && _rows[r].Position == _config.ContextLength)] : [];

    /// <summary>Gives such rows places from 0 on: the newest three quarters of their window are read anew and take the place of what they held.</summary>
    private void ReadAgain(int[] rows, Func<Tensor, CacheStep, Tensor> layers)
    {
        int kept = ContextLength * 3 / 4;
        using KeyValueCache anew = new(_config, rows.Length, ContextLength, _device);
        if (kept > 0)
        {
            Tensor tokens_BT = _buffers[^1].narrow(2, _end - kept, kept).index_select(0, Ids(rows.Select(r => (long)r))).view(rows.Length, kept);
            anew.Read(_config, tokens_BT, [.. Enumerable.Repeat(kept, rows.Length)], layers);
        }
        for (int i = 0; i < rows.Length; i++)
        {
            ref Row row = ref _rows[rows[i]];
            row = new() { Length = kept, Position = kept, Dropped = row.Dropped + row.Length - kept };
            if (kept > 0) Copy(anew, i, this, rows[i], 1, kept);
        }
    }

    /// <summary>Makes room for the next columns.</summary>
    /// <param name="tokens_BT">The ids of these columns.</param>
    /// <param name="counts">The tokens of each row in them, at their right; what stands before them is padding.</param>
    /// <returns>What the layers need to know.</returns>
    private CacheStep Reserve(Tensor tokens_BT, int[] counts)
    {
        int count = (int)tokens_BT.shape[1], sum = 0;
        bool joined = true;
        for (int r = 0; r < Rows; r++)
        {
            sum = Math.Max(sum, _rows[r].Length + counts[r]);
            joined &= counts[r] == count || _rows[r].Length == 0;
        }
        if (_end + count > _capacity) Resize(_rowCapacity, CapacityFor(Longest + count, MaxChunk / 2), Longest);
        // No padding can stand between a row's tokens: those that it has move up to the new ones.
        for (int r = 0; !joined && r < Rows; r++) ShiftRow(r, _end, count - counts[r]);
        // A single column has no mask where the rows are of one length, so what it must not see is cut off.
        _columns = new(count, counts, count == 1 ? Math.Clamp(sum, 1, ContextLength) : Math.Max(sum, count), joined);
        if (HasTable) Append(_buffers.Length - 1, tokens_BT.view(Rows, 1, count, 1));
        return Step();
    }

    /// <summary>Writes the new columns' keys and values of one layer and gives all that are in reach, as views of the buffers.</summary>
    internal (Tensor Keys_BKSD, Tensor Values_BKSD) Append(int layer, Tensor k_BKTD, Tensor v_BKTD) =>
        (Append(layer, k_BKTD), Append(_config.NumDecoderLayers + layer, v_BKTD));

    /// <summary>Takes the columns that every layer has appended into the cache.</summary>
    private void Advance()
    {
        for (int r = 0; r < Rows; r++)
        {
            ref Row row = ref _rows[r];
            int length = row.Length + _columns.Counts[r], drop = Math.Max(0, length - ContextLength);
            row.Position += _columns.Counts[r];
            row.Length = length - drop;
            row.Dropped += drop;
        }
        _end += _columns.Count;
    }

    private Tensor Append(int index, Tensor new_BKTD)
    {
        Tensor buffer = _rowCapacity == Rows ? _buffers[index] : _buffers[index].narrow(0, 0, Rows);
        if (_columns.Joined)
            buffer.narrow(2, _end, _columns.Count).copy_(new_BKTD);
        else
        {
            for (int r = 0; r < Rows; r++)
            {
                int count = _columns.Counts[r], skip = _columns.Count - count;
                if (count > 0) buffer[r].narrow(1, _end + skip, count).copy_(new_BKTD[r].narrow(1, skip, count));
            }
        }
        return buffer.narrow(2, _end + _columns.Count - _columns.Reach, _columns.Reach);
    }

    /// <summary>What the layers need to know of the columns that are being read.</summary>
    private CacheStep Step()
    {
        if (_config.Positions == Positions.None) return new(this, Mask(), null, 0);
        // The place of each row's first column. Padding before a text would stand below 0.
        long[] first = Array.ConvertAll(_columns.Counts, c => (long)(c - _columns.Count));
        for (int r = 0; r < Rows; r++) first[r] += _rows[r].Position;
        long end = first.Max() + _columns.Count;
        if (Array.TrueForAll(first, f => f == first[0])) first = first[..1];
        using DisposeScope scope = NewDisposeScope();
        Tensor positions_PT = Scalars.Range(_columns.Count, ScalarType.Int64, _device).add(Ids(first).unsqueeze(1), Scalars.One).clamp_(min: Scalars.Zero);
        return new(this, Mask()?.MoveToOuterDisposeScope(), positions_PT.MoveToOuterDisposeScope(), end);
    }

    /// <summary>The mask of <see cref="CacheStep"/>.</summary>
    private Tensor? Mask()
    {
        int count = _columns.Count, reach = _columns.Reach, old = reach - count;
        // The column in reach with which each row begins. A new column always sees itself, padding too: some kernels give no number for
        // a query that sees nothing, and the next layer's keys would not be numbers either.
        long[] first = new long[Rows];
        for (int r = 0; r < Rows; r++) first[r] = Math.Clamp(reach - _rows[r].Length - _columns.Counts[r], 0, reach - 1);
        bool even = Array.TrueForAll(first, f => f == 0);
        if (even && (count == 1 || old == 0)) return null;
        using DisposeScope scope = NewDisposeScope();
        Tensor? padding_B11S = even ? null : Scalars.Range(reach, ScalarType.Int64, _device).lt(Ids(first).view(-1, 1, 1, 1));
        if (count == 1) return Scores(padding_B11S!);
        // Row t is the column old + t; it sees the columns from old + t - ContextLength + 1 to old + t.
        Tensor hidden_TS = ones(count, reach, ScalarType.Bool, _device).tril(old).triu(old - ContextLength + 1).logical_not_();
        if (even) return Scores(hidden_TS.view(1, 1, count, reach));
        Tensor others_TS = ones(count, reach, ScalarType.Bool, _device).tril(old).triu(old).logical_not_();
        return Scores(padding_B11S!.logical_and(others_TS).logical_or(hidden_TS));

        Tensor Scores(Tensor hidden) => zeros(hidden.shape, device: _device).masked_fill_(hidden, Scalars.MinusInfinity).MoveToOuterDisposeScope();
    }

    /// <summary>The columns that are being read.</summary>
    /// <param name="Reach">Columns that they see, themselves included.</param>
    /// <param name="Joined">No row that holds tokens has padding in these columns.</param>
    private readonly record struct Columns(int Count, int[] Counts, int Reach, bool Joined);
}

/// <summary>What a step through a cache tells the layers.</summary>
/// <param name="Cache">Takes each layer's new keys and values.</param>
/// <param name="Mask">Added to the attention's scores, 0 or minus infinity: [B or 1, 1, T, S]. Null where plain causal attention (an empty
/// cache) or none (one column) says the same.</param>
/// <param name="Positions_PT">Place of each new column in its text, one row for all or one for each: [1 or B, T], int64. Null without positions.</param>
/// <param name="End">Above every place.</param>
internal readonly record struct CacheStep(KeyValueCache Cache, Tensor? Mask, Tensor? Positions_PT, long End);
