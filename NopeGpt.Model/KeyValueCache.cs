using TorchSharp;
using static TorchSharp.torch;

namespace NopeGpt.Model;

// Shapes: B rows, K key and value heads, C columns of a buffer, D width of a head, T new columns, S columns in reach of the attention.

/// <summary>The keys and values of the tokens that a <see cref="Decoder"/> has read, so that each further token costs one position.
/// Its rows are texts of different lengths side by side. Each holds its last <see cref="ContextLength"/> tokens, whatever the others
/// hold, and its result depends neither on them nor on how its tokens are cut into calls: a token sees itself and the
/// ContextLength - 1 tokens of its row before it. Not for two threads at once.</summary>
/// <remarks>All rows end at one column and begin at columns of their own, so that new tokens are one copy. The columns before a row's
/// first are padding: numbers, but masked. Without positions, and with rotary ones, keys stay valid when the oldest tokens are dropped.
/// With learned positions the table ends some time; then the newest three quarters of the row's window are read again from place 0.</remarks>
public sealed class KeyValueCache : IDisposable
{
    private const int FirstCapacity = 256;

    // The keys of each layer, then the values of each, [B, K, C, D]; with learned positions then the ids, [B, 1, C, 1].
    private readonly Tensor[] _buffers;
    private readonly ModelConfig _config;
    private readonly Device _device;
    private readonly int _maxCapacity;
    private Row[] _rows;
    private int _rowCapacity;
    private int _capacity;
    // The column after every row's newest token. Room behind the context lets the oldest tokens be dropped by counting;
    // only when the end of the buffers is reached are the others copied to the front.
    private int _end;
    private Columns _columns;

    /// <param name="rows">Texts side by side, all empty at first.</param>
    /// <param name="contextLength">Tokens that a row keeps. A table of learned positions cuts it to its own length.</param>
    public KeyValueCache(ModelConfig config, int rows, int contextLength, Device? device = null)
    {
        ArgumentOutOfRangeException.ThrowIfLessThan(rows, 1);
        ArgumentOutOfRangeException.ThrowIfLessThan(contextLength, 1);
        (_config, _device, _rows, _rowCapacity) = (config, device ?? CPU, new Row[rows], rows);
        ContextLength = HasTable ? Math.Min(contextLength, config.ContextLength) : contextLength;
        MaxChunk = Math.Min(256, ContextLength);
        _maxCapacity = ContextLength + MaxChunk;
        int count = (2 * config.NumDecoderLayers) + (HasTable ? 1 : 0);
        _buffers = [.. Enumerable.Range(0, count).Select(i => Buffer(i, rows, 0))];
    }

    public int Rows => _rows.Length;

    public int ContextLength { get; }

    /// <summary>The tokens that each row holds.</summary>
    public IReadOnlyList<int> Lengths => Array.ConvertAll(_rows, r => r.Length);

    /// <summary>How many tokens each row has read and dropped: it begins at its token of this number.</summary>
    public IReadOnlyList<long> Dropped => Array.ConvertAll(_rows, r => r.Dropped);

    /// <summary>Columns that the buffers have memory for.</summary>
    public int Capacity => _capacity;

    /// <summary>The most columns that one step can take.</summary>
    internal int MaxChunk { get; }

    private bool HasTable => _config.Positions == Positions.Learned;

    private int Longest => _rows.Max(r => r.Length);

    /// <summary>Empties every row.</summary>
    public void Clear()
    {
        Array.Clear(_rows);
        _end = 0;
    }

    /// <summary>Forgets the newest tokens of every row, so that <paramref name="length"/> remain.</summary>
    public void Truncate(int length) => Truncate([.. Enumerable.Repeat(length, Rows)]);

