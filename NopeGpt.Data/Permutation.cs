namespace NopeGpt.Data;

/// <summary>A keyed bijection of [0, count): a Feistel network (Luby, Rackoff: "How to construct pseudorandom permutations", 1988) on the next even number
/// of bits, walked along its cycle until it comes back into the range (Black, Rogaway: "Ciphers with arbitrary finite domains", 2002).
/// It shuffles any number of things without memory for them; on average fewer than four steps.</summary>
internal readonly struct Permutation
{
    private const int Rounds = 6;
    private readonly ulong _count, _key, _mask;
    private readonly int _half;

    public Permutation(long count, ulong key)
    {
        ArgumentOutOfRangeException.ThrowIfNegative(count);
        _count = (ulong)count;
        _key = key;
        int bits = 64 - System.Numerics.BitOperations.LeadingZeroCount((ulong)Math.Max(count - 1, 0));
        _half = Math.Max(1, (bits + 1) / 2);
        _mask = (1ul << _half) - 1;
    }

    /// <summary>Where the index goes; each index in [0, count) goes to another place.</summary>
    public long this[long index]
    {
        get
        {
            if ((ulong)index >= _count) throw new ArgumentOutOfRangeException(nameof(index), index, $"The index must be in [0, {_count}).");
            ulong value = (ulong)index;
            do value = Network(value);
            while (value >= _count);
            return (long)value;
        }
    }

    private ulong Network(ulong value)
    {
        ulong left = value >> _half, right = value & _mask;
        for (int round = 0; round < Rounds; round++)
            (left, right) = (right, left ^ (Mixing.Mix(_key + ((ulong)round * Mixing.Golden), right) & _mask));
        return (left << _half) | right;
    }
}
