using System.Text.Json;
using NopeGpt.Model.Native;
using TorchSharp;
using static TorchSharp.torch;

namespace NopeGpt.Model.Tests;

public sealed class SamplerTests
{
    private static readonly SamplingOptions Plain = new() { Temperature = 1, TopK = 0, TopP = 1, RepeatPenalty = 0 };

    public SamplerTests() => TorchRuntime.Load();

    [Fact]
    public void Defaults_are_those_of_the_reference()
    {
        SamplingOptions options = new();
        Assert.Equal((0.9, 500, 0.9, 0.1, 50), (options.Temperature, options.TopK, options.TopP, options.RepeatPenalty, options.RepeatWindow));
        Assert.Empty(options.Problems());
    }

    [Fact]
    public void All_problems_are_reported_at_once()
    {
        SamplingOptions options = new() { Temperature = double.NaN, TopK = -1, TopP = 0, MinP = 1.1, RepeatPenalty = 1.5, RepeatWindow = -1 };
        Assert.Equal(["temperature", "top_k", "top_p", "min_p", "repeat_penalty", "repeat_window"], options.Problems().Select(p => p.Field));
        Assert.Throws<ArgumentException>(() => new Sampler(options, 1));
        Assert.Equal("top_p", Assert.Single((Plain with { TopP = double.NaN }).Problems()).Field);
    }

    [Fact]
    public void Temperature_zero_takes_the_likeliest_token_whatever_the_seed()
    {
        for (ulong seed = 0; seed < 20; seed++)
        {
            SampledToken token = Draw(Plain with { Temperature = 0 }, [1, 3, 3, 2], seed);
            Assert.Equal(1, token.Id);
            Assert.Equal(Math.Exp(3) / (Math.Exp(1) + Math.Exp(3) + Math.Exp(3) + Math.Exp(2)), token.Probability, 1e-6);
        }
    }

    [Fact]
    public void Draws_follow_the_probabilities()
    {
        Sampler sampler = new(Plain, 7);
        using Tensor logits_V = Logits([0, MathF.Log(2), MathF.Log(5)]);
        int[] counts = new int[3];
        const int draws = 20_000;
        for (int i = 0; i < draws; i++) counts[sampler.Next(logits_V, []).Id]++;
        // Three standard deviations of the largest count are 210.
        Assert.InRange(counts[0], (draws / 8.0) - 210, (draws / 8.0) + 210);
        Assert.InRange(counts[1], (draws * 2 / 8.0) - 210, (draws * 2 / 8.0) + 210);
        Assert.InRange(counts[2], (draws * 5 / 8.0) - 210, (draws * 5 / 8.0) + 210);
    }

    [Fact]
    public void The_same_seed_draws_the_same_tokens_and_another_seed_others()
    {
        using Tensor logits_V = Logits([.. Enumerable.Range(0, 300).Select(i => MathF.Sin(i))]);
        int[] Text(ulong seed)
        {
            Sampler sampler = new(Plain, seed);
            List<int> generated = [];
            for (int i = 0; i < 30; i++) generated.Add(sampler.Next(logits_V, generated).Id);
            return [.. generated];
        }
        Assert.Equal(Text(5), Text(5));
        Assert.NotEqual(Text(5), Text(6));
    }

    [Fact]
    public void Top_k_keeps_that_many_and_renormalises()
    {
        for (ulong seed = 0; seed < 50; seed++)
        {
            SampledToken token = Draw(Plain with { TopK = 2 }, [5, 1, 4, 2], seed);
            Assert.Contains(token.Id, (int[])[0, 2]);
            double expected = token.Id == 0 ? 1 / (1 + Math.Exp(-1)) : 1 / (1 + Math.Exp(1));
            Assert.Equal(expected, token.Probability, 1e-6);
        }
    }

