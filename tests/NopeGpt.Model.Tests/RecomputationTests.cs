using NopeGpt.Model.Native;
using TorchSharp;
using Xunit.Abstractions;
using static TorchSharp.torch;

namespace NopeGpt.Model.Tests;

/// <summary>Blocks that are computed again in the backward pass, against blocks that keep everything.</summary>
public sealed class RecomputationTests : IDisposable
{
    private static readonly ModelConfig Tiny = new() { VocabularySize = 61, EmbeddingDimensions = 48, NumQHeads = 6, NumKvHeads = 2, NumDecoderLayers = 3 };

    private readonly DisposeScope _scope;
    private readonly Random _random;

    public RecomputationTests(ITestOutputHelper output)
    {
        int seed = Random.Shared.Next();
        output.WriteLine($"seed {seed}");
        _random = new(seed);
        TorchRuntime.Load();
        _scope = NewDisposeScope();
    }

    public static TheoryData<string> Names => ArchitectureTests.Names;

    public void Dispose() => _scope.Dispose();

    [Theory]
    [MemberData(nameof(Names))]
    public void Losses_and_gradients_are_the_same_to_the_bit(string option)
    {
        ModelConfig config = ArchitectureTests.Options[option];
        AssertSame(config, rows: 3, length: 17);
        AssertSame(config with { Dropout = 0.2, AttentionDropout = 0.1, ResidualDropout = 0.3 }, rows: 3, length: 17);
    }

    // So few tokens that generation has kernels of its own for them.
    [Theory]
    [InlineData(1, 1)]
    [InlineData(1, 9)]
    [InlineData(7, 1)]
    [InlineData(2, 40)]
    public void Any_number_of_tokens_gives_the_same_to_the_bit(int rows, int length)
    {
        AssertSame(Tiny, rows, length);
        AssertSame(Tiny with { Positions = Positions.Rope, Dropout = 0.3, ResidualDropout = 0.1 }, rows, length);
    }

    [Theory]
    [InlineData(0)]
    [InlineData(0.25)]
    public void Packed_rows_give_the_same_to_the_bit(double dropout)
    {
        ModelConfig config = Tiny with { Positions = Positions.Rope, Dropout = dropout, AttentionDropout = dropout };
        int[] sequences = [.. Enumerable.Range(0, 2 * 12).Select(i => i % 12 < 5 ? 0 : i % 12 < 9 ? 1 : 2)];
        AssertSame(config, 2, 12, new Packing(sequences, 2, 12));
    }

    [Theory]
    [InlineData(false)]
    [InlineData(true)]
    public void Adapters_train_the_same_to_the_bit(bool frozen)
    {
        using Decoder plain = new(Tiny, 4), again = new(Tiny, 4);
        LoraConfig lora = new() { Rank = 4, Dropout = 0.2, FreezeTokenEmbeddings = frozen };
        using Adapter one = Adapter.Create(plain, lora, 5), other = Adapter.Create(again, lora, 5);
        plain.Attach(one);
        again.Attach(other);
        again.ActivationCheckpointing = true;
        (Tensor tokens_BT, Tensor targets_BT) = Batch(3, 20);
        foreach (Decoder model in (Decoder[])[plain, again])
        {
            // B is zero at first, and A would get no gradient.
            using (no_grad())
            {
                using Generator generator = new(9);
                foreach ((_, Tensor tensor) in model.TrainedParameters()) tensor.add_(empty(tensor.shape).normal_(0, 0.1, generator), Scalars.One);
            }
            model.Loss(tokens_BT, targets_BT).backward();
            model.ThrowRecomputationFault();
        }
        AssertSameBits(plain.TrainedParameters(), again.TrainedParameters());
        plain.Detach(one);
        again.Detach(other);
    }

    [Fact]
    public void What_goes_wrong_in_the_backward_pass_is_thrown_after_it()
    {
        Tensor x = ones(2, 3).requires_grad_(true);
        int calls = 0;
        Exception? fault = null;
        Tensor y = RecomputedBlock.Apply(x, (input, _) => ++calls > 1 ? throw new InvalidOperationException("the second time") : input.mul(Scalars.Of(2)), null, null, e => fault = e);
        Assert.Equal(12, y.sum().item<float>());
        y.sum().backward();
        Assert.Equal("the second time", Assert.IsType<InvalidOperationException>(fault).Message);
    }

    [Fact]
    public void Steps_leave_no_tensors_behind()
    {
        using Decoder model = new(Tiny with { Positions = Positions.Rope, Dropout = 0.1 }, 1) { ActivationCheckpointing = true };
        (Tensor tokens_BT, Tensor targets_BT) = Batch(2, 16);
        List<long> live = [];
        for (int i = 0; i < 6; i++)
        {
            using (NewDisposeScope()) model.Loss(tokens_BT, targets_BT).backward();
            live.Add(DisposeScopeManager.Statistics.ThreadTotalLiveCount);
        }
        Assert.All(live.Skip(2), count => Assert.Equal(live[1], count));
    }

    private void AssertSame(ModelConfig config, int rows, int length, Packing? packing = null)
    {
        ulong seed = (ulong)_random.Next();
        using Decoder plain = new(config, seed), again = new(config, seed) { ActivationCheckpointing = true };
        (Tensor tokens_BT, Tensor targets_BT) = Batch(rows, length, config.VocabularySize);
        // Twice: gradients add up, and the generator must stand where it would without.
        for (int micro = 0; micro < 2; micro++)
        {
            Tensor one = plain.Loss(tokens_BT, targets_BT, packing), other = again.Loss(tokens_BT, targets_BT, packing);
            Assert.Equal(one.item<float>(), other.item<float>());
            one.backward();
            other.backward();
            again.ThrowRecomputationFault();
            Assert.Equal(plain.DropoutState, again.DropoutState);
        }
        AssertSameBits(plain.Parameters(), again.Parameters());
    }

    private (Tensor Tokens_BT, Tensor Targets_BT) Batch(int rows, int length, int vocabulary = 61)
    {
        long[] Ids() => [.. Enumerable.Range(0, rows * length).Select(_ => (long)_random.Next(vocabulary))];
        return (tensor(Ids(), [rows, length]), tensor(Ids(), [rows, length]));
    }

    private static void AssertSameBits(IReadOnlyList<(string Name, Tensor Parameter)> expected, IReadOnlyList<(string Name, Tensor Parameter)> actual)
    {
        Assert.NotEmpty(expected);
        foreach (((string name, Tensor one), (_, Tensor other)) in expected.Zip(actual))
        {
            Assert.True(one.grad is null == other.grad is null, name);
            if (one.grad is not null) Assert.True(one.grad.equal(other.grad!).all().item<bool>(), $"{name}: {(one.grad - other.grad!).abs().max().item<float>()}");
        }
    }
}
