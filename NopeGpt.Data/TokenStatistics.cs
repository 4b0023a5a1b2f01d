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
        DocumentStatistics statistics = new();
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
                statistics.Add(starts[i + 1] - starts[i], hash.Value);
            }
        }
        return statistics.Result();
    }
}