    [Theory]
    [InlineData(0.5, 1)]
    [InlineData(0.51, 2)]
    [InlineData(0.8, 3)]
    [InlineData(1, 4)]
    public void Top_p_keeps_the_token_that_crosses_the_threshold(double topP, int kept)
    {
        // Probabilities 0.5, 0.25, 0.15, 0.1; the first reaches 0.5 by itself.
        float[] logits = [MathF.Log(0.15f), MathF.Log(0.5f) + 1e-6f, MathF.Log(0.1f), MathF.Log(0.25f)];
        HashSet<int> seen = [.. Enumerable.Range(0, 400).Select(seed => Draw(Plain with { TopP = topP }, logits, (ulong)seed).Id)];
        Assert.Equal(((int[])[1, 3, 0, 2]).Take(kept).Order(), seen.Order());
    }

    [Fact]
    public void The_repeat_penalty_counts_every_repeat_in_the_window()
    {
        SamplingOptions options = Plain with { Temperature = 0, RepeatPenalty = 0.5, RepeatWindow = 2 };
        // 4 becomes 2, then 1; -1 becomes -1.5. What lies before the window does not count.
        Assert.Equal(0, Draw(options, [4, 1.5f, 3.9f], 0, [2, 2, 1, 1]).Id);
        Assert.Equal(1, Draw(options, [4, 1.5f, 1.2f], 0, [0, 0]).Id);
        Assert.Equal(2, Draw(options, [-1, -9, -1.4f], 0, [0]).Id);
    }

    [Theory]
    [InlineData(1)]
    [InlineData(10)]
    [InlineData(499)]
    [InlineData(1000)]
    public void Selection_agrees_with_a_full_sort(int topK)
    {
        // Few distinct values, so that there are many ties.
        Random random = new(topK);
        float[] logits = [.. Enumerable.Range(0, 1000).Select(_ => (float)random.Next(0, 40))];
        int[] best = [.. Enumerable.Range(0, 1000).OrderByDescending(i => logits[i]).ThenBy(i => i).Take(topK)];
        for (ulong seed = 0; seed < 30; seed++)
            Assert.Contains(Draw(Plain with { TopK = topK, Temperature = 100 }, logits, seed).Id, best);
        Assert.Equal(best[0], Draw(Plain with { TopK = topK, Temperature = 0 }, logits, 0).Id);
    }

    [Fact]
    public void Forbidden_tokens_are_never_drawn_and_a_certain_one_always()
    {
        for (ulong seed = 0; seed < 50; seed++)
        {
            Assert.Equal(1, Draw(Plain, [float.NegativeInfinity, 0, float.NegativeInfinity], seed).Id);
            Assert.Equal(2, Draw(Plain, [1, 0, float.PositiveInfinity], seed).Id);
        }
    }

    [Theory]
    [InlineData(0, 4)]
    [InlineData(0.19, 4)]
    [InlineData(0.21, 3)]
    [InlineData(0.31, 2)]
    [InlineData(0.51, 1)]
    [InlineData(1, 1)]
    public void Min_p_keeps_tokens_with_that_share_of_the_likeliest_ones_probability(double minP, int kept)
    {
        // Probabilities 0.15, 0.5, 0.1, 0.25.
        float[] logits = [MathF.Log(0.15f), MathF.Log(0.5f), MathF.Log(0.1f), MathF.Log(0.25f)];
        HashSet<int> seen = [.. Enumerable.Range(0, 400).Select(seed => Draw(Plain with { MinP = minP }, logits, (ulong)seed).Id)];
        Assert.Equal(((int[])[1, 3, 0, 2]).Take(kept).Order(), seen.Order());
    }

