namespace NopeGpt.Data.Tokenization;

/// <summary>How often pairs of tokens occur. Pairs that no longer do are forgotten when there is no more room. Open addressing, at most half full.</summary>
internal sealed class PairCounts
{
    private const ulong Multiplier = 0x9E3779B97F4A7C15;
    private const int FirstBits = 12;

    // No pair of tokens: both halves are ids.
    private const ulong Free = ulong.MaxValue;

    private (ulong Pair, long Count)[] _slots = [];
    private int _shift = 64 - FirstBits, _used;

    public PairCounts() => Allocate(FirstBits);

    public long this[ulong pair]
    {
        get
        {
            (ulong found, long count) = Find(pair);
            return found == pair ? count : 0;
        }
    }

    /// <returns>The new count.</returns>
    public long Add(ulong pair, long change)
    {
        ref (ulong Pair, long Count) slot = ref Find(pair);
        if (slot.Pair == Free)
        {
            if (change == 0) return 0;
            if (_used + 1 > _slots.Length / 2)
            {
                Rebuild();
                return Add(pair, change);
            }
            _used++;
            slot.Pair = pair;
        }
        return slot.Count += change;
    }

    private ref (ulong Pair, long Count) Find(ulong pair)
    {
        int at = (int)((pair * Multiplier) >> _shift);
        while (_slots[at].Pair != pair && _slots[at].Pair != Free) at = (at + 1) & (_slots.Length - 1);
        return ref _slots[at];
    }

    private void Rebuild()
    {
        (ulong Pair, long Count)[] old = _slots;
        int live = old.Count(slot => slot.Pair != Free && slot.Count != 0);
        // A table that is mostly of forgotten pairs is cleaned; else it doubles.
        Allocate(64 - _shift + (live > old.Length / 4 ? 1 : 0));
        foreach ((ulong pair, long count) in old)
            if (pair != Free && count != 0) Find(pair) = (pair, count);
        _used = live;
    }

    private void Allocate(int bits)
    {
        _slots = new (ulong, long)[1 << bits];
        Array.Fill(_slots, (Free, 0));
        _shift = 64 - bits;
    }
}
