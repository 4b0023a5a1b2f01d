namespace NopeGpt.Data.Tokenization;

/// <summary>Finds the merges of a vocabulary that has only ranks or scores for its tokens: there any two neighbours merge whose texts
/// together are a token. What merges inside a token's text while it is being put together cannot depend on the text around it, so that a
/// token has one last merge at most: the one that putting its own text together ends with. A list of these gives the same ids.</summary>
internal static class MergeDerivation
{
    /// <param name="tokens">Bytes by id, each once.</param>
    /// <param name="ranks">Lower ranks merge first; those of tokens that merge are all different. <see cref="Never"/>: no merge makes it.</param>
    /// <param name="symbols">The ids that a token's bytes begin as; null where they cannot be written in them.</param>
    /// <returns>In order of rank. Tokens that no text can become are in none.</returns>
    public static List<Merge> Derive(byte[][] tokens, int[] ranks, Func<byte[], int[]?> symbols)
    {
        Spelling spelling = new(tokens, ranks);
        List<Merge> merges = [];
        PairMerging merging = new();
        foreach (int id in Enumerable.Range(0, tokens.Length).Where(id => ranks[id] != Never).OrderBy(id => ranks[id]))
        {
            if (symbols(tokens[id]) is not { Length: >= 2 } parts || merging.Merge(parts, spelling, least: 2) != 2) continue;
            if (spelling.Find(parts[0], parts[1], 0, 0, out _, out int result) && result == id) merges.Add(new(parts[0], parts[1], id));
        }
        return merges;
    }

    public const int Never = int.MaxValue;

    private readonly struct Spelling : IPairRules
    {
        private readonly byte[][] _tokens;
        private readonly int[] _ranks;
        private readonly Dictionary<byte[], int> _ids;
        private readonly Dictionary<byte[], int>.AlternateLookup<ReadOnlySpan<byte>> _lookup;

        public Spelling(byte[][] tokens, int[] ranks)
        {
            (_tokens, _ranks) = (tokens, ranks);
            _ids = new(tokens.Length, ByteSpelling.Comparer);
            for (int id = 0; id < tokens.Length; id++)
                if (ranks[id] != Never) _ids.Add(tokens[id], id);
            _lookup = _ids.GetAlternateLookup<ReadOnlySpan<byte>>();
        }

        public bool Find(int left, int right, int from, int to, out int rank, out int result)
        {
            (byte[] first, byte[] second) = (_tokens[left], _tokens[right]);
            Span<byte> both = first.Length + second.Length <= 256 ? stackalloc byte[256] : new byte[first.Length + second.Length];
            first.CopyTo(both);
            second.CopyTo(both[first.Length..]);
            bool found = _lookup.TryGetValue(both[..(first.Length + second.Length)], out result);
            rank = found ? _ranks[result] : Never;
            return found;
        }
    }
}

/// <summary>Byte strings as keys of a dictionary, looked up by spans too.</summary>
internal sealed class ByteSpelling : IEqualityComparer<byte[]>, IAlternateEqualityComparer<ReadOnlySpan<byte>, byte[]>
{
    public static ByteSpelling Comparer { get; } = new();

    public bool Equals(byte[]? x, byte[]? y) => x.AsSpan().SequenceEqual(y);

    public int GetHashCode(byte[] obj) => GetHashCode(obj.AsSpan());

    public bool Equals(ReadOnlySpan<byte> alternate, byte[] other) => alternate.SequenceEqual(other);

    public int GetHashCode(ReadOnlySpan<byte> alternate)
    {
        HashCode hash = default;
        hash.AddBytes(alternate);
        return hash.ToHashCode();
    }

    public byte[] Create(ReadOnlySpan<byte> alternate) => alternate.ToArray();
}
