using NopeGpt.Tests;
using Xunit.Abstractions;

namespace NopeGpt.Data.Tests;

public sealed class BatchSourceTests(ITestOutputHelper output)
{
    [Fact]
    public void A_permutation_reaches_every_place_once()
    {
        int seed = Environment.TickCount;
        output.WriteLine($"seed {seed}");
        Random random = new(seed);
        foreach (int count in (int[])[0, 1, 2, 3, 4, 5, 7, 8, 9, 15, 16, 17, 100, 255, 256, 257, 1000, 4097, random.Next(10_000)])
        {
            Permutation permutation = new(count, (ulong)random.NextInt64());
            Assert.Equal(count, Enumerable.Range(0, count).Select(i => permutation[i]).Where(place => place >= 0 && place < count).Distinct().Count());
        }
        Permutation huge = new(long.MaxValue, 1);
        Assert.Equal(1000, Enumerable.Range(0, 1000).Select(i => huge[long.MaxValue - 1 - i]).Distinct().Count());
        Assert.Throws<ArgumentOutOfRangeException>(() => new Permutation(5, 1)[5]);
    }

    [Fact]
    public void A_permutation_mixes_and_depends_on_its_key()
    {
        const int Count = 10_000;
        Permutation a = new(Count, 1), b = new(Count, 2);
        Assert.InRange(Enumerable.Range(0, Count).Count(i => a[i] == b[i]), 0, 20);
        // The mean distance of a random pair of places is a third of the range.
        double distance = Enumerable.Range(0, Count - 1).Average(i => Math.Abs((double)(a[i + 1] - a[i])));
        Assert.InRange(distance, Count * 0.31, Count * 0.36);
    }

    [Theory]
    [InlineData(103, 4, 10, 3)]
    [InlineData(1000, 7, 9, 0)]
    [InlineData(1000, 1, 1, 17)]
    [InlineData(65, 50, 4, 5)]
    public void Each_epoch_sees_every_window_that_is_not_held_out_once(int tokens, int batchSize, int length, int holdout)
    {
        using TemporaryFolder folder = new();
        using TokenFile file = Numbers(folder, tokens);
        BatchSource source = new(file, batchSize, length, seed: 5, holdout);
        Assert.Equal((tokens - 1) / length, source.TrainingWindows + source.HoldoutWindows);
        Assert.Equal(holdout, source.HoldoutWindows);
        HashSet<long> held = [.. source.Holdout().SelectMany(batch => batch.Windows)];
        Assert.Equal(holdout, held.Count);
        const int Epochs = 3;
        long[] seen = [.. Enumerable.Range(0, (int)source.BatchesPerEpoch * Epochs).SelectMany(index => source.Training(index).Windows)];
        for (int epoch = 0; epoch < Epochs; epoch++)
        {
            long[] windows = seen[(int)(epoch * source.TrainingWindows)..(int)((epoch + 1) * source.TrainingWindows)];
            Assert.Equal(source.TrainingWindows, windows.Distinct().Count());
            Assert.DoesNotContain(windows, held.Contains);
            Assert.All(windows, window => Assert.InRange(window, 0, source.TrainingWindows + source.HoldoutWindows - 1));
        }
        Assert.NotEqual(seen[..(int)source.TrainingWindows], seen[(int)source.TrainingWindows..(int)(2 * source.TrainingWindows)]);
    }

    [Fact]
    public void Rows_are_the_tokens_of_their_window_and_targets_are_one_later()
    {
        using TemporaryFolder folder = new();
        using TokenFile file = Numbers(folder, 1000);
        BatchSource source = new(file, 3, 8, seed: 1, holdoutSamples: 10);
        foreach (Batch batch in source.Holdout().Append(source.Training(0)).Append(source.Training(123_456)))
        {
            Assert.Equal((8, batch.Rows, batch.Rows * 8, batch.Rows * 8), (batch.Length, batch.Windows.Length, batch.Tokens.Length, batch.Targets.Length));
            for (int row = 0; row < batch.Rows; row++)
            {
                for (int i = 0; i < 8; i++)
                {
                    Assert.Equal((batch.Windows[row] * 8) + i, batch.Tokens[(row * 8) + i]);
                    Assert.Equal((batch.Windows[row] * 8) + i + 1, batch.Targets[(row * 8) + i]);
                }
            }
        }
        Assert.Equal([3, 3, 3, 1], source.Holdout().Select(batch => batch.Rows));
        Assert.Equal(3, source.Training(7).Rows);
    }

