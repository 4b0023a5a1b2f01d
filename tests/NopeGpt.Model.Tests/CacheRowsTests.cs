using System.Globalization;
using NopeGpt.Model.Native;
using TorchSharp;
using static TorchSharp.torch;

namespace NopeGpt.Model.Tests;

/// <summary>Rows of different lengths in one cache, compared with <see cref="PlainNetwork"/>, which reads each row's whole text alone.</summary>
public sealed class CacheRowsTests : IDisposable
{
    private readonly DisposeScope _scope;

    public CacheRowsTests()
    {
        TorchRuntime.Load();
        _scope = NewDisposeScope();
    }

    public void Dispose() => _scope.Dispose();

    public static TheoryData<string> Names => ArchitectureTests.Names;

    [Theory]
    [MemberData(nameof(Names))]
    public void Rows_that_are_read_in_pieces_cut_repeated_taken_out_and_joined_have_the_logits_of_their_texts(string option) =>
        AssertAgrees(ArchitectureTests.Options[option], Random.Shared.Next(), option);

    [Fact]
    public void Random_combinations_of_options_have_the_logits_of_their_texts()
    {
        int first = Random.Shared.Next();
        for (int seed = first; seed < first + 10; seed++) AssertAgrees(ArchitectureTests.RandomConfig(new(seed)), seed, "random options");
    }

    [Fact]
    public void Rows_that_are_not_there_and_counts_that_do_not_fit_are_refused_and_change_nothing()
    {
        ModelConfig config = ArchitectureTests.Options["learned"];
        using Decoder model = new(config, 1);
        using KeyValueCache cache = new(config, 2, 16), other = new(config, 1, 15), longer = new(config, 1, 999);
        Tensor tokens_BT = zeros([2, 3], ScalarType.Int64);
        model.Forward(tokens_BT, [3, 1], cache);
        Assert.Equal((16, 24), (cache.ContextLength, longer.ContextLength));
        Assert.Throws<ArgumentException>(() => model.Forward(tokens_BT, [3], cache));
        Assert.Throws<ArgumentOutOfRangeException>(() => model.Forward(tokens_BT, [3, 4], cache));
        Assert.Throws<ArgumentOutOfRangeException>(() => model.Forward(tokens_BT, [-1, 3], cache));
        Assert.Throws<ArgumentOutOfRangeException>(() => cache.Select([0, 2]));
        Assert.Throws<ArgumentException>(() => cache.Select([]));
        Assert.Throws<ArgumentException>(() => cache.Join(other));
        Assert.Throws<ArgumentException>(() => cache.Join(cache));
        Assert.Throws<ArgumentException>(() => cache.Truncate([1]));
        Assert.Throws<ArgumentOutOfRangeException>(() => cache.Truncate([3, 2]));
        using Decoder another = new(config with { NumKvHeads = 6 }, 1);
        Assert.Contains("another model config", Assert.Throws<ArgumentException>(() => another.Forward(tokens_BT, cache)).Message, StringComparison.Ordinal);
        Assert.Equal([3, 1], cache.Lengths);
    }

    private static void AssertAgrees(ModelConfig config, int seed, string hint)
    {
        Random random = new(seed);
        using Decoder model = new(config, (ulong)seed);
        ArchitectureTests.Spread(model, (ulong)seed);
        model.eval();
        int context = random.Next(1, 25), rows = random.Next(1, 4);
        using KeyValueCache cache = new(config, rows, context);
        Reading reading = new(model, cache, random, [.. Enumerable.Range(0, rows).Select(_ => new List<int>())]);
        for (int step = 0; step < 12; step++)
        {
            string what = reading.Next();
            (double worst, int row) = reading.Worst;
            Assert.True(worst <= 1e-4, string.Create(CultureInfo.InvariantCulture,
                $"{hint}, seed {seed}, context {context}, step {step} ({what}): the logits of row {row} are {worst:0.0e+0} off"));
            Assert.Equal(reading.Texts.Select((t, r) => t.Count - cache.Dropped[r]), cache.Lengths.Select(l => (long)l));
        }
    }

    /// <summary>Does one random thing after the other with a cache, and keeps each row's text.</summary>
    private sealed class Reading(Decoder model, KeyValueCache cache, Random random, List<List<int>> texts)
    {
        private readonly PlainNetwork _plain = new(model.Config, model.Parameters()) { Window = cache.ContextLength };

        public List<List<int>> Texts => texts;

        public (double Difference, int Row) Worst { get; private set; }

        public string Next()
        {
            switch (random.Next(8))
            {
                case 0:
                    int[] chosen = [.. Enumerable.Range(0, random.Next(1, 6)).Select(_ => random.Next(texts.Count))];
                    cache.Select(chosen);
                    texts = [.. chosen.Select(r => new List<int>(texts[r]))];
                    return $"select {string.Join(", ", chosen)}";
                case 1:
                    // What was dropped would have to come back.
                    int[] lengths = [.. cache.Lengths.Select((l, r) => cache.Dropped[r] > 0 ? l : random.Next(l + 1))];
                    for (int r = 0; r < texts.Count; r++) texts[r].RemoveRange(texts[r].Count - cache.Lengths[r] + lengths[r], cache.Lengths[r] - lengths[r]);
                    cache.Truncate(lengths);
                    return $"truncate to {string.Join(", ", lengths)}";
                case 2 when texts.Count < 4:
                    using (KeyValueCache other = new(model.Config, 1, cache.ContextLength))
                    {
                        Reading alone = new(model, other, random, [[]]);
                        string read = alone.Read(random.Next(1, 40));
                        cache.Join(other);
                        texts.Add(alone.Texts[0]);
                        Worst = alone.Worst;
                        return $"join a row with {read}";
                    }
                case < 5:
                    return Read(1, all: true);
                default:
                    return Read(random.Next(1, 20));
            }
        }

        private string Read(int columns, bool all = false)
        {
            int[] counts = [.. texts.Select(_ => all || random.Next(3) == 0 ? columns : random.Next(columns + 1))];
            long[,] ids = new long[texts.Count, columns];
            for (int r = 0; r < texts.Count; r++)
            {
                for (int t = 0; t < columns; t++) ids[r, t] = random.Next(model.Config.VocabularySize);
                texts[r].AddRange(Enumerable.Range(columns - counts[r], counts[r]).Select(t => (int)ids[r, t]));
            }
            using DisposeScope scope = NewDisposeScope();
            Tensor logits_BV = model.Forward(tensor(ids), counts, cache);
            Worst = (0, 0);
            for (int r = 0; r < texts.Count; r++)
            {
                if (counts[r] == 0) continue;
                Tensor expected_V = Expected(texts[r]);
                double difference = (expected_V - logits_BV[r].@double()).abs().max().item<double>() / Math.Max(1, expected_V.abs().max().item<double>());
                if (!(difference <= Worst.Difference)) Worst = (difference, r);
            }
            return $"read {string.Join(", ", counts)} of {columns}";
        }

        /// <summary>Learned positions begin again with the newest three quarters of the window whenever they are used up.</summary>
        private Tensor Expected(List<int> text)
        {
            using var quiet = no_grad();
            bool table = model.Config.Positions == Positions.Learned;
            List<long> read = [];
            foreach (int token in text)
            {
                if (table && read.Count == model.Config.ContextLength) read = [.. read.TakeLast(cache.ContextLength * 3 / 4)];
                read.Add(token);
            }
            return _plain.Logits(tensor(read.ToArray()).unsqueeze(0))[0, ^1];
        }
    }
}