    [Fact]
    public void Every_choice_is_that_of_the_formulas_written_out()
    {
        for (int seed = 0; seed < 150; seed++)
        {
            Random random = new(seed);
            int vocabulary = random.Next(1, 400);
            // Every other time few distinct values, so that there are many ties, zeros of both signs among them.
            float[] logits = [.. Enumerable.Range(0, vocabulary).Select(_ => seed % 2 == 0 ? (float)random.Next(-4, 5) * (random.Next(2) == 0 ? 1 : -1) : random.NextSingle() * 20 - 12)];
            for (int i = 1; i < vocabulary; i++) if (random.Next(8) == 0) logits[i] = float.NegativeInfinity;
            if (random.Next(8) == 0) logits[random.Next(vocabulary)] = float.PositiveInfinity;
            int[] generated = [.. Enumerable.Range(0, random.Next(0, 30)).Select(_ => random.Next(vocabulary))];
            SamplingOptions options = new()
            {
                Temperature = random.Next(4) switch { 0 => 0, 1 => 1e-3, 2 => 1, _ => 0.1 + (3 * random.NextDouble()) },
                TopK = random.Next(3) switch { 0 => 0, 1 => random.Next(1, vocabulary + 1), _ => 100_000 },
                TopP = random.Next(2) == 0 ? 1 : 0.05 + (0.9 * random.NextDouble()),
                MinP = random.Next(2) == 0 ? 0 : random.NextDouble(),
                RepeatPenalty = random.Next(3) switch { 0 => 0, 1 => 1, _ => random.NextDouble() },
                RepeatWindow = random.Next(0, 40),
            };
            using Tensor logits_V = Logits(logits);
            (int[] ids, double[] probabilities) = PlainDistribution(options, logits, generated);
            SampledToken likeliest = new Sampler(options, 1).Likeliest(logits_V, generated, alternatives: 10);
            string where = $"seed {seed}, {options}";
            Assert.True(ids[0] == likeliest.Id, where);
            Assert.True(ids.Take(10).SequenceEqual(likeliest.Alternatives.Select(a => a.Id)), where);
            for (int i = 0; i < likeliest.Alternatives.Count; i++) Assert.True(Math.Abs(probabilities[i] - likeliest.Alternatives[i].Probability) < 1e-5, where);
            Sampler sampler = new(options, (ulong)seed);
            SplitMix64 draws = new((ulong)seed);
            for (int i = 0; i < 5; i++)
            {
                SampledToken token = sampler.Next(logits_V, generated);
                double left = options.Temperature == 0 ? 0 : draws.Next();
                int drawn = 0;
                while (drawn < ids.Length - 1 && (left -= probabilities[drawn]) >= 0) drawn++;
                Assert.True(ids[drawn] == token.Id, where);
                Assert.True(Math.Abs(probabilities[drawn] - token.Probability) < 1e-5, where);
            }
        }
    }

    [Fact]
    public void Texts_side_by_side_get_what_they_get_alone()
    {
        const int vocabulary = 300, steps = 8;
        SamplingOptions[] options =
        [
            new(), new() { Temperature = 0 }, Plain, Plain with { TopK = 3 }, new() { TopP = 0.3, RepeatPenalty = 0 }, new() { MinP = 0.2, TopK = 0, RepeatWindow = 2 },
        ];
        using Tensor logits_TBV = randn([steps, options.Length, vocabulary], generator: new Generator(5)).mul_(3);
        Sampler[] alone = [.. options.Select((o, i) => new Sampler(o, (ulong)i))], together = [.. options.Select((o, i) => new Sampler(o, (ulong)i))];
        List<int>[] texts = [.. options.Select(_ => new List<int>())];
        int[] alternatives = [0, 1, 5, 5, 2, 0];
        for (int t = 0; t < steps; t++)
        {
            SampledToken[] expected = [.. alone.Select((s, i) => s.Next(logits_TBV[t, i], texts[i], alternatives[i]))];
            IReadOnlyList<SampledToken> tokens = Sampler.NextOfEach(logits_TBV[t], together, texts, alternatives);
            for (int i = 0; i < options.Length; i++)
            {
                Assert.Equal(expected[i].Id, tokens[i].Id);
                Assert.Equal(expected[i].Probability, tokens[i].Probability, 1e-6f);
                Assert.Equal(expected[i].Alternatives.Select(a => a.Id), tokens[i].Alternatives.Select(a => a.Id));
                texts[i].Add(tokens[i].Id);
            }
        }
    }

