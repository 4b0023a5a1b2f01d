using TorchSharp;
using static TorchSharp.torch;

namespace NopeGpt.Model;

/// <summary>The keys and values of the tokens that a <see cref="Decoder"/> has read, so that each further token costs one position.
/// It holds the last <see cref="ContextLength"/> tokens. Without positional embeddings a token's keys stay valid wherever it stands,
/// so dropping the oldest is all that is needed when the context is full. The result does not depend on how the tokens are
/// cut into calls: each sees itself and the ContextLength - 1 tokens before it.</summary>
public sealed class KeyValueCache : IDisposable
{
    private const int FirstCapacity = 256;
    private readonly long[] _shape;
    private readonly Device _device;
    private readonly Tensor[] _keys;
    private readonly Tensor[] _values;
    private readonly int _maxCapacity;
    private int _capacity;
    // The tokens lie at _start .. _start + Length of the buffers, in order. The slack behind the context lets the oldest be
    // dropped by moving _start; only when the end is reached are the others copied to the front.
    private int _start;

    /// <param name="rows">Texts side by side, all of one length.</param>
    /// <param name="contextLength">Tokens that are kept.</param>
    public KeyValueCache(ModelConfig config, int rows, int contextLength, Device? device = null)
    {
        ArgumentOutOfRangeException.ThrowIfLessThan(rows, 1);
        ArgumentOutOfRangeException.ThrowIfLessThan(contextLength, 1);
        (Rows, ContextLength, _device) = (rows, contextLength, device ?? CPU);
        MaxChunk = Math.Min(256, contextLength);
        _maxCapacity = contextLength + MaxChunk;
        _capacity = Math.Min(FirstCapacity, _maxCapacity);
        _shape = [rows, config.NumKvHeads, 0, config.HeadDimensions];
        _keys = [.. Enumerable.Range(0, config.NumDecoderLayers).Select(_ => Buffer())];
        _values = [.. Enumerable.Range(0, config.NumDecoderLayers).Select(_ => Buffer())];
    }

    public int Rows { get; }

    public int ContextLength { get; }

    /// <summary>Tokens in the cache.</summary>
    public int Length { get; private set; }

    /// <summary>Tokens that were read since the last <see cref="Clear"/> and have been dropped: the cache begins at the token of this number.</summary>
    public long Dropped { get; private set; }

    /// <summary>The most tokens that one step can take.</summary>
    internal int MaxChunk { get; }

    public void Clear() => (_start, Length, Dropped) = (0, 0, 0);

    /// <summary>Forgets the newest tokens, so that <paramref name="length"/> remain.</summary>
    public void Truncate(int length)
    {
        ArgumentOutOfRangeException.ThrowIfNegative(length);
        ArgumentOutOfRangeException.ThrowIfGreaterThan(length, Length);
        Length = length;
    }

    public void Dispose()
    {
        foreach (Tensor buffer in _keys.Concat(_values)) buffer.Dispose();
    }

    /// <summary>Makes room for <paramref name="count"/> more tokens.</summary>
    /// <returns>mask_TS, which of the S tokens in reach each of the new ones sees; null where plain causal attention (an empty cache) or none (one token) says the same.</returns>
    internal Tensor? Reserve(int count)
    {
        ArgumentOutOfRangeException.ThrowIfGreaterThan(count, MaxChunk);
        int needed = Length + count;
        if (_start + needed > _capacity) Rearrange(needed);
        if (count == 1 || Length == 0) return null;
        // Row i is the token at Length + i; it sees the positions from Length + i - ContextLength + 1 to Length + i.
        return ones(count, needed, ScalarType.Bool, _device).tril(Length).triu(Length - ContextLength + 1);
    }

    /// <summary>Writes the new tokens' keys and values of one layer and gives all that are in reach, as views of the buffers.</summary>
    internal (Tensor Keys_BKSD, Tensor Values_BKSD) Append(int layer, Tensor k_BKTD, Tensor v_BKTD)
    {
        long count = k_BKTD.shape[2];
        int end = _start + Length;
        _keys[layer].narrow(2, end, count).copy_(k_BKTD);
        _values[layer].narrow(2, end, count).copy_(v_BKTD);
        // A single token has no mask, so what it must not see is cut off.
        long reach = count == 1 ? Math.Min(Length + 1, ContextLength) : Length + count;
        long first = end + count - reach;
        return (_keys[layer].narrow(2, first, reach), _values[layer].narrow(2, first, reach));
    }

    /// <summary>Takes the tokens that every layer has appended into the cache.</summary>
    internal void Advance(int count)
    {
        int drop = Math.Max(0, Length + count - ContextLength);
        _start += drop;
        Dropped += drop;
        Length += count - drop;
    }

    private void Rearrange(int needed)
    {
        int capacity = _capacity;
        // With little slack left the copying to the front would come again soon.
        while (capacity < Math.Min(needed + (MaxChunk / 2), _maxCapacity)) capacity = Math.Min(2 * capacity, _maxCapacity);
        _capacity = capacity;
        using (no_grad())
        {
            foreach (Tensor[] buffers in (Tensor[][])[_keys, _values])
            {
                for (int i = 0; i < buffers.Length; i++)
                {
                    using DisposeScope scope = NewDisposeScope();
                    Tensor old = buffers[i], kept = old.narrow(2, _start, Length);
                    if (old.shape[2] == capacity)
                    {
                        // The two places may overlap.
                        old.narrow(2, 0, Length).copy_(kept.clone());
                        continue;
                    }
                    buffers[i] = Buffer();
                    buffers[i].narrow(2, 0, Length).copy_(kept);
                    old.Dispose();
                }
            }
        }
        _start = 0;
    }

    private Tensor Buffer()
    {
        _shape[2] = _capacity;
        return empty(_shape, device: _device).DetachFromDisposeScope();
    }
}
