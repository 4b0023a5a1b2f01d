using NopeGpt.Model.Native;
using TorchSharp;
using static TorchSharp.torch;

namespace NopeGpt.Model.Tests;

public sealed class BatchGenerationTests : IDisposable
{
    private static readonly ModelConfig Tiny = new() { VocabularySize = 61, EmbeddingDimensions = 24, NumQHeads = 6, NumKvHeads = 2, NumDecoderLayers = 2, HiddenRatio = 2 };

    private readonly DisposeScope _scope;

    public BatchGenerationTests()
    {
        TorchRuntime.Load();
        _scope = NewDisposeScope();
    }

    public static TheoryData<string> Names => ArchitectureTests.Names;

    public void Dispose() => _scope.Dispose();

    [Theory]
    [MemberData(nameof(Names))]
    public void Each_text_of_a_batch_is_the_one_that_it_would_be_alone(string option)
    {
        int seed = Random.Shared.Next();
        Random random = new(seed);
        ModelConfig config = ArchitectureTests.Options[option];
        using Decoder model = Model(config, seed);
        int context = random.Next(4, 40);
        TextRequest[] requests = [.. Enumerable.Range(0, 5).Select(_ => RandomRequest(random, config.VocabularySize, random.Next(1, 301)))];
        IReadOnlyList<GeneratedText> together = BatchGeneration.Run(model, requests, context);
        for (int i = 0; i < requests.Length; i++)
            AssertSame($"{option}, seed {seed}, text {i}", Alone(model, requests[i], context), together[i]);
    }

    [Fact]
    public void Texts_that_come_in_while_others_run_or_are_read_are_the_ones_that_they_would_be_alone()
    {
        int seed = Random.Shared.Next();
        Random random = new(seed);
        using Decoder model = Model(Tiny with { Positions = (Positions)random.Next(3), ContextLength = 30 }, seed);
        using BatchGeneration batch = new(model, 24);
        List<GeneratedText> texts = [];
        while (texts.Count < 12 || !batch.Done)
        {
            if (texts.Count < 12 && (batch.Done || random.Next(3) == 0)) texts.Add(batch.Add(RandomRequest(random, 61, random.Next(1, 700))));
            int before = texts.Sum(t => t.Tokens.Count);
            IReadOnlyList<TextPiece> pieces = batch.Step();
            Assert.Equal(pieces.Count(p => p.Token is not null), texts.Sum(t => t.Tokens.Count) - before);
            Assert.All(pieces, p => Assert.Equal(p.Text.Finish, p.Finish));
        }
        for (int i = 0; i < texts.Count; i++) AssertSame($"seed {seed}, text {i}", Alone(model, texts[i].Request, 24), texts[i]);
    }

    [Fact]
    public void A_text_that_its_caller_ends_leaves_and_the_others_stay_as_they_are()
    {
        int seed = Random.Shared.Next();
        Random random = new(seed);
        using Decoder model = Model(Tiny, seed);
        // Ended before their prompt is read, in the midst of it (the only one that has begun), and while they run.
        foreach ((int ended, int steps) in ((int, int)[])[(0, 0), (0, 1), (1, 2), (2, 6), (0, 6)])
        {
            using BatchGeneration batch = new(model, 500);
            GeneratedText[] texts = [.. ((int[])[900, 300, 20, 7]).Select(length => batch.Add(RandomRequest(random, 61, length) with { MaxTokens = 30, StopTokens = [] }))];
            for (int i = 0; i < steps; i++) batch.Step();
            int written = texts[ended].Tokens.Count;
            batch.End(texts[ended]);
            while (!batch.Done) Assert.DoesNotContain(batch.Step(), p => p.Text == texts[ended]);
            Assert.Equal((written, FinishReason.Stop), (texts[ended].Tokens.Count, texts[ended].Finish));
            foreach (GeneratedText text in texts.Where((_, i) => i != ended)) AssertSame($"seed {seed}, {ended} after {steps}", Alone(model, text.Request, 500), text);
        }
    }

    [Fact]
    public void A_stop_token_ends_a_text_and_is_no_part_of_it()
    {
        using Decoder model = Model(Tiny, 5);
        TextRequest request = new([1, 2, 3], new() { Temperature = 0 }, 1, 20, []);
        GeneratedText whole = BatchGeneration.Run(model, [request], 50)[0];
        Assert.Equal((20, FinishReason.Length), (whole.Tokens.Count, whole.Finish));
        int[] ids = [.. whole.Tokens.Select(t => t.Id)];
        int stop = ids[10], first = Array.IndexOf(ids, stop), absent = Enumerable.Range(0, 61).First(id => !ids.Contains(id));
        GeneratedText stopped = BatchGeneration.Run(model, [request with { StopTokens = [absent, stop] }], 50)[0];
        Assert.Equal(ids[..first], stopped.Tokens.Select(t => t.Id));
        Assert.Equal(FinishReason.Stop, stopped.Finish);
    }

