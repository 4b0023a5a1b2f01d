using System.Text.Json;
using System.Text.Json.Nodes;
using NopeGpt.Model.Native;
using NopeGpt.Model.Storage;
using NopeGpt.Tests;
using TorchSharp;
using static TorchSharp.torch;

namespace NopeGpt.Model.Tests;

public sealed class BeamSearchTests
{
    public BeamSearchTests() => TorchRuntime.Load();

    [Theory]
    [InlineData(0.0)]
    [InlineData(0.6)]
    [InlineData(1.0)]
    [InlineData(2.5)]
    public void With_room_for_every_text_it_finds_the_best_of_all(double penalty)
    {
        for (ulong seed = 0; seed < 4; seed++)
        {
            using Decoder model = Tiny(seed);
            int[] prompt = [1, 4, 2];
            BeamSearchOptions options = new() { NumCandidates = 12, BeamWidth = 256, LengthPenalty = penalty, MaxTokens = 4, ContextLength = 16 };
            BeamCandidate[] expected = [.. Everything(model, prompt, [0, 3], options).OrderByDescending(c => c.Score).Take(options.NumCandidates)];
            IReadOnlyList<BeamCandidate> found = BeamSearch.Run(model, prompt, options, [3, 0, 3]);
            Assert.Equal(expected.Length, found.Count);
            for (int i = 0; i < expected.Length; i++)
            {
                Assert.True(Math.Abs(expected[i].Score - found[i].Score) < 1e-5, $"seed {seed}, candidate {i}: {expected[i].Score} and {found[i].Score}");
                Assert.Equal(found[i].LogProbability / Math.Pow(Math.Max(1, found[i].Tokens.Count), penalty), found[i].Score, 1e-9);
            }
        }
    }

    [Fact]
    public void A_candidates_log_probability_is_that_of_its_tokens_and_its_stop()
    {
        using Decoder model = Tiny(7, vocabulary: 40);
        int[] prompt = [3, 9];
        BeamSearchOptions options = new() { NumCandidates = 8, BeamWidth = 5, MaxTokens = 6, ContextLength = 16 };
        foreach (BeamCandidate candidate in BeamSearch.Run(model, prompt, options, [5]))
        {
            Assert.DoesNotContain(5, candidate.Tokens);
            int[] whole = candidate.Tokens.Count == options.MaxTokens ? [.. candidate.Tokens] : [.. candidate.Tokens, 5];
            Assert.Equal(LogProbability(model, prompt, whole), candidate.LogProbability, 1e-4);
        }
    }

    [Fact]
    public void Width_one_is_greedy_decoding()
    {
        using Decoder model = Tiny(11, vocabulary: 40);
        List<int> greedy = [];
        using (DisposeScope scope = NewDisposeScope())
            for (int i = 0; i < 10; i++) greedy.Add((int)model.Forward(Row([6, .. greedy]))[0, ^1].argmax().item<long>());
        BeamCandidate found = Assert.Single(BeamSearch.Run(model, [6], new() { NumCandidates = 1, BeamWidth = 1, MaxTokens = 10, ContextLength = 32 }, []));
        Assert.Equal(greedy, found.Tokens);
    }

    [Fact]
    public void Tokens_outside_the_given_vocabulary_are_not_considered()
    {
        using Decoder model = Tiny(2, vocabulary: 40);
        IReadOnlyList<BeamCandidate> found = BeamSearch.Run(model, [39], new() { NumCandidates = 5, MaxTokens = 4, ContextLength = 8 }, [0], vocabularySize: 6);
        Assert.Equal(5, found.Count);
        Assert.All(found, c => Assert.All(c.Tokens, t => Assert.InRange(t, 1, 5)));
    }

    [Fact]
    public void A_prompt_longer_than_the_context_is_continued_from_its_newest_tokens()
    {
        using Decoder model = Tiny(2, vocabulary: 40);
        BeamSearchOptions options = new() { NumCandidates = 2, BeamWidth = 3, MaxTokens = 3, ContextLength = 4 };
        int[] prompt = [.. Enumerable.Range(0, 30)];
        Assert.Equal(2, BeamSearch.Run(model, prompt, options, []).Count);
    }

    [Fact]
    public void A_stop_token_that_is_certain_ends_the_search_at_once()
    {
        using Decoder model = Tiny(3);
        long before = DisposeScopeManager.Statistics.ThreadTotalLiveCount;
        // No open text can be better than a finished one without a stop token's cost.
        IReadOnlyList<BeamCandidate> found = BeamSearch.Run(model, [1], new() { NumCandidates = 1, LengthPenalty = 0, MaxTokens = 1_000_000, ContextLength = 16 }, [0, 1, 2, 3, 4]);
        Assert.Empty(Assert.Single(found).Tokens);
        Assert.Equal(before, DisposeScopeManager.Statistics.ThreadTotalLiveCount);
    }

    [Fact]
    public void A_cancelled_search_ends()
    {
        using Decoder model = Tiny(3);
        Assert.Throws<OperationCanceledException>(() => BeamSearch.Run(model, [1], new(), [], cancel: new CancellationToken(canceled: true)));
    }

    [Fact]
    public void A_diverged_model_is_reported()
    {
        using Decoder model = Tiny(3);
        using (no_grad())
            foreach ((_, Tensor parameter) in model.Parameters()) parameter.fill_(float.NaN);
        Assert.Contains("not a number", Assert.Throws<InvalidDataException>(() => BeamSearch.Run(model, [1], new() { ContextLength = 16 }, [0])).Message, StringComparison.Ordinal);
    }