    /// <summary>Forgets the newest tokens of each row, so that so many remain. Tokens that were dropped do not come back.</summary>
    /// <exception cref="ArgumentOutOfRangeException">A length is negative or more than the row holds.</exception>
    public void Truncate(IReadOnlyList<int> lengths)
    {
        if (lengths.Count != Rows) throw new ArgumentException($"{Rows} lengths are wanted, one for each row, not {lengths.Count}", nameof(lengths));
        for (int r = 0; r < Rows; r++)
        {
            if (lengths[r] < 0 || lengths[r] > _rows[r].Length)
                throw new ArgumentOutOfRangeException(nameof(lengths), lengths[r], $"row {r} holds {_rows[r].Length} tokens: choose from 0 to that");
        }
        int[] removed = [.. _rows.Select((row, r) => row.Length - lengths[r])];
        int shared = removed.Min();
        for (int r = 0; r < Rows; r++)
        {
            _rows[r].Length = lengths[r];
            _rows[r].Position -= removed[r];
            if (removed[r] > shared) ShiftRow(r, _end - removed[r], removed[r] - shared);
        }
        _end -= shared;
    }

    /// <summary>Makes the rows of these numbers, in this order, the rows of the cache. One may be named again, to go on in several ways,
    /// and one that is not named leaves. Only rows that change their place are copied.</summary>
    /// <exception cref="ArgumentOutOfRangeException">There is no row of a number.</exception>
    public void Select(IReadOnlyList<int> rows)
    {
        if (rows.Count == 0) throw new ArgumentException("at least one row must stay", nameof(rows));
        foreach (int row in rows)
        {
            if (row < 0 || row >= Rows) throw new ArgumentOutOfRangeException(nameof(rows), row, $"the cache has the rows 0 to {Rows - 1}");
        }
        using DisposeScope scope = NewDisposeScope();
        using var quiet = no_grad();
        if (rows.Count > _rowCapacity) Resize(Math.Max(rows.Count, 2 * _rowCapacity), _capacity, _end);
        int[] moved = [.. Enumerable.Range(0, rows.Count).Where(i => rows[i] != i)];
        int length = Longest;
        if (moved.Length > 0 && length > 0)
        {
            Tensor from_M = Ids(moved.Select(i => (long)rows[i])), to_M = Ids(moved.Select(i => (long)i));
            foreach (Tensor buffer in _buffers)
            {
                using DisposeScope one = NewDisposeScope();
                Tensor columns = buffer.narrow(2, _end - length, length);
                columns.index_copy_(0, to_M, columns.index_select(0, from_M));
            }
        }
        _rows = [.. rows.Select(r => _rows[r])];
    }

    /// <summary>Takes in copies of another cache's rows, behind those that are there: a text that was read alone enters a running batch.</summary>
    /// <exception cref="ArgumentException">The other cache is for another model, context or device.</exception>
    public void Join(KeyValueCache other)
    {
        if (other == this || other._config != _config || other.ContextLength != ContextLength || other._device.ToString() != _device.ToString())
            throw new ArgumentException("only another cache of the same model config, context length and device can join", nameof(other));
        int rows = Rows + other.Rows, length = other.Longest, end = Math.Max(_end, length);
        int rowCapacity = rows <= _rowCapacity ? _rowCapacity : Math.Max(rows, 2 * _rowCapacity);
        int capacity = CapacityFor(end);
        if (rowCapacity > _rowCapacity || capacity > _capacity || end > _end) Resize(rowCapacity, capacity, end);
        using (no_grad())
        {
            for (int i = 0; i < _buffers.Length && length > 0; i++)
            {
                using DisposeScope one = NewDisposeScope();
                _buffers[i].narrow(0, Rows, other.Rows).narrow(2, end - length, length)
                    .copy_(other._buffers[i].narrow(0, 0, other.Rows).narrow(2, other._end - length, length));
            }
        }
        _rows = [.. _rows, .. other._rows];
    }

    public void Dispose()
    {
        foreach (Tensor buffer in _buffers) buffer.Dispose();
    }

    /// <exception cref="ArgumentException">The ids or the counts do not fit the rows, or the cache is for another model.</exception>
    internal void Check(ModelConfig config, Tensor tokens_BT, IReadOnlyList<int> counts)
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

    /// <summary>An empty cache of the same kind.</summary>
    internal KeyValueCache Anew(int rows) => new(_config, rows, ContextLength, _device);