    [Fact]
    public void Ids_from_the_vocabulary_size_on_are_not_drawn()
    {
        using Decoder model = Model(Tiny, 6);
        TextRequest request = new([1], new() { Temperature = 5, TopK = 0, TopP = 1 }, 1, 100, []);
        Assert.Contains(BatchGeneration.Run(model, [request], 50)[0].Tokens, t => t.Id >= 10);
        Assert.All(BatchGeneration.Run(model, [request], 50, vocabularySize: 10)[0].Tokens, t => Assert.InRange(t.Id, 0, 9));
        Assert.Throws<ArgumentOutOfRangeException>(() => new BatchGeneration(model, 50, 62));
    }

    [Fact]
    public void A_request_that_cannot_be_fulfilled_is_refused_with_the_reason()
    {
        using Decoder model = Model(Tiny, 7);
        using BatchGeneration batch = new(model, 50);
        TextRequest good = new([1], new(), 1, 5, []);
        Assert.Contains("empty", Refused(good with { Prompt = [] }), StringComparison.Ordinal);
        Assert.Contains("61 is not in the vocabulary: ids go from 0 to 60", Refused(good with { Prompt = [4, 61] }), StringComparison.Ordinal);
        Assert.Contains("-1 is not in the vocabulary", Refused(good with { Prompt = [-1] }), StringComparison.Ordinal);
        Assert.Contains("at least 1", Refused(good with { MaxTokens = 0 }), StringComparison.Ordinal);
        Assert.Contains("temperature", Refused(good with { Sampling = new() { Temperature = -1 } }), StringComparison.Ordinal);
        Assert.True(batch.Done);

        string Refused(TextRequest request) => Assert.Throws<ArgumentException>(() => batch.Add(request)).Message;
    }

    [Fact]
    public void A_batch_can_be_cancelled_and_leaves_no_tensors()
    {
        using Decoder model = Model(Tiny, 8);
        TextRequest[] requests = [.. Enumerable.Range(0, 4).Select(i => RandomRequest(new(i), 61, 20 + (100 * i)))];
        BatchGeneration.Run(model, requests, 40);
        long before = DisposeScopeManager.Statistics.ThreadTotalLiveCount;
        BatchGeneration.Run(model, requests, 40);
        using CancellationTokenSource cancelled = new();
        cancelled.Cancel();
        Assert.Throws<OperationCanceledException>(() => BatchGeneration.Run(model, requests, 40, cancel: cancelled.Token));
        using (BatchGeneration half = new(model, 40))
        {
            foreach (TextRequest request in requests) half.Add(request);
            for (int i = 0; i < 4; i++) half.Step();
        }
        Assert.Equal(before, DisposeScopeManager.Statistics.ThreadTotalLiveCount);
    }

    private static Decoder Model(ModelConfig config, int seed)
    {
        Decoder model = new(config, (ulong)seed);
        ArchitectureTests.Spread(model, (ulong)seed);
        model.eval();
        return model;
    }

    private static TextRequest RandomRequest(Random random, int vocabulary, int length)
    {
        SamplingOptions sampling = new()
        {
            Temperature = random.Next(4) == 0 ? 0 : 0.5 + random.NextDouble(), TopK = random.Next(2) * random.Next(1, 100), TopP = random.Next(2) == 0 ? 1 : 0.9,
            RepeatPenalty = random.Next(2) * 0.2, RepeatWindow = random.Next(30),
        };
        int[] Draw(int count) => [.. Enumerable.Range(0, count).Select(_ => random.Next(vocabulary))];
        return new(Draw(length), sampling, (ulong)random.NextInt64(), random.Next(1, 40), Draw(random.Next(3)));
    }

    /// <summary>One text by the full network's cache in a single row and one call a token: no batch.</summary>
    private static (SampledToken[] Tokens, FinishReason Finish) Alone(Decoder model, TextRequest request, int context)
    {
        using DisposeScope scope = NewDisposeScope();
        using KeyValueCache cache = new(model.Config, 1, context);
        Sampler sampler = new(request.Sampling, request.Seed);
        List<SampledToken> tokens = [];
        long[] next = [.. request.Prompt.Select(t => (long)t)];
        while (tokens.Count < request.MaxTokens)
        {
            SampledToken token = sampler.Next(model.Forward(tensor(next).unsqueeze(0), cache)[0], [.. tokens.Select(t => t.Id)]);
            if (request.StopTokens.Contains(token.Id)) return ([.. tokens], FinishReason.Stop);
            tokens.Add(token);
            next = [token.Id];
        }
        return ([.. tokens], FinishReason.Length);
    }

    private static void AssertSame(string hint, (SampledToken[] Tokens, FinishReason Finish) expected, GeneratedText actual)
    {
        Assert.True(expected.Tokens.Select(t => t.Id).SequenceEqual(actual.Tokens.Select(t => t.Id)),
            $"{hint}: [{string.Join(", ", expected.Tokens.Select(t => t.Id))}] alone, [{string.Join(", ", actual.Tokens.Select(t => t.Id))}] in the batch");
        double worst = expected.Tokens.Zip(actual.Tokens).Select(p => Math.Abs(p.First.Probability - p.Second.Probability)).DefaultIfEmpty().Max();
        Assert.True(worst < 1e-4, $"{hint}: a probability differs by {worst}");
        Assert.True(expected.Finish == actual.Finish, $"{hint}: {expected.Finish} alone, {actual.Finish} in the batch");
    }
}
