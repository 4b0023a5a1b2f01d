using System.Numerics;
using System.Runtime.InteropServices;

namespace NopeGpt.Data;

/// <summary>Documents of From to To tokens, both included.</summary>
public sealed record LengthCount(int From, int To, long Documents);

/// <summary>What a token file holds, in numbers that tell whether it is what one meant.</summary>
public sealed record TokenStatistics
{
    /// <summary>Up to so many different documents are compared exactly; beyond, every document whose hash lies in a part of all hashes.</summary>
    public const int ComparedDocuments = 1 << 20;

    private const int ChunkIds = 1 << 18;

    public long Documents { get; init; }

    /// <summary>Ids, end-of-text included.</summary>
    public long Tokens { get; init; }

    /// <summary>Tokens of the shortest document; 0 where there is none.</summary>
    public int Shortest { get; init; }

    public int Median { get; init; }

    /// <summary>The length that 95 of 100 documents do not exceed.</summary>
    public int Percentile95 { get; init; }

    public int Longest { get; init; }

    /// <summary>Documents by length; each class ends about 1.4 times as far as the one before. Empty ones at both ends are left out.</summary>
    public IReadOnlyList<LengthCount> Lengths { get; init; } = [];

    /// <summary>The part of the documents that repeat an earlier one token for token, 0 to 1.</summary>
    public double DuplicateShare { get; init; }

    /// <summary>True where that is an estimate, because there were too many documents to compare each.</summary>
    public bool DuplicatesEstimated { get; init; }

    public double MeanLength => Documents == 0 ? 0 : (double)Tokens / Documents;

    /// <summary>Reads a file once from beginning to end. A raw file counts as one document.</summary>
    /// <exception cref="InvalidDataException">It is damaged.</exception>
    public static TokenStatistics Of(TokenFile file, CancellationToken cancel = default)
    {
        ArgumentNullException.ThrowIfNull(file);
        LengthCounter lengths = new();
        Repeats repeats = new();
        int[] ids = new int[Math.Min(ChunkIds, file.Count)];
        long[] starts = new long[4097];
        long loaded = 0, chunk = 0;
        for (long first = 0; first < file.DocumentCount; first += starts.Length - 1)
        {
            int documents = (int)Math.Min(starts.Length - 1, file.DocumentCount - first);
            file.Starts(first, starts.AsSpan(0, documents + 1));
            for (int i = 0; i < documents; i++)
            {
                DocumentHash hash = default;
                for (long at = starts[i]; at < starts[i + 1];)
                {
                    if (at >= chunk + loaded)
                    {
                        cancel.ThrowIfCancellationRequested();
                        (chunk, loaded) = (at, Math.Min(ids.Length, file.Count - at));
                        file.Read(chunk, ids.AsSpan(0, (int)loaded));
                    }
                    int take = (int)(Math.Min(starts[i + 1], chunk + loaded) - at);
                    hash.Add(ids.AsSpan((int)(at - chunk), take));
                    at += take;
                }
                lengths.Add(starts[i + 1] - starts[i]);
                repeats.Add(hash.Value);
            }
        }
        return new TokenStatistics
        {
            Documents = file.DocumentCount, Tokens = file.Count,
            Shortest = lengths.AtRank(0), Median = lengths.AtRank((file.DocumentCount - 1) / 2), Percentile95 = lengths.AtRank((long)Math.Ceiling(file.DocumentCount * 0.95) - 1), Longest = lengths.Longest,
            Lengths = lengths.Classes(), DuplicateShare = repeats.Share, DuplicatesEstimated = repeats.IsEstimate,
        };
    }

    /// <summary>A 64-bit hash of a document's ids. It is fed id by id, so that the cuts of the chunks do not show.</summary>
    private struct DocumentHash
    {
        private const ulong Factor = 0x9FB21C651E98DF25;
        private ulong _state;
        private long _count;

        public readonly ulong Value => Mixing.Mix(_state, (ulong)_count);

        public void Add(ReadOnlySpan<int> ids)
        {
            ulong state = _state;
            foreach (int id in ids) state = (BitOperations.RotateLeft(state, 23) ^ (uint)id) * Factor;
            (_state, _count) = (state, _count + ids.Length);
        }
    }

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
            while (_times.Count > ComparedDocuments)
            {
                _zeros++;
                foreach (ulong other in _times.Keys.Where(h => BitOperations.LeadingZeroCount(h) < _zeros).ToArray()) _times.Remove(other);
            }
        }
    }
}