    [Fact]
    public void A_batch_is_a_function_of_seed_and_index()
    {
        using TemporaryFolder folder = new();
        using TokenFile file = Numbers(folder, 5000);
        BatchSource one = new(file, 4, 16, seed: 9, holdoutSamples: 20), other = new(file, 4, 16, seed: 9, holdoutSamples: 20), different = new(file, 4, 16, seed: 10, holdoutSamples: 20);
        foreach (long index in (long[])[500, 3, 0, 70, 3]) Assert.Equal(one.Training(index).Tokens, other.Training(index).Tokens);
        Assert.NotEqual(one.Training(0).Tokens, different.Training(0).Tokens);
        Assert.NotEqual(one.Holdout().First().Windows, different.Holdout().First().Windows);
        Batch[] parallel = new Batch[200];
        Parallel.For(0, parallel.Length, index => parallel[index] = one.Training(index));
        for (int index = 0; index < parallel.Length; index++) Assert.Equal(other.Training(index).Tokens, parallel[index].Tokens);
    }

    [Fact]
    public void The_holdout_does_not_depend_on_the_batch_size()
    {
        using TemporaryFolder folder = new();
        using TokenFile file = Numbers(folder, 5000);
        Assert.Equal(
            new BatchSource(file, 3, 16, seed: 9, holdoutSamples: 20).Holdout().SelectMany(batch => batch.Windows),
            new BatchSource(file, 8, 16, seed: 9, holdoutSamples: 20).Holdout().SelectMany(batch => batch.Windows));
    }

    [Fact]
    public void Rows_know_the_document_in_which_they_start()
    {
        using TemporaryFolder folder = new();
        TokenFileTests.Write(folder["a.tokens"], 100, [[.. Enumerable.Range(0, 10)], [.. Enumerable.Range(10, 3)], [.. Enumerable.Range(13, 20)]]);
        using TokenFile file = TokenFile.Open(folder["a.tokens"]);
        BatchSource source = new(file, 8, 4, seed: 1, holdoutSamples: 0);
        Batch batch = source.Training(0);
        long[] expected = [.. batch.Windows.Select(window => window * 4 < 10 ? 0L : window * 4 < 13 ? 1 : 2)];
        Assert.Equal(expected, source.DocumentIds(batch));
        Assert.Equal(3, expected.Distinct().Count());
    }

    [Fact]
    public void Too_few_tokens_and_wrong_sizes_are_refused_with_what_would_do()
    {
        using TemporaryFolder folder = new();
        using TokenFile file = Numbers(folder, 100);
        Assert.Equal(1, new BatchSource(file, 1, 9, 1, 10).TrainingWindows);
        string message = Assert.Throws<ArgumentException>(() => new BatchSource(file, 1, 9, 1, 11)).Message;
        Assert.Contains("has 100 tokens, which make 11 samples of 9 tokens; 11 held out and at least 1 to train on need 109 tokens", message, StringComparison.Ordinal);
        Assert.Throws<ArgumentException>(() => new BatchSource(file, 1, 100, 1, 0));
        Assert.Equal(1, new BatchSource(file, 1, 99, 1, 0).TrainingWindows);
        Assert.Throws<ArgumentException>(() => new BatchSource(file, 0, 9, 1, 0));
        Assert.Throws<ArgumentException>(() => new BatchSource(file, 1, 0, 1, 0));
        Assert.Throws<ArgumentException>(() => new BatchSource(file, 1, 9, 1, -1));
    }

    private static TokenFile Numbers(TemporaryFolder folder, int count)
    {
        TokenFileTests.Write(folder["numbers.tokens"], count, [[.. Enumerable.Range(0, count)]]);
        return TokenFile.Open(folder["numbers.tokens"]);
    }
}
