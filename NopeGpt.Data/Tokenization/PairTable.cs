using System.Numerics;

namespace NopeGpt.Data.Tokenization;

/// <summary>One step of byte-pair encoding: the tokens left and right, side by side, become the token result.</summary>
internal readonly record struct Merge(int Left, int Right, int Result);

/// <summary>Says which pairs of neighbours merge, and which of them first.</summary>
internal interface IPairRules
{
    /// <param name="from">The word's symbols before any merge that the two stand for: from this one on.</param>
    /// <param name="to">Up to before this one.</param>
    /// <param name="rank">Lower ranks merge first; the leftmost of equal ones.</param>
    /// <param name="result">The token that the pair becomes.</param>
    bool Find(int left, int right, int from, int to, out int rank, out int result);
}

/// <summary>The merges of a vocabulary, found by their pair: open addressing over two arrays, at most half full.</summary>
internal readonly struct PairTable : IPairRules
{
    private const ulong Empty = ulong.MaxValue, Multiplier = 0x9E3779B97F4A7C15;
    private readonly ulong[] _pairs;
    private readonly (int Rank, int Result)[] _merges;
    private readonly int _shift;

    /// <param name="merges">In order of rank, each pair once.</param>
    public PairTable(IReadOnlyList<Merge> merges)
    {
        int bits = BitOperations.Log2((uint)merges.Count + 1) + 2;
        _shift = 64 - bits;
        _pairs = new ulong[1 << bits];
        _merges = new (int, int)[1 << bits];
        Array.Fill(_pairs, Empty);
        for (int rank = 0; rank < merges.Count; rank++)
        {
            ulong pair = Key(merges[rank].Left, merges[rank].Right);
            int at = Slot(pair);
            _pairs[at] = pair;
            _merges[at] = (rank, merges[rank].Result);
        }
    }

    public bool Find(int left, int right, int from, int to, out int rank, out int result)
    {
        ulong pair = Key(left, right);
        int at = Slot(pair);
        (rank, result) = _merges[at];
        return _pairs[at] == pair;
    }

    private static ulong Key(int left, int right) => ((ulong)(uint)left << 32) | (uint)right;

    /// <summary>The place of the pair, or the free one where it would go.</summary>
    private int Slot(ulong pair)
    {
        int at = (int)((pair * Multiplier) >> _shift);
        while (_pairs[at] != pair && _pairs[at] != Empty) at = (at + 1) & (_pairs.Length - 1);
        return at;
    }
}

/// <summary>The rules of an encoding that has ranks in place of merges, which are its ids: neighbours merge whose bytes together are a token.</summary>
/// <param name="word">That is being merged; its symbols are its bytes.</param>
internal readonly ref struct RankRules(TokenTable tokens, ReadOnlySpan<byte> word) : IPairRules
{
    private readonly ReadOnlySpan<byte> _word = word;

    public bool Find(int left, int right, int from, int to, out int rank, out int result)
    {
        bool found = tokens.TryFind(_word[from..to], out result);
        rank = result;
        return found;
    }
}
