using System.Numerics;

namespace NopeGpt.Data.Tokenization;

/// <summary>The ids of tokens by their bytes: open addressing, at most half full.</summary>
internal sealed class TokenTable
{
    private const int None = -1;
    private readonly byte[][] _tokens;
    private readonly Slot[] _slots;
    private readonly int[] _ofPair;
    private readonly int _shift;

    /// <param name="tokens">Bytes by id.</param>
    /// <param name="ids">Those to be found; the first one where two have the same bytes.</param>
    public TokenTable(byte[][] tokens, IEnumerable<int> ids)
    {
        _tokens = tokens;
        int bits = BitOperations.Log2((uint)tokens.Length + 1) + 2;
        _shift = 64 - bits;
        _slots = new Slot[1 << bits];
        Array.Fill(_slots, new Slot(0, None));
        _ofPair = new int[1 << 16];
        Array.Fill(_ofPair, None);
        foreach (int id in ids)
        {
            byte[] token = tokens[id];
            if (token.Length == 0) continue;
            ulong hash = WordKey.Hash(token);
            ref Slot slot = ref Find(hash, token);
            if (slot.Id != None) continue;
            slot = new(hash, id);
            if (token.Length == 2) _ofPair[(token[0] << 8) | token[1]] = id;
        }
    }

    public bool TryFind(ReadOnlySpan<byte> token, out int id)
    {
        id = token.Length == 2 ? _ofPair[(token[0] << 8) | token[1]] : token.Length == 0 ? None : Find(WordKey.Hash(token), token).Id;
        return id != None;
    }

    /// <summary>The token's slot, or the free one where it would go.</summary>
    private ref Slot Find(ulong hash, ReadOnlySpan<byte> token)
    {
        int at = (int)(hash >> _shift);
        while (true)
        {
            ref Slot slot = ref _slots[at];
            if (slot.Id == None || (slot.Hash == hash && token.SequenceEqual(_tokens[slot.Id]))) return ref slot;
            at = (at + 1) & (_slots.Length - 1);
        }
    }

    private readonly record struct Slot(ulong Hash, int Id);
}
