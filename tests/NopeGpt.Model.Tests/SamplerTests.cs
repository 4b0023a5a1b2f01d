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
        SamplingOptions options = new() { Temperature = double.NaN, TopK = -1, TopP = 0, RepeatPenalty = 1.5, RepeatWindow = -1 };
        Assert.Equal(["temperature", "top_k", "top_p", "repeat_penalty", "repeat_window"], options.Problems().Select(p => p.Field));
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

    [Fact]
    public void A_diverged_model_is_reported_and_does_not_draw() =>
        Assert.Throws<InvalidDataException>(() => Draw(Plain, [0, float.NaN], 1));

    [Fact]
    public void Options_are_json_in_snake_case()
    {
        SamplingOptions options = new() { TopP = 0.5, Seed = 3 };
        string json = JsonSerializer.Serialize(options);
        Assert.Contains("\"repeat_window\":50", json);
        Assert.Equal(options, JsonSerializer.Deserialize<SamplingOptions>(json));
    }

    private static Tensor Logits(float[] values) => tensor(values);

    private static SampledToken Draw(SamplingOptions options, float[] logits, ulong seed, int[]? generated = null)
    {
        using Tensor logits_V = Logits(logits);
        return new Sampler(options, seed).Next(logits_V, generated ?? []);
    }
}
