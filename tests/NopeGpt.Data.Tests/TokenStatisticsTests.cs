using NopeGpt.Data;
using NopeGpt.Tests;
using Xunit.Abstractions;

namespace NopeGpt.Data.Tests;

public sealed class TokenStatisticsTests(ITestOutputHelper output)
{
    private static readonly string _hash = new('a', 64);

    [Fact]
    public void Lengths_and_repetitions_are_those_of_a_slow_count()
    {
        int seed = Random.Shared.Next();
        output.WriteLine($"seed {seed}");
        Random random = new(seed);
        using TemporaryFolder folder = new();
        List<int[]> documents = [];
        for (int i = 0; i < 3000; i++)
        {
            bool again = documents.Count > 0 && random.Next(4) == 0;
            documents.Add(again ? documents[random.Next(documents.Count)] : [.. Enumerable.Range(0, (int)Math.Exp(random.NextDouble() * 7)).Select(_ => random.Next(50))]);
        }
        // Longer than a chunk that is read at once, and one that differs from it at the end only.
        int[] large = [.. Enumerable.Range(0, 600_000).Select(_ => random.Next(50))];
        documents.AddRange([large, [.. large[..^1], 49 - large[^1]], large]);
        TokenStatistics statistics = Of(folder["a.bin"], documents);

        int[] lengths = [.. documents.Select(d => d.Length).Order()];
        Assert.Equal((documents.Count, lengths.Sum(l => (long)l)), (statistics.Documents, statistics.Tokens));
        Assert.Equal((lengths[0], lengths[(lengths.Length - 1) / 2], lengths[(int)Math.Ceiling(lengths.Length * 0.95) - 1], lengths[^1]), (statistics.Shortest, statistics.Median, statistics.Percentile95, statistics.Longest));
        Assert.Equal(1 - ((double)documents.Select(d => string.Join(' ', d)).Distinct().Count() / documents.Count), statistics.DuplicateShare, 12);
        Assert.False(statistics.DuplicatesEstimated);
        Assert.Equal(documents.Count, statistics.Lengths.Sum(c => c.Documents));
        // Of the longest the class is known roughly; all others are counted by themselves.
        foreach (LengthCount count in statistics.Lengths.Where(c => c.To < 65_536)) Assert.Equal(lengths.Count(l => l >= count.From && l <= count.To), count.Documents);
        foreach ((LengthCount before, LengthCount after) in statistics.Lengths.Zip(statistics.Lengths.Skip(1))) Assert.Equal(before.To + 1, after.From);
    }

    [Fact]
    public void With_very_many_documents_the_repetitions_are_estimated_closely()
    {
        using TemporaryFolder folder = new();
        // Half of them stand once, the others twice: a third of all are repetitions.
        int different = TokenStatistics.ComparedDocuments * 3 / 2;
        using (TokenFileWriter writer = new(folder["a.bin"], 1 << 22, _hash))
        {
            for (int i = 0; i < different; i++) writer.Append([i], 1);
            for (int i = 0; i < different / 2; i++) writer.Append([i], 1);
            writer.Complete();
        }
        using TokenFile file = TokenFile.Open(folder["a.bin"]);
        TokenStatistics statistics = TokenStatistics.Of(file);
        Assert.True(statistics.DuplicatesEstimated);
        Assert.InRange(statistics.DuplicateShare, 0.328, 0.339);
    }

    [Fact]
    public void A_file_without_documents_has_none()
    {
        using TemporaryFolder folder = new();
        TokenStatistics statistics = Of(folder["a.bin"], []);
        Assert.Equal((0, 0, 0, 0.0), (statistics.Documents, statistics.Longest, statistics.Median, statistics.DuplicateShare));
        Assert.Empty(statistics.Lengths);
    }

    private static TokenStatistics Of(string path, IReadOnlyList<int[]> documents)
    {
        using (TokenFileWriter writer = new(path, 50, _hash))
        {
            foreach (int[] document in documents) writer.Append(document, 1);
            writer.Complete();
        }
        using TokenFile file = TokenFile.Open(path);
        return TokenStatistics.Of(file);
    }
}