    [Fact]
    public void Everything_wrong_is_named_at_once()
    {
        BeamSearchOptions options = new() { NumCandidates = 0, BeamWidth = 0, LengthPenalty = -0.1, MaxTokens = 0, ContextLength = 0 };
        Assert.Equal(["num_candidates", "beam_width", "length_penalty", "max_tokens", "context_length"], options.Problems().Select(p => p.Field));
        Assert.Equal("length_penalty", Assert.Single(new BeamSearchOptions { LengthPenalty = double.NaN }.Problems()).Field);
        Assert.Equal((3, 16, 1.0), (new BeamSearchOptions().NumCandidates, new BeamSearchOptions().BeamWidth, new BeamSearchOptions().LengthPenalty));
        using Decoder model = Tiny(1);
        Assert.Contains("length_penalty", Assert.Throws<ArgumentException>(() => BeamSearch.Run(model, [1], options, [])).Message, StringComparison.Ordinal);
        Assert.Throws<ArgumentException>(() => BeamSearch.Run(model, [], new(), []));
        Assert.Throws<ArgumentException>(() => BeamSearch.Run(model, [5], new(), []));
        Assert.Throws<ArgumentException>(() => BeamSearch.Run(model, [1], new(), [5]));
    }

    [NeedsTheory(Needs.SharedData)]
    [MemberData(nameof(ParityTests.Cases), MemberType = typeof(ParityTests))]
    public void Candidates_score_at_least_as_well_as_the_references(string name)
    {
        string folder = Needs.Data(Path.Combine("parity", name));
        using Decoder model = Checkpoint.LoadModel(folder);
        foreach (JsonNode? search in JsonNode.Parse(File.ReadAllText(Path.Combine(folder, "beam-search-lower-bound.json")))!.AsArray())
        {
            BeamSearchOptions options = search.Deserialize<BeamSearchOptions>()!;
            IReadOnlyList<BeamCandidate> found = BeamSearch.Run(model, Ids(search!["prompt"]!), options, Ids(search["stop_tokens"]!));
            double[] bounds = [.. search["candidates"]!.AsArray().Select(c => (double)c!["log_probability"]! / Math.Pow(Math.Max(1, Ids(c["tokens"]!).Length), options.LengthPenalty)).OrderDescending()];
            Assert.Equal(bounds.Length, found.Count);
            for (int i = 0; i < bounds.Length; i++) Assert.True(found[i].Score >= bounds[i] - 1e-5, $"candidate {i}: {found[i].Score}, the reference has {bounds[i]}");
        }
    }

    private static int[] Ids(JsonNode ids) => [.. ids.AsArray().Select(i => (int)i!)];

    /// <summary>A model whose predictions are far from even.</summary>
    private static Decoder Tiny(ulong seed, int vocabulary = 5)
    {
        Decoder model = new(new ModelConfig { VocabularySize = vocabulary, EmbeddingDimensions = 16, NumQHeads = 4, NumKvHeads = 2, NumDecoderLayers = 2 }, seed);
        model.eval();
        using (no_grad())
        {
            using Scalar factor = 20;
            model.Parameters()[0].Parameter.mul_(factor);
        }
        return model;
    }

    private static Tensor Row(int[] ids) => tensor(Array.ConvertAll(ids, i => (long)i), [1, ids.Length], ScalarType.Int64);

    private static double LogProbability(Decoder model, int[] prompt, int[] tokens)
    {
        using DisposeScope scope = NewDisposeScope();
        using var quiet = no_grad();
        Tensor logP_TV = model.Forward(Row([.. prompt, .. tokens]))[0].to(ScalarType.Float64).log_softmax(1);
        return tokens.Select((id, i) => logP_TV[prompt.Length - 1 + i, id].item<double>()).Sum();
    }

    /// <summary>Every text that can be finished.</summary>
    private static List<BeamCandidate> Everything(Decoder model, int[] prompt, int[] stops, BeamSearchOptions options)
    {
        List<BeamCandidate> all = [];
        int[] others = [.. Enumerable.Range(0, model.Config.VocabularySize).Except(stops)];
        List<(int[] Tokens, double LogP)> open = [([], 0)];
        using DisposeScope scope = NewDisposeScope();
        using var quiet = no_grad();
        for (int length = 0; length < options.MaxTokens; length++)
        {
            Tensor ids = tensor([.. open.SelectMany(o => prompt.Concat(o.Tokens)).Select(i => (long)i)], [open.Count, prompt.Length + length], ScalarType.Int64);
            double[] logP = model.Forward(ids).select(1, prompt.Length + length - 1).to(ScalarType.Float64).log_softmax(1).data<double>().ToArray();
            List<(int[] Tokens, double LogP)> longer = [];
            for (int o = 0; o < open.Count; o++)
            {
                double Of(int id) => open[o].LogP + logP[(o * model.Config.VocabularySize) + id];
                foreach (int stop in stops) Add(open[o].Tokens, Of(stop));
                foreach (int id in others) longer.Add(([.. open[o].Tokens, id], Of(id)));
            }
            open = longer;
        }
        foreach ((int[] tokens, double logP) in open) Add(tokens, logP);
        return all;

        void Add(int[] tokens, double logP) => all.Add(new(tokens, logP, logP / Math.Pow(Math.Max(1, tokens.Length), options.LengthPenalty)));
    }
}