    [Fact]
    public void Alternatives_are_the_likeliest_kept_tokens_with_their_renormalised_probabilities()
    {
        float[] logits = [MathF.Log(0.15f), MathF.Log(0.5f), MathF.Log(0.1f), MathF.Log(0.25f)];
        using Tensor logits_V = Logits(logits);
        SampledToken token = new Sampler(Plain with { TopK = 3 }, 1).Next(logits_V, [], alternatives: 2);
        Assert.Equal([1, 3], token.Alternatives.Select(a => a.Id));
        Assert.Equal(0.5 / 0.9, token.Alternatives[0].Probability, 1e-6);
        Assert.Equal(0.25 / 0.9, token.Alternatives[1].Probability, 1e-6);
        Assert.Equal(3, new Sampler(Plain with { TopK = 3 }, 1).Next(logits_V, [], alternatives: 9).Alternatives.Count);
        Assert.Empty(new Sampler(Plain, 1).Next(logits_V, []).Alternatives);
        Assert.Throws<ArgumentOutOfRangeException>(() => new Sampler(Plain, 1).Next(logits_V, [], alternatives: -1));
    }

    [Fact]
    public void Logits_of_other_types_and_strides_are_read_and_left_as_they_are()
    {
        using Tensor wide = Logits([1, 9, 4, 9, 3, 9, 2, 9]), half = wide.to(ScalarType.BFloat16), before = wide.clone();
        SamplingOptions options = Plain with { Temperature = 0, RepeatPenalty = 0.9 };
        using Tensor even = wide.view(4, 2).T[0], everyHalf = half.view(4, 2).T[0];
        Assert.Equal(2, new Sampler(options, 1).Next(even, [1]).Id);
        Assert.Equal(2, new Sampler(options, 1).Next(everyHalf, [1]).Id);
        using Tensor rows = wide.view(4, 2).T;
        Assert.Equal([2, 1], Sampler.NextOfEach(rows, [new(options, 1), new(options, 1)], [[1], [0]]).Select(t => t.Id));
        Assert.Equal(before.data<float>().ToArray(), wide.data<float>().ToArray());
    }

    [Fact]
    public void Extreme_settings_choose_without_trouble()
    {
        SamplingOptions[] extremes =
        [
            Plain with { Temperature = double.Epsilon }, Plain with { Temperature = 100 }, Plain with { TopK = int.MaxValue, TopP = double.Epsilon },
            Plain with { TopK = 1 }, Plain with { MinP = 1 }, Plain with { RepeatPenalty = 1, RepeatWindow = int.MaxValue },
        ];
        float[] logits = [float.MaxValue, float.MinValue, -0f, 0f, 1e-45f];
        for (int i = 0; i < extremes.Length; i++)
        {
            SampledToken token = Draw(extremes[i], logits, (ulong)i, [0, 0, 1]);
            Assert.Equal(i == 5 ? 4 : 0, i == 5 ? new Sampler(extremes[i], 1).Likeliest(Logits(logits), [0, 0, 1]).Id : token.Id);
            Assert.InRange(token.Probability, 0, 1);
        }
    }

    [Fact]
    public void A_vocabulary_of_200_000_tokens_is_sampled()
    {
        Random random = new(3);
        float[] logits = [.. Enumerable.Range(0, 200_000).Select(_ => random.NextSingle())];
        logits[199_999] = 2;
        Assert.Equal(199_999, Draw(Plain with { Temperature = 0 }, logits, 0).Id);
        SampledToken token = Draw(Plain with { TopK = 1000 }, logits, 4);
        Assert.True(logits[token.Id] > 0.99f);
    }

    [Fact]
    public void Sampling_leaves_no_tensors_behind()
    {
        using Tensor logits_V = Logits([.. Enumerable.Range(0, 300).Select(i => MathF.Sin(i))]);
        Sampler sampler = new(new SamplingOptions(), 1);
        sampler.Next(logits_V, [3], 2);
        long before = DisposeScopeManager.Statistics.ThreadTotalLiveCount;
        for (int i = 0; i < 20; i++) sampler.Next(logits_V, [3], 2);
        Assert.Equal(before, DisposeScopeManager.Statistics.ThreadTotalLiveCount);
    }

