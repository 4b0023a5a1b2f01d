using NopeGpt.Model.Kernels;
using NopeGpt.Model.Native;
using TorchSharp;
using static TorchSharp.torch;

namespace NopeGpt.Model.Tests;

// The number of threads is the process's.
[Collection(nameof(Alone))]
public sealed class KernelTests
{
    public KernelTests() => TorchRuntime.Load();

    [Theory]
    [InlineData(1, 8, 1)]
    [InlineData(1, 384, 1537)]
    [InlineData(2, 1536, 384)]
    [InlineData(3, 24, 33)]
    [InlineData(7, 64, 512)]
    [InlineData(32, 200, 301)]
    [InlineData(33, 64, 48)]
    [InlineData(5, 12, 10)]
    public void A_product_of_few_tokens_is_the_product(int tokens, int inputs, int outputs)
    {
        using DisposeScope scope = NewDisposeScope();
        using IDisposable quiet = no_grad();
        using Generator generator = new(7);
        Tensor x = randn([tokens, 1, inputs], generator: generator), weight = randn([outputs, inputs], generator: generator), bias = randn([outputs], generator: generator);
        Tensor right = x.@double().matmul(weight.@double().T);
        AssertClose(right, ThinProduct.Linear(x, weight), 1e-6 * inputs);
        AssertClose(right + bias.@double(), ThinProduct.Linear(x, weight, bias), 1e-6 * inputs);
        // Inputs and weights that do not lie densely.
        Tensor wide = randn([tokens, 1, inputs + 8], generator: generator).narrow(2, 8, inputs).copy_(x);
        AssertClose(right, ThinProduct.Linear(wide, weight.T.contiguous().T), 1e-6 * inputs);
    }

    [Theory]
    [InlineData(1)]
    [InlineData(2)]
    [InlineData(5)]
    public void Neither_other_tokens_nor_threads_change_a_bit_of_a_product(int threads)
    {
        int before = get_num_threads();
        try
        {
            set_num_threads(threads);
            using DisposeScope scope = NewDisposeScope();
            using IDisposable quiet = no_grad();
            using Generator generator = new(8);
            Tensor x = randn([ThinProduct.MostTokens, 384], generator: generator), weight = randn([1001, 384], generator: generator);
            foreach (int count in (int[])[2, 3, 4, 9, ThinProduct.MostTokens])
            {
                Tensor together = ThinProduct.Linear(x.narrow(0, 0, count), weight);
                for (int t = 0; t < count; t++) Assert.True(together[t].Equals(ThinProduct.Linear(x[t].unsqueeze(0), weight)[0]), $"token {t} of {count}");
            }
        }
        finally { set_num_threads(before); }
    }

    [Fact]
    public void A_product_that_needs_a_gradient_has_one()
    {
        using DisposeScope scope = NewDisposeScope();
        Tensor x = ones(2, 16), weight = ones(3, 16).requires_grad_();
        ThinProduct.Linear(x, weight).sum().backward();
        Assert.Equal(2f, weight.grad![0, 0].item<float>());
    }

    [Theory]
    [InlineData(1, 2, 3, 1, 64, false)]
    [InlineData(1, 2, 3, 2047, 64, false)]
    [InlineData(3, 1, 1, 130, 8, true)]
    [InlineData(5, 6, 2, 33, 32, true)]
    [InlineData(2, 2, 2, 7, 12, true)]
    public void Attention_of_one_query_is_attention(int rows, int heads, int group, int reach, int width, bool masked)
    {
        using DisposeScope scope = NewDisposeScope();
        using IDisposable quiet = no_grad();
        using Generator generator = new(9);
        // As in a cache: more columns than are in reach, and more rows.
        Tensor keys = randn([rows + 1, heads, reach + 9, width], generator: generator).narrow(0, 0, rows).narrow(2, 4, reach);
        Tensor values = randn([rows + 1, heads, reach + 9, width], generator: generator).narrow(0, 0, rows).narrow(2, 4, reach);
        Tensor query = randn([rows, heads, group, width], generator: generator).mul_(3);
        Tensor? mask = null;
        if (masked)
        {
            Tensor first = arange(rows).mul(reach / 3).view(-1, 1, 1, 1).clamp(max: reach - 1);
            mask = zeros(rows, 1, 1, reach).masked_fill_(arange(reach).lt(first), float.NegativeInfinity);
        }
        Tensor scores = query.@double().matmul(keys.@double().transpose(2, 3)) / Math.Sqrt(width);
        Tensor right = (mask is null ? scores : scores + mask.@double()).softmax(-1).matmul(values.@double());
        AssertClose(right, SingleQueryAttention.Attend(query, keys, values, mask), 1e-5);
        if (rows > 1) AssertClose(right.narrow(0, 0, 1), SingleQueryAttention.Attend(query[..1], keys[..1], values[..1], mask?[..1]), 1e-5);
    }

    [Fact]
    public void One_mask_serves_all_rows()
    {
        using DisposeScope scope = NewDisposeScope();
        using IDisposable quiet = no_grad();
        using Generator generator = new(10);
        Tensor keys = randn([3, 2, 20, 16], generator: generator), values = randn([3, 2, 20, 16], generator: generator), query = randn([3, 2, 4, 16], generator: generator);
        Tensor mask = zeros(1, 1, 1, 20);
        mask[.., .., .., ..5] = float.NegativeInfinity;
        AssertClose(SingleQueryAttention.Attend(query, keys[.., .., 5..], values[.., .., 5..], null).@double(), SingleQueryAttention.Attend(query, keys, values, mask), 1e-5);
    }

    [Fact]
    public void A_score_far_above_the_others_takes_all()
    {
        using DisposeScope scope = NewDisposeScope();
        using IDisposable quiet = no_grad();
        Tensor keys = zeros(1, 1, 19, 8), values = arange(19, dtype: ScalarType.Float32).view(1, 1, 19, 1).expand(1, 1, 19, 8).contiguous();
        keys[0, 0, 11] = ones(8) * 1e4f;
        Assert.Equal(11f, SingleQueryAttention.Attend(ones(1, 1, 1, 8) * 1e4f, keys, values, null)[0, 0, 0, 0].item<float>());
    }

    [Fact]
    public void The_crew_does_every_part_once_for_callers_at_the_same_time()
    {
        int before = get_num_threads();
        try
        {
            set_num_threads(4);
            Parallel.For(0, 4, _ =>
            {
                for (int round = 0; round < 200; round++)
                {
                    int[] done = new int[1 + (round % 23)];
                    Crew.Run(done.Length, part => Interlocked.Increment(ref done[part]));
                    Assert.All(done, times => Assert.Equal(1, times));
                    // Sometimes long enough for the helpers to fall asleep.
                    if (round % 67 == 0) Thread.Sleep(2);
                }
            });
        }
        finally { set_num_threads(before); }
    }

    private static void AssertClose(Tensor right, Tensor found, double most)
    {
        Assert.Equal(right.shape, found.shape);
        double difference = (right - found.@double()).abs().max().item<double>();
        Assert.True(difference <= most, $"the difference is {difference}, more than {most}");
    }
}
