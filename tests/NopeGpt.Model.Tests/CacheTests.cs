using NopeGpt.Model.Native;
using TorchSharp;
using static TorchSharp.torch;

namespace NopeGpt.Model.Tests;

public sealed class CacheTests : IDisposable
{
    private static readonly ModelConfig Grouped = new() { VocabularySize = 61, EmbeddingDimensions = 48, NumQHeads = 6, NumKvHeads = 2, NumDecoderLayers = 3 };

    private readonly DisposeScope _scope;

    public CacheTests()
    {
        TorchRuntime.Load();
        _scope = NewDisposeScope();
    }

    public void Dispose() => _scope.Dispose();

    [Theory]
    [InlineData(1, 2, new[] { 20 })]
    [InlineData(1, 2, new[] { 1, 1, 1, 1 })]
    [InlineData(2, 2, new[] { 7, 1, 1, 5, 1 })]
    [InlineData(1, 6, new[] { 3, 4, 1, 5, 6 })]
    [InlineData(3, 1, new[] { 2, 17, 1 })]
    public void Cached_logits_equal_those_of_the_whole_text(int rows, int keyHeads, int[] chunks)
    {
        using Decoder model = Model(Grouped with { NumKvHeads = keyHeads });
        using KeyValueCache cache = new(model.Config, rows, 64);
        Tensor tokens_BT = Tokens(rows, chunks.Sum());
        Tensor expected_BTV = model.Forward(tokens_BT);
        int read = 0;
        foreach (int chunk in chunks)
        {
            Tensor logits_BV = model.Forward(tokens_BT.narrow(1, read, chunk), cache);
            read += chunk;
            Assert.Equal([rows, 61], logits_BV.shape);
            AssertClose(expected_BTV.select(1, read - 1), logits_BV);
            Assert.Equal(Enumerable.Repeat(read, rows), cache.Lengths);
        }
    }

    [Fact]
    public void A_prompt_longer_than_a_chunk_gives_the_same_logits_while_the_buffers_grow()
    {
        using Decoder model = Model(Grouped);
        using KeyValueCache cache = new(model.Config, 1, 2000);
        Tensor tokens_BT = Tokens(1, 700);
        Tensor expected_BTV = model.Forward(tokens_BT);
        AssertClose(expected_BTV.select(1, 660), model.Forward(tokens_BT.narrow(1, 0, 661), cache));
        for (int i = 661; i < 700; i++) AssertClose(expected_BTV.select(1, i), model.Forward(tokens_BT.narrow(1, i, 1), cache));
        Assert.Equal((700, 0), (cache.Lengths[0], cache.Dropped[0]));
        Assert.Equal(1024, cache.Capacity);
    }

    [Theory]
    [InlineData(5)]
    [InlineData(8)]
    public void Beyond_the_context_the_oldest_are_dropped_and_the_cut_into_calls_does_not_matter(int context)
    {
        using Decoder model = Model(Grouped);
        using KeyValueCache single = new(model.Config, 1, context), chunked = new(model.Config, 1, context), prompt = new(model.Config, 1, context);
        Tensor tokens_BT = Tokens(1, 40);
        Tensor expected_BV = empty(0);
        int read = 0;
        foreach (int chunk in (int[])[3, 4, 1, 6, 1, 1, 14, 10])
        {
            Tensor last_BV = model.Forward(tokens_BT.narrow(1, read, chunk), chunked);
            for (int i = 0; i < chunk - 1; i++) model.Forward(tokens_BT.narrow(1, read + i, 1), single);
            read += chunk;
            expected_BV = model.Forward(tokens_BT.narrow(1, read - 1, 1), single);
            AssertClose(expected_BV, last_BV);
            Assert.Equal((single.Lengths[0], single.Dropped[0]), (chunked.Lengths[0], chunked.Dropped[0]));
        }
        AssertClose(expected_BV, model.Forward(tokens_BT, prompt));
        Assert.Equal((context, 40 - context), (prompt.Lengths[0], prompt.Dropped[0]));
    }

    [Fact]
    public void With_one_layer_a_full_cache_sees_exactly_the_last_tokens()
    {
        using Decoder model = Model(Grouped with { NumDecoderLayers = 1 });
        using KeyValueCache cache = new(model.Config, 1, 6);
        Tensor tokens_BT = Tokens(1, 30);
        for (int i = 0; i < 30; i++)
        {
            Tensor logits_BV = model.Forward(tokens_BT.narrow(1, i, 1), cache);
            int first = Math.Max(0, i - 5);
            AssertClose(model.Forward(tokens_BT.narrow(1, first, i - first + 1)).select(1, i - first), logits_BV);
        }
    }

    [Fact]
    public void A_truncated_cache_goes_on_from_there_and_a_cleared_one_from_the_start()
    {
        using Decoder model = Model(Grouped);
        using KeyValueCache cache = new(model.Config, 1, 64);
        Tensor tokens_BT = Tokens(1, 12), other_BT = Tokens(1, 5, seed: 9);
        model.Forward(tokens_BT, cache);
        cache.Truncate(7);
        AssertClose(model.Forward(cat([tokens_BT.narrow(1, 0, 7), other_BT], 1)).select(1, 11), model.Forward(other_BT, cache));
        cache.Clear();
        Assert.Equal([0], cache.Lengths);
        AssertClose(model.Forward(other_BT).select(1, 4), model.Forward(other_BT, cache));
        Assert.Throws<ArgumentOutOfRangeException>(() => cache.Truncate(6));
        Assert.Throws<ArgumentOutOfRangeException>(() => cache.Truncate(-1));
    }

    [Fact]
    public void Live_tensors_stay_level_while_the_context_slides()
    {
        using Decoder model = Model(Grouped);
        using KeyValueCache cache = new(model.Config, 1, 16);
        Tensor token_BT = Tokens(1, 1);
        model.Forward(token_BT, cache).Dispose();
        long before = DisposeScopeManager.Statistics.ThreadTotalLiveCount;
        for (int i = 0; i < 60; i++) model.Forward(token_BT, cache).Dispose();
        Assert.Equal(before, DisposeScopeManager.Statistics.ThreadTotalLiveCount);
    }

    [Fact]
    public void Ids_of_the_wrong_shape_are_refused()
    {
        using Decoder model = Model(Grouped);
        using KeyValueCache cache = new(model.Config, 2, 16);
        Assert.Throws<ArgumentException>(() => model.Forward(Tokens(1, 3), cache));
        Assert.Throws<ArgumentException>(() => model.Forward(Tokens(2, 0), cache));
    }

    private static Decoder Model(ModelConfig config)
    {
        Decoder model = new(config, 11);
        // At the initial scale of the embedding the logits are nearly equal and would hide a wrong mask.
        using (no_grad())
            foreach ((_, Tensor parameter) in model.Parameters()) if (parameter.dim() == 2) parameter.mul_(0.15f / parameter.std());
        model.eval();
        return model;
    }

    private static Tensor Tokens(int rows, int count, ulong seed = 3)
    {
        using Generator generator = new(seed, CPU);
        return randint(0, 61, [rows, count], ScalarType.Int64, generator: generator);
    }

    private static void AssertClose(Tensor expected, Tensor actual) =>
        Assert.InRange(expected.sub(actual).abs().max().item<float>(), 0, 1e-4f);
}
