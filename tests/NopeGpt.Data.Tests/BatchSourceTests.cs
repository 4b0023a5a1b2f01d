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

    [Fact]
    public void Ranks_share_every_epoch_exactly_whatever_the_sizes()
    {
        Random random = Seeded();
        for (int round = 0; round < 30; round++)
        {
            using TemporaryFolder folder = new();
            using TokenFile file = Documents(folder, "a", random, random.Next(1, 60), random.Next(2, 40));
            BatchOptions options = new()
            {
                BatchSize = random.Next(1, 6), TokensPerSample = random.Next(1, 12), Seed = (ulong)random.NextInt64(), HoldoutSamples = random.Next(5), Ranks = random.Next(1, 5), Packed = random.Next(2) == 0,
            };
            BatchSource[] ranks;
            try { ranks = [.. Enumerable.Range(0, options.Ranks).Select(rank => new BatchSource(file, options with { Rank = rank }))]; }
            catch (ArgumentException e) when (e.Message.Contains("held out and at least 1 to train on", StringComparison.Ordinal)) { continue; }
            long[] held = [.. ranks[0].Holdout().SelectMany(batch => batch.Windows)];
            Assert.Equal(options.HoldoutSamples, held.Distinct().Count());
            Assert.All(ranks, rank => Assert.Equal(held, rank.Holdout().SelectMany(batch => batch.Windows)));
            long windows = ranks[0].TrainingWindows;
            long[] seen = [.. Enumerable.Range(0, (int)ranks[0].BatchesPerEpoch * 2).SelectMany(index => ranks.SelectMany(rank => rank.Training(index).Windows))];
            for (int epoch = 0; epoch < 2; epoch++)
                Assert.Equal(Enumerable.Range(0, (int)windows + held.Length).Select(w => (long)w).Except(held), seen.Skip((int)(epoch * windows)).Take((int)windows).Order());
        }
    }

    [Fact]
    public void Another_number_of_ranks_and_another_batch_size_go_on_with_the_same_samples()
    {
        using TemporaryFolder folder = new();
        using TokenFile file = Numbers(folder, 5000);
        BatchOptions options = new() { BatchSize = 12, TokensPerSample = 16, Seed = 3, HoldoutSamples = 5 };
        BatchSource one = new(file, options), left = new(file, options with { BatchSize = 3, Ranks = 2 }), right = new(file, options with { BatchSize = 3, Ranks = 2, Rank = 1 });
        BatchPosition position = one.At(7);
        Assert.Equal((IEnumerable<long>)one.Training(7).Windows, [.. left.Training(position).Windows, .. right.Training(position).Windows, .. left.Training(left.After(position)).Windows, .. right.Training(left.After(position)).Windows]);
        Assert.Equal(one.After(position), left.After(left.After(position)));
        Assert.Equal(position.Samples / (double)one.TrainingWindows, one.Epochs(position).Single(), 1e-9);
    }

    [Fact]
    public void Going_on_at_any_step_gives_what_straight_through_gives()
    {
        Random random = Seeded();
        using TemporaryFolder folder = new();
        using TokenFile a = Documents(folder, "a", random, 50, 30), b = Documents(folder, "b", random, 20, 30);
        foreach (bool packed in (bool[])[true, false])
        {
            BatchOptions options = new() { BatchSize = 3, TokensPerSample = 5, Seed = (ulong)random.NextInt64(), HoldoutSamples = 2, Packed = packed };
            MixedFile[] mixed = [new(a, 2), new(b, 0.7)];
            BatchSource straight = new(mixed, options);
            Batch[] batches = [.. Enumerable.Range(0, 100).Select(index => straight.Training(index))];
            for (int i = 0; i < 20; i++)
            {
                int step = random.Next(100);
                Batch again = new BatchSource(mixed, options).Training(step);
                Assert.Equal(batches[step].Tokens, again.Tokens);
                Assert.Equal(batches[step].Targets, again.Targets);
                Assert.Equal(batches[step].Windows, again.Windows);
            }
        }
    }

    [Theory]
    [InlineData(true)]
    [InlineData(false)]
    public void Batches_ahead_in_arrays_that_are_used_again_are_the_same(bool packed)
    {
        Random random = Seeded();
        using TemporaryFolder folder = new();
        using TokenFile file = Documents(folder, "a", random, 50, 30);
        BatchSource source = new(file, new BatchOptions { BatchSize = 3, TokensPerSample = 5, Seed = 1, Packed = packed });
        using BatchAhead ahead = new((index, used) => source.Training(index, used), 7);
        HashSet<long[]> arrays = [];
        for (int index = 7; index < 60; index++)
        {
            Batch expected = source.Training(index), batch = ahead.Next();
            Assert.Equal(expected.Tokens, batch.Tokens);
            Assert.Equal(expected.Targets, batch.Targets);
            Assert.Equal(expected.Windows, batch.Windows);
            Assert.Equal(expected.Sequences, batch.Sequences);
            arrays.Add(batch.Tokens);
        }
        Assert.InRange(arrays.Count, 1, 6);
        Assert.Throws<ArgumentException>(() => new BatchSource(file, 2, 5, 1, 0).Training(0, source.Training(0)));
    }

    [Theory]
    [InlineData(new double[] { 3, 1 }, 4)]
    [InlineData(new double[] { 0.7, 0.2, 0.1 }, 10)]
    [InlineData(new double[] { 1, 1, 1 }, 3)]
    [InlineData(new double[] { 0.5, 0.21, 0.13, 0.1, 0.03, 0.02, 0.01 }, 100)]
    [InlineData(new double[] { 5, 5, 5, 1, 1, 1, 1 }, 19)]
    [InlineData(new double[] { 0.3141592653589793, 0.2718281828459045, 1 }, 65_536)]
    [InlineData(new double[] { 1e-9, 1 }, 65_536)]
    public void Mixtures_have_their_shares_to_less_than_a_sample_at_every_place_and_exactly_in_every_period(double[] weights, int about)
    {
        MixtureOrder order = new(weights);
        Assert.InRange(order.Period, about, about + weights.Length);
        long[] next = new long[weights.Length];
        HashSet<long>[] seen = [.. weights.Select(_ => new HashSet<long>())];
        for (long sample = 0; sample < order.Period * 2; sample++)
        {
            (int source, long index) = order[sample];
            Assert.True(seen[source].Add(index));
            for (int i = 0; i < weights.Length; i++) Assert.True(Math.Abs(seen[i].Count - (order.Share(i) * (sample + 1))) < 1 - 1e-9, $"{seen[i].Count} of source {i} after {sample + 1}");
            if ((sample + 1) % order.Period != 0) continue;
            long periods = (sample + 1) / order.Period;
            for (int i = 0; i < weights.Length; i++)
            {
                // Every sample of the source up to here, once.
                Assert.Equal(seen[i].Count - 1, seen[i].Max());
                Assert.Equal(order.Share(i) * order.Period * periods, seen[i].Count, 1e-6);
                Assert.Equal(Math.Max(weights[i] / weights.Sum(), 1.0 / order.Period), order.Share(i), 1.0 / 65_536);
            }
        }
        Assert.Equal(1001, order.Divide(1001).Sum());
    }

    [Fact]
    public void A_mixture_goes_through_each_of_its_files_in_whole_epochs()
    {
        Random random = Seeded();
        using TemporaryFolder folder = new();
        using TokenFile a = Documents(folder, "a", random, 50, 30), b = Documents(folder, "b", random, 9, 30);
        BatchOptions options = new() { BatchSize = 7, TokensPerSample = 4, Seed = (ulong)random.NextInt64(), HoldoutSamples = 10 };
        BatchSource mixed = new([new(a, 1), new(b, 1)], options);
        long aWindows = (a.Count - 1) / 4, bWindows = (b.Count - 1) / 4;
        Batch[] batches = [.. Enumerable.Range(0, (int)mixed.BatchesPerEpoch).Select(index => mixed.Training(index))];
        long[] windows = [.. batches.SelectMany(batch => batch.Windows)], ofB = [.. windows.Where(window => window >= aWindows)];
        Assert.InRange(ofB.Length - (windows.Length / 2.0), -1, 1);
        Assert.True(ofB.Length > bWindows);
        Assert.All(ofB.Chunk((int)(bWindows - 10)).SkipLast(1), epoch => Assert.Equal(epoch.Length, epoch.Distinct().Count()));
        Assert.All(batches, batch => Assert.Equal(batch.Windows.Select(w => w < aWindows ? a.DocumentAt(w * 4) : a.DocumentCount + b.DocumentAt((w - aWindows) * 4)), mixed.DocumentIds(batch)));
        // What a file holds out alone is never trained on in a mixture, and the mixture measures a part of it.
        long[] heldByMixture = [.. mixed.Holdout().SelectMany(batch => batch.Windows)];
        long[] heldAlone = [.. new BatchSource(a, options).Holdout().SelectMany(batch => batch.Windows), .. new BatchSource(b, options).Holdout().SelectMany(batch => batch.Windows).Select(w => w + aWindows)];
        Assert.Equal((10, 20), (heldByMixture.Length, heldAlone.Length));
        Assert.Empty(heldByMixture.Except(heldAlone));
        Assert.Empty(windows.Intersect(heldAlone));
        Assert.Equal(5, heldByMixture.Count(w => w < aWindows));
    }

    [Fact]
    public void Windows_that_are_not_packed_keep_to_their_documents_and_lose_no_token()
    {
        Random random = Seeded();
        for (int round = 0; round < 20; round++)
        {
            using TemporaryFolder folder = new();
            using TokenFile file = Documents(folder, "a", random, random.Next(1, 1200), random.Next(1, 40));
            int length = random.Next(1, 15);
            BatchSource source;
            try { source = new(file, new BatchOptions { BatchSize = 4, TokensPerSample = length, Seed = 8, Packed = false, PaddingId = 7 }); }
            catch (ArgumentException e) when (e.Message.Contains("make 0 samples", StringComparison.Ordinal)) { continue; }
            HashSet<(long Document, long Token, long Target)> pairs = [];
            long windows = 0;
            foreach (Batch batch in Enumerable.Range(0, (int)source.BatchesPerEpoch).Select(index => source.Training(index)))
            {
                IReadOnlyList<long> documents = source.DocumentIds(batch);
                for (int row = 0; row < batch.Rows && windows < source.TrainingWindows; row++, windows++)
                {
                    for (int i = row * length; i < (row + 1) * length; i++)
                    {
                        bool padding = batch.Targets[i] == BatchSource.IgnoredTarget;
                        Assert.Equal(padding ? Batch.Padding : 0, batch.Sequences![i]);
                        if (padding) Assert.Equal(7, batch.Tokens[i]);
                        else Assert.True(pairs.Add((documents[row], batch.Tokens[i], batch.Targets[i])));
                    }
                    Assert.NotEqual(BatchSource.IgnoredTarget, batch.Targets[row * length]);
                }
            }
            // Tokens are numbered through, so that a pair of neighbours is known by its first.
            HashSet<(long, long, long)> expected = [.. Enumerable.Range(0, (int)file.DocumentCount).SelectMany(d =>
            {
                (long start, int tokens) = file.Document(d);
                return Enumerable.Range(0, Math.Max(0, tokens - 1)).Select(i => ((long)d, start + i, start + i + 1));
            })];
            Assert.Equal(expected, pairs);
        }
    }

    [Fact]
    public void A_hundred_billion_tokens_open_at_once_and_cost_no_memory()
    {
        using TemporaryFolder folder = new();
        const long Tokens = 100_000_000_000, Documents = 100_000_000;
        // A hole in a file takes no place: all ids are 0 and all documents but the last ones empty.
        TokenFileLayout layout = new(50_257, Tokens, Documents, 0, "abc", EndOfText.After, new byte[32]);
        using (FileStream stream = new(folder["great.tokens"], FileMode.Create))
        {
            stream.Write(layout.Write());
            stream.SetLength(layout.FileBytes);
        }
        long before = GC.GetAllocatedBytesForCurrentThread();
        using TokenFile file = TokenFile.Open(folder["great.tokens"]);
        BatchSource source = new(file, new BatchOptions { BatchSize = 16, TokensPerSample = 1024, Seed = 1, HoldoutSamples = 1000, Ranks = 64, Rank = 63 });
        Assert.InRange(GC.GetAllocatedBytesForCurrentThread() - before, 0, 20_000);
        Assert.Equal(((Tokens - 1) / 1024) - 1000, source.TrainingWindows);
        Assert.Equal(16, source.Training(source.BatchesPerEpoch - 1).Rows);
        Assert.Equal(Documents - 1, file.DocumentAt(Tokens - 1));
    }

    [Fact]
    public void Wrong_options_and_files_that_do_not_go_together_are_refused()
    {
        using TemporaryFolder folder = new();
        using TokenFile a = Numbers(folder, 100);
        TokenFileTests.Write(folder["b.tokens"], 101, [[1, 2, 3]]);
        using TokenFile b = TokenFile.Open(folder["b.tokens"]);
        BatchOptions options = new() { TokensPerSample = 4 };
        void Refused(string reason, BatchOptions wrong, params MixedFile[] files) =>
            Assert.Contains(reason, Assert.Throws<ArgumentException>(() => new BatchSource(files, wrong)).Message, StringComparison.Ordinal);
        Refused("different tokenizers", options, new(a), new(b));
        Refused("weight of", options, new(a), new(a, 0));
        Refused("weight of", options, new MixedFile(a, double.NaN));
        Refused("no token file", options);
        Refused("rank is 2", options with { Ranks = 2, Rank = 2 }, new MixedFile(a));
        Refused("number of ranks is 0", options with { Ranks = 0 }, new MixedFile(a));
        Refused("padding id is 100", options with { Packed = false, PaddingId = 100 }, new MixedFile(a));
        Refused("too large", options with { BatchSize = int.MaxValue, TokensPerSample = 1000 }, new MixedFile(a));
        Refused("99 held out and at least 1 to train on need 100 samples", options with { Packed = false, HoldoutSamples = 99 }, new MixedFile(a));
    }

    /// <summary>Documents of random lengths whose tokens count through.</summary>
    private static TokenFile Documents(TemporaryFolder folder, string name, Random random, int count, int longest)
    {
        int next = 0;
        int[][] documents = [.. Enumerable.Range(0, count).Select(_ => Enumerable.Range(0, random.Next(longest)).Select(_ => next++).ToArray())];
        TokenFileTests.Write(folder[$"{name}.tokens"], 50_000, documents);
        return TokenFile.Open(folder[$"{name}.tokens"]);
    }

    private Random Seeded()
    {
        int seed = Environment.TickCount;
        output.WriteLine($"seed {seed}");
        return new Random(seed);
    }

    private static TokenFile Numbers(TemporaryFolder folder, int count)
    {
        TokenFileTests.Write(folder["numbers.tokens"], count, [[.. Enumerable.Range(0, count)]]);
        return TokenFile.Open(folder["numbers.tokens"]);
    }
}