    /// <summary>How many of the next columns one step can take: no row may pass the end of its table of learned positions in the midst of it.</summary>
    /// <param name="columns">Columns that are left to read.</param>
    /// <param name="unread">The tokens of each row in them, at their right.</param>
    internal int NextChunk(int columns, int[] unread)
    {
        int count = Math.Min(columns, MaxChunk);
        for (int r = 0; HasTable && r < Rows; r++)
        {
            if (unread[r] > 0) count = (int)Math.Min(count, columns - unread[r] + _config.ContextLength - _rows[r].Position);
        }
        return count;
    }

    /// <summary>The rows whose next token is in the next column and has no place left in the table of learned positions.</summary>
    internal int[] UsedUp(int columns, int[] unread) =>
        HasTable ? [.. Enumerable.Range(0, Rows).Where(r => unread[r] == columns && _rows[r].Position == _config.ContextLength)] : [];

    /// <summary>The ids that such rows read again.</summary>
    /// <returns>tokens_BT, int64, the newest three quarters of the window.</returns>
    internal Tensor Newest(int[] rows)
    {
        int kept = ContextLength * 3 / 4;
        using Tensor index = Ids(rows.Select(r => (long)r));
        return _buffers[^1].narrow(2, _end - kept, kept).index_select(0, index).view(rows.Length, kept);
    }

    /// <summary>Puts what a cache has read anew in the place of rows that it was read for.</summary>
    internal void Replace(int[] rows, KeyValueCache anew)
    {
        for (int i = 0; i < rows.Length; i++)
        {
            ref Row row = ref _rows[rows[i]];
            int length = anew._rows[i].Length;
            row = new() { Length = length, Position = length, Dropped = row.Dropped + row.Length - length };
            for (int b = 0; b < _buffers.Length && length > 0; b++)
            {
                using DisposeScope one = NewDisposeScope();
                _buffers[b].narrow(0, rows[i], 1).narrow(2, _end - length, length)
                    .copy_(anew._buffers[b].narrow(0, i, 1).narrow(2, anew._end - length, length));
            }
        }
    }

    /// <summary>Makes room for the next columns.</summary>
    /// <param name="tokens_BT">The ids of these columns.</param>
    /// <param name="counts">The tokens of each row in them, at their right; what stands before them is padding.</param>
    /// <returns>What the layers need to know.</returns>
    internal CacheStep Reserve(Tensor tokens_BT, int[] counts)
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
    internal void Advance()
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

    private CacheStep Step()
    {
        if (_config.Positions == Positions.None) return new(Mask(), null, 0);
        // The place of each row's first column. Padding before a text would stand below 0.
        long[] first = Array.ConvertAll(_columns.Counts, c => (long)(c - _columns.Count));
        for (int r = 0; r < Rows; r++) first[r] += _rows[r].Position;
        long end = first.Max() + _columns.Count;
        if (Array.TrueForAll(first, f => f == first[0])) first = first[..1];
        using DisposeScope scope = NewDisposeScope();
        Tensor positions_PT = arange(_columns.Count, ScalarType.Int64, _device).add(Ids(first).unsqueeze(1)).clamp_(min: 0);
        return new(Mask()?.MoveToOuterDisposeScope(), positions_PT.MoveToOuterDisposeScope(), end);
    }

    private Tensor? Mask()
    {
        int count = _columns.Count, reach = _columns.Reach, old = reach - count;
        // The column in reach with which each row begins. A new column always sees itself, so that padding gives numbers.
        long[] first = new long[Rows];
        for (int r = 0; r < Rows; r++) first[r] = Math.Clamp(reach - _rows[r].Length - _columns.Counts[r], 0, reach - 1);
        bool even = Array.TrueForAll(first, f => f == 0);
        if (even && (count == 1 || old == 0)) return null;
        using DisposeScope scope = NewDisposeScope();
        Tensor? padding_B11S = even ? null : arange(reach, ScalarType.Int64, _device).lt(Ids(first).view(-1, 1, 1, 1));
        if (count == 1) return Scores(padding_B11S!);
        // Row t is the column old + t; it sees the columns from old + t - ContextLength + 1 to old + t.
        Tensor hidden_TS = ones(count, reach, ScalarType.Bool, _device).tril(old).triu(old - ContextLength + 1).logical_not_();
        if (even) return Scores(hidden_TS.view(1, 1, count, reach));
        Tensor others_TS = ones(count, reach, ScalarType.Bool, _device).tril(old).triu(old).logical_not_();
        return Scores(padding_B11S!.logical_and(others_TS).logical_or(hidden_TS));

        Tensor Scores(Tensor hidden) => zeros(hidden.shape, device: _device).masked_fill_(hidden, float.NegativeInfinity).MoveToOuterDisposeScope();
    }

