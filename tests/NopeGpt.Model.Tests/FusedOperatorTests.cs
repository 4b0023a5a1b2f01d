using NopeGpt.Model.Fused;
using NopeGpt.Model.Kernels;
using NopeGpt.Model.Native;
using TorchSharp;
using static TorchSharp.torch;

namespace NopeGpt.Model.Tests;

public sealed class FusedOperatorTests : IDisposable
{
    private readonly DisposeScope _scope;
    private readonly Generator _generator;

    public FusedOperatorTests()
    {
        TorchRuntime.Load();
        _scope = NewDisposeScope();
        _generator = new(11);
    }

    public void Dispose() => _scope.Dispose();

    [Theory]
    [InlineData(1, 2, 6, 2, 8)]
    [InlineData(2, 63, 4, 4, 16)]
    [InlineData(3, 64, 3, 1, 8)]
    [InlineData(2, 65, 6, 2, 64)]
    [InlineData(1, 200, 2, 1, 24)]
    public void Attention_and_its_gradients_are_libtorchs(int rows, int tokens, int heads, int keyHeads, int width)
    {
        Tensor[] ours = [Draw(rows, tokens, heads, width), Draw(rows, tokens, keyHeads, width), Draw(rows, tokens, keyHeads, width)], theirs = [.. ours.Select(t => t.detach().clone().@double().requires_grad_())];
        Tensor gradient = randn([rows, tokens, heads, width], generator: _generator);
        foreach (Tensor tensor in ours) tensor.requires_grad_();
        Assert.True(AttentionPass.Fits(ours[0]));
        Tensor mixed = AttentionPass.Apply(ours[0], ours[1], ours[2]);
        Tensor right = Aten.Attention(theirs[0].transpose(1, 2), theirs[1].transpose(1, 2), theirs[2].transpose(1, 2), causal: true, groupedQuery: true).transpose(1, 2);
        AssertClose(right, mixed);
        mixed.backward([gradient]);
        right.backward([gradient.@double()]);
        foreach ((Tensor one, Tensor other) in ours.Zip(theirs)) AssertClose(other.grad!, one.grad!);
    }

    [Fact]
    public unsafe void The_exponential_is_right_to_two_units_in_the_last_place_and_what_is_not_a_number_stays_so()
    {
        Tensor x = linspace(-87, 88, 100_000), y = empty_like(x);
        float* from = (float*)Dispatcher.DataPointer(x), to = (float*)Dispatcher.DataPointer(y);
        for (int i = 0; i < 100_000; i += 8)
            System.Runtime.Intrinsics.Vector256.Store(VectorMath.Exp(System.Runtime.Intrinsics.Vector256.Load(from + i)), to + i);
        Tensor right = x.@double().exp();
        Assert.True((y.@double() - right).abs().div(right).max().item<double>() < 2.4e-7);
        Assert.True(float.IsNaN(VectorMath.Exp(System.Runtime.Intrinsics.Vector256.Create(float.NaN))[3]));
    }

    [Fact]
    public void Gradients_are_added_to_those_that_are_there_and_memory_is_used_again()
    {
        using Decoder model = new(new ModelConfig { VocabularySize = 64, EmbeddingDimensions = 32, NumQHeads = 4, NumKvHeads = 2, NumDecoderLayers = 2 }, 1);
        Tensor tokens = randint(0, 64, [2, 9], generator: _generator), targets = randint(0, 64, [2, 9], generator: _generator);
        model.Loss(tokens, targets).backward();
        Dictionary<string, Tensor> once = model.Parameters().ToDictionary(p => p.Name, p => p.Parameter.grad!.clone());
        model.Loss(tokens, targets).mul(2).backward();
        foreach ((string name, Tensor parameter) in model.Parameters()) Assert.True(parameter.grad!.allclose(once[name] * 3, rtol: 1e-5, atol: 1e-7), name);
        // A loss without a backward pass leaves nothing behind.
        model.Loss(tokens, targets).Dispose();
        foreach ((string name, Tensor parameter) in model.Parameters()) Assert.True(parameter.grad!.allclose(once[name] * 3, rtol: 1e-5, atol: 1e-7), name);
    }

    private Tensor Draw(params long[] shape) => randn(shape, generator: _generator);

    private static void AssertClose(Tensor right, Tensor ours) => Assert.True((ours.@double() - right).norm().item<double>() <= 2e-6 * right.norm().item<double>());
}
