using System.Numerics;
using System.Runtime.InteropServices;

namespace NopeGpt.Data;

/// <summary>Gathers the statistics of documents that come one after the other. Not for several threads at once.</summary>
internal sealed class DocumentStatistics
{
    private readonly LengthCounter _lengths = new();
    private readonly Repeats _repeats = new();
    private long _documents, _tokens;

    /// <param name="length">Tokens of the document.</param>
    /// <param name="hash">Its <see cref="DocumentHash"/>.</param>
    public void Add(long length, ulong hash)
    {
        _documents++;
        _tokens += length;
        _lengths.Add(length);
        _repeats.Add(hash);
    }

    public TokenStatistics Result() => new()
    {
        Documents = _documents, Tokens = _tokens,
        Shortest = _lengths.AtRank(0), Median = _lengths.AtRank((_documents - 1) / 2), Percentile95 = _lengths.AtRank((long)Math.Ceiling(_documents * 0.95) - 1), Longest = _lengths.Longest,
        Lengths = _lengths.Classes(), DuplicateShare = _repeats.Share, DuplicatesEstimated = _repeats.IsEstimate,
    };

    /// <summary>Counts of lengths: each by itself up to a bound, and beyond it to within 1.6 %.</summary>
    private sealed class LengthCounter
    {
        private const int Exact = 1 << 16, Steps = 64;
        private readonly long[] _exact = new long[Exact];
        private readonly long[] _rough = new long[(31 - 16) * Steps];

        public int Longest { get; private set; }

        public void Add(long length)
        {
            int tokens = (int)Math.Min(length, int.MaxValue);
            Longest = Math.Max(Longest, tokens);
            if (tokens < Exact) _exact[tokens]++;
            else _rough[RoughOf(tokens)]++;
        }

        /// <summary>The length of the document at a place in the order of lengths, from 0.</summary>
        public int AtRank(long rank)
        {
            long seen = 0;
            foreach ((int from, int to, long count) in All())
                if ((seen += count) > rank) return Math.Min(to, Longest);
            return 0;
        }

        public List<LengthCount> Classes()
        {
            List<LengthCount> classes = [];
            double bound = 1;
            int from = 0, to = 1;
            long inside = 0;
            foreach ((int first, int last, long count) in All())
            {
                while (first > to)
                {
                    if (inside > 0 || classes.Count > 0) classes.Add(new LengthCount(from, to, inside));
                    (from, inside) = (to + 1, 0);
                    do bound *= Math.Sqrt(2);
                    while ((int)Math.Min(int.MaxValue, Math.Round(bound)) <= to);
                    to = (int)Math.Min(int.MaxValue, Math.Round(bound));
                }
                inside += count;
            }
            if (inside > 0) classes.Add(new LengthCount(from, to, inside));
            return classes;
        }

        private IEnumerable<(int From, int To, long Count)> All()
        {
            for (int i = 0; i < Exact; i++)
                if (_exact[i] > 0) yield return (i, i, _exact[i]);
            for (int i = 0; i < _rough.Length; i++)
            {
                if (_rough[i] == 0) continue;
                int width = 1 << (16 + (i / Steps) - 6), from = (1 << (16 + (i / Steps))) + (i % Steps * width);
                yield return (from, from + (width - 1), _rough[i]);
            }
        }

        private static int RoughOf(int tokens)
        {
            int octave = BitOperations.Log2((uint)tokens);
            return ((octave - 16) * Steps) + ((tokens - (1 << octave)) >> (octave - 6));
        }
    }

    /// <summary>How many documents are there for the first time, by their hashes. When the table is full, only the hashes that begin with one more
    /// zero are looked at, which is a sample of the different documents with all their repetitions (Gibbons: "Distinct sampling", 2001).</summary>
    private sealed class Repeats
    {
        private readonly Dictionary<ulong, long> _times = [];
        private int _zeros;

        public bool IsEstimate => _zeros > 0;

        public double Share
        {
            get
            {
                long all = _times.Values.Sum();
                return all == 0 ? 0 : 1 - ((double)_times.Count / all);
            }
        }

        public void Add(ulong hash)
        {
            if (BitOperations.LeadingZeroCount(hash) < _zeros) return;
            CollectionsMarshal.GetValueRefOrAddDefault(_times, hash, out _)++;
            while (_times.Count > TokenStatistics.ComparedDocuments)
            {
                _zeros++;
                foreach (ulong other in _times.Keys.Where(h => BitOperations.LeadingZeroCount(h) < _zeros).ToArray()) _times.Remove(other);
            }
        }
    }
}

/// <summary>A 64-bit hash of a document's ids, two at a time. However they are cut for adding, it is the same.</summary>
internal struct DocumentHash
{
    private const ulong Factor = 0x9FB21C651E98DF25;
    private ulong _state, _odd;
    private long _count;

    public readonly ulong Value => Mixing.Mix((_count & 1) == 0 ? _state : Next(_state, _odd), (ulong)_count);

    public void Add(ReadOnlySpan<int> ids)
    {
        if (ids.IsEmpty) return;
        long before = _count;
        _count += ids.Length;
        if ((before & 1) != 0)
        {
            _state = Next(_state, _odd | ((ulong)(uint)ids[0] << 32));
            ids = ids[1..];
        }
        ulong state = _state;
        foreach (ulong two in MemoryMarshal.Cast<int, ulong>(ids)) state = Next(state, two);
        _state = state;
        if ((_count & 1) != 0) _odd = (uint)ids[^1];
    }

    /// <summary>The hash of a document that is all there.</summary>
    public static ulong Of(ReadOnlySpan<int> ids)
    {
        DocumentHash hash = default;
        hash.Add(ids);
        return hash.Value;
    }

    private static ulong Next(ulong state, ulong two) => (BitOperations.RotateLeft(state, 23) ^ two) * Factor;
}
