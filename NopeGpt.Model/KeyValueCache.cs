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
public sealed partial class KeyValueCache : IDisposable
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
        if (length > 0) Copy(other, 0, this, Rows, other.Rows, length);
        _rows = [.. _rows, .. other._rows];
    }

    public void Dispose()
    {
        foreach (Tensor buffer in _buffers) buffer.Dispose();
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

    /// <summary>Copies the newest columns of some rows from one cache to the end of another.</summary>
    private static void Copy(KeyValueCache from, int first, KeyValueCache to, int target, int rows, int length)
    {
        using var quiet = no_grad();
        for (int i = 0; i < to._buffers.Length; i++)
        {
            using DisposeScope one = NewDisposeScope();
            to._buffers[i].narrow(0, target, rows).narrow(2, to._end - length, length)
                .copy_(from._buffers[i].narrow(0, first, rows).narrow(2, from._end - length, length));
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
}