    [Fact]
    public void Where_every_token_is_forbidden_that_is_said() =>
        Assert.Contains("minus infinity", Assert.Throws<InvalidDataException>(() => Draw(Plain, [float.NegativeInfinity, float.NegativeInfinity], 1)).Message, StringComparison.Ordinal);

    [Fact]
    public void Logits_and_tokens_that_do_not_fit_are_refused()
    {
        using Tensor logits_BV = zeros(2, 3);
        Sampler sampler = new(new SamplingOptions(), 1);
        Assert.Throws<ArgumentException>(() => sampler.Next(logits_BV, []));
        Assert.Throws<ArgumentException>(() => sampler.Next(logits_BV[0], [3]));
        Assert.Throws<ArgumentException>(() => sampler.Next(logits_BV[0], [-1]));
        Assert.Throws<ArgumentException>(() => Sampler.NextOfEach(logits_BV, [sampler], [[]]));
        Assert.Throws<ArgumentException>(() => Sampler.NextOfEach(logits_BV, [sampler, sampler], [[]]));
    }

    [Fact]
    public void A_diverged_model_is_reported_and_does_not_draw() =>
        Assert.All([float.NaN, -float.NaN, BitConverter.Int32BitsToSingle(0x7f800001)], notANumber =>
            Assert.Contains("not a number", Assert.Throws<InvalidDataException>(() => Draw(Plain with { TopK = 2 }, [0, 1, notANumber, 2], 1)).Message, StringComparison.Ordinal));

    [Fact]
    public void Options_are_json_in_snake_case()
    {
        SamplingOptions options = new() { TopP = 0.5, Seed = 3 };
        string json = JsonSerializer.Serialize(options);
        Assert.Contains("\"repeat_window\":50", json);
        Assert.Equal(options, JsonSerializer.Deserialize<SamplingOptions>(json));
    }

    /// <summary>The tokens to draw from, likeliest first, with their probabilities, in plain arithmetic.</summary>
    private static (int[] Ids, double[] Probabilities) PlainDistribution(SamplingOptions options, float[] logits, int[] generated)
    {
        double[] penalised = [.. logits.Select(l => (double)l)];
        // A certain token stays certain.
        foreach (int id in generated.TakeLast(options.RepeatWindow))
            if (double.IsFinite(penalised[id])) penalised[id] -= options.RepeatPenalty * Math.Abs(penalised[id]);
        float[] rounded = [.. penalised.Select(l => (float)l)];
        int[] ids = [.. Enumerable.Range(0, logits.Length).OrderByDescending(i => rounded[i]).ThenBy(i => i).Take(options.TopK == 0 ? logits.Length : options.TopK)];
        double temperature = options.Temperature == 0 ? 1 : options.Temperature, best = rounded[ids[0]];
        double[] p = [.. ids.Select(i => rounded[i] == best ? 1 : double.IsInfinity(best) ? 0 : Math.Exp((rounded[i] - best) / temperature))];
        p = [.. p.Select(x => x / p.Sum())];
        int kept = 0;
        for (double sum = 0; kept < p.Length && p[kept] > 0 && (kept == 0 || options.TopP == 1 || sum < options.TopP) && p[kept] >= options.MinP * p[0]; kept++) sum += p[kept];
        return (ids[..kept], [.. p.Take(kept).Select(x => x / p.Take(kept).Sum())]);
    }

    /// <summary>Steele, Lea and Flood 2014, figure 10.</summary>
    private sealed class SplitMix64(ulong seed)
    {
        private ulong _state = seed;

        public double Next()
        {
            ulong z = _state += 0x9E3779B97F4A7C15;
            z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9;
            z = (z ^ (z >> 27)) * 0x94D049BB133111EB;
            return ((z ^ (z >> 31)) >> 11) * Math.Pow(2, -53);
        }
    }

    private static Tensor Logits(float[] values) => tensor(values);

    private static SampledToken Draw(SamplingOptions options, float[] logits, ulong seed, int[]? generated = null)
    {
        using Tensor logits_V = Logits(logits);
        return new Sampler(options, seed).Next(logits_V, generated ?? []);
    }
}