    /// <summary>Doubles the columns until so many fit. With little slack left the copying to the front would come again soon.</summary>
    private int CapacityFor(int needed, int slack = 0)
    {
        int capacity = Math.Max(_capacity, Math.Min(FirstCapacity, _maxCapacity)), wanted = Math.Min(needed + slack, _maxCapacity);
        while (capacity < wanted) capacity = Math.Min(2 * capacity, _maxCapacity);
        return capacity;
    }

    /// <summary>Moves what the rows hold so that it ends at the column <paramref name="end"/> of buffers of this size.</summary>
    private void Resize(int rowCapacity, int capacity, int end)
    {
        int length = Longest;
        bool same = rowCapacity == _rowCapacity && capacity == _capacity;
        using var quiet = no_grad();
        for (int i = 0; i < _buffers.Length; i++)
        {
            using DisposeScope one = NewDisposeScope();
            Tensor old = _buffers[i], kept = old.narrow(0, 0, Rows).narrow(2, _end - length, length);
            if (!same) _buffers[i] = Buffer(i, rowCapacity, capacity);
            // The two places of one buffer may overlap.
            if (length > 0) _buffers[i].narrow(0, 0, Rows).narrow(2, end - length, length).copy_(same ? kept.clone() : kept);
            if (!same) old.Dispose();
        }
        (_rowCapacity, _capacity, _end) = (rowCapacity, capacity, end);
    }

    /// <summary>Moves what one row holds, which ends at the column <paramref name="end"/>, to the right.</summary>
    private void ShiftRow(int row, int end, int by)
    {
        int length = _rows[row].Length;
        if (by == 0 || length == 0) return;
        using var quiet = no_grad();
        foreach (Tensor buffer in _buffers)
        {
            using DisposeScope one = NewDisposeScope();
            Tensor columns = buffer.narrow(0, row, 1);
            columns.narrow(2, end - length + by, length).copy_(columns.narrow(2, end - length, length).clone());
        }
    }

    private Tensor Ids(IEnumerable<long> ids) => tensor((long[])[.. ids], ScalarType.Int64, _device);

    // Zeros: what a buffer held before could be no number, and a mask hides only numbers.
    private Tensor Buffer(int index, int rows, int columns) => (index < 2 * _config.NumDecoderLayers
        ? zeros([rows, _config.NumKvHeads, columns, _config.HeadDimensions], device: _device)
        : zeros([rows, 1, columns, 1], ScalarType.Int64, _device)).DetachFromDisposeScope();

    private struct Row
    {
        public int Length;
        public long Dropped;
        // The place of the next token. Learned positions begin again at 0 when their table is used up.
        public long Position;
    }

    /// <summary>The columns that are being read.</summary>
    /// <param name="Reach">Columns that they see, themselves included.</param>
    /// <param name="Joined">No row that holds tokens has padding in these columns.</param>
    private readonly record struct Columns(int Count, int[] Counts, int Reach, bool Joined);
}

/// <summary>What a step through a cache tells the layers.</summary>
/// <param name="Mask">Added to the attention's scores, 0 or minus infinity: [B or 1, 1, T, S]. Null where plain causal attention (an empty
/// cache) or none (one column) says the same.</param>
/// <param name="Positions_PT">Place of each new column in its text, one row for all or one for each: [1 or B, T], int64. Null without positions.</param>
/// <param name="End">Above every place.</param>
internal readonly record struct CacheStep(Tensor? Mask, Tensor? Positions_PT, long End);
