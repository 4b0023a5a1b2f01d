using NopeGpt.Model.Native;
using TorchSharp;
using Xunit.Abstractions;
using static TorchSharp.torch;

namespace NopeGpt.Model.Tests;

/// <summary>Rows of several sequences against each sequence alone.</summary>
public sealed class PackingTests : IDisposable
{
    private const int Ignored = Decoder.IgnoredTarget, Padding = -1;

    private static readonly ModelConfig Tiny = new() { VocabularySize = 61, EmbeddingDimensions = 48, NumQHeads = 6, NumKvHeads = 2, NumDecoderLayers = 2 };

    private readonly DisposeScope _scope;
    private readonly int _seed = Random.Shared.Next();
    private readonly Random _random;

    public PackingTests(ITestOutputHelper output)
    {
        output.WriteLine($"seed {_seed}");
        _random = new(_seed);
        TorchRuntime.Load();
        _scope = NewDisposeScope();
    }

    public static TheoryData<string> Names => ArchitectureTests.Names;

    public void Dispose() => _scope.Dispose();

    [Theory]
    [MemberData(nameof(Names))]
    public void Packed_logits_are_those_of_each_sequence_alone(string option)
    {
        ModelConfig config = ArchitectureTests.Options[option];
        using Decoder model = new(config, 1);
        ArchitectureTests.Spread(model, 2);
        PlainNetwork plain = new(config, model.Parameters());
        for (int round = 0; round < 3; round++)
        {
            Rows rows = Rows.Random(_random, config.VocabularySize, longest: 20);
            Tensor packed_BTV = model.Forward(rows.Tokens_BT, rows.Packing);
            foreach (Piece piece in rows.Pieces)
            {
                Tensor logits_1TV = piece.In(packed_BTV), alone_1TV = model.Forward(piece.In(rows.Tokens_BT));
                Assert.Equal(0, Difference(logits_1TV, alone_1TV), 1e-5);
                Assert.Equal(0, Difference(logits_1TV, plain.Logits(piece.In(rows.Tokens_BT))), 1e-4);
            }
        }
    }

    [Theory]
    [MemberData(nameof(Names))]
    public void Loss_and_gradients_of_packed_rows_are_those_of_the_sequences_weighted_by_their_targets(string option)
    {
        ModelConfig config = ArchitectureTests.Options[option];
        using Decoder packed = new(config, 1), alone = new(config, 1);
        ArchitectureTests.Spread(packed, 2);
        ArchitectureTests.Spread(alone, 2);
        Rows rows = Rows.Random(_random, config.VocabularySize, longest: 20);
        Tensor loss = packed.Loss(rows.Tokens_BT, rows.Targets_BT, rows.Packing);
        Tensor[] pieces = [.. rows.Pieces.Select(piece => alone.Loss(piece.In(rows.Tokens_BT), piece.In(rows.Targets_BT)) * piece.Labels / rows.Labels)];
        Tensor mean = stack(pieces).sum();
        Assert.Equal(mean.item<float>(), loss.item<float>(), 1e-5 * Math.Max(1, mean.item<float>()));
        Tensor each_BT = packed.LossPerToken(rows.Tokens_BT, rows.Targets_BT, rows.Packing);
        Assert.Equal(mean.item<float>(), each_BT.sum().item<float>() / rows.Labels, 1e-4 * Math.Max(1, mean.item<float>()));
        Assert.Equal(rows.Labels, each_BT.count_nonzero().item<long>());
        loss.backward();
        mean.backward();
        AssertSameGradients(alone, packed);
    }

    [Theory]
    [InlineData(1, 1)]
    [InlineData(4, 4)]
    [InlineData(12, 3)]
    [InlineData(12, 1)]
    public void Heads_that_share_keys_stay_within_their_sequences_too(int queries, int keys)
    {
        ModelConfig config = Tiny with { NumQHeads = queries, NumKvHeads = keys, Positions = Positions.Rope };
        using Decoder model = new(config, 3);
        ArchitectureTests.Spread(model, 4);
        Rows rows = Rows.Random(_random, 61, longest: 70);
        Tensor packed_BTV = model.Forward(rows.Tokens_BT, rows.Packing);
        foreach (Piece piece in rows.Pieces) Assert.Equal(0, Difference(piece.In(packed_BTV), model.Forward(piece.In(rows.Tokens_BT))), 1e-5);
    }

    [Theory]
    [InlineData(Positions.None, 0)]
    [InlineData(Positions.Rope, 0)]
    [InlineData(Positions.Learned, 0)]
    [InlineData(Positions.None, 0.3)]
    [InlineData(Positions.Rope, 0.3)]
    public void Nothing_depends_on_what_stands_in_the_padding(Positions positions, double dropout)
    {
        ModelConfig config = Tiny with { Positions = positions, ContextLength = 32, Dropout = dropout, AttentionDropout = dropout, ResidualDropout = dropout };
        using Decoder one = new(config, 5), other = new(config, 5);
        Rows rows = Rows.Random(_random, 61, longest: 20, padding: 9);
        Tensor padding_BT = tensor(rows.Sequences, [rows.Count, rows.Length]).eq(Padding), others_BT = where(padding_BT, 60 - rows.Tokens_BT, rows.Tokens_BT);
        Assert.Equal(9 * rows.Count, rows.Tokens_BT.ne(others_BT).sum().item<long>());
        Tensor loss = one.Loss(rows.Tokens_BT, rows.Targets_BT, rows.Packing), same = other.Loss(others_BT, rows.Targets_BT, rows.Packing);
        Assert.Equal(loss.item<float>(), same.item<float>(), 1e-6);
        loss.backward();
        same.backward();
        AssertSameGradients(one, other);
        if (dropout > 0) return;
        // Nor on how much of it there is.
        Rows shorter = rows.WithoutPadding(8);
        Assert.Equal(loss.item<float>(), one.Loss(shorter.Tokens_BT, shorter.Targets_BT, shorter.Packing).item<float>(), 1e-5);
    }

    [Fact]
    public void With_dropout_too_no_sequence_depends_on_its_neighbours()
    {
        using Decoder model = new(Tiny with { Dropout = 0.2, AttentionDropout = 0.3, ResidualDropout = 0.1, Positions = Positions.Rope }, 6);
        ArchitectureTests.Spread(model, 6);
        Rows rows = Rows.Random(_random, 61, longest: 20);
        byte[] state = model.DropoutState;
        Tensor before_BTV = model.Forward(rows.Tokens_BT, rows.Packing);
        foreach (Piece piece in rows.Pieces)
        {
            Tensor changed_BT = rows.Tokens_BT.clone();
            piece.In(changed_BT).mul_(-1).add_(60);
            model.DropoutState = state;
            Tensor same_BTV = model.Forward(changed_BT, rows.Packing);
            Assert.True(Difference(piece.In(same_BTV), piece.In(before_BTV)) > 1e-2);
            foreach (Piece neighbour in rows.Pieces)
                if (neighbour != piece) Assert.Equal(0, Difference(neighbour.In(same_BTV), neighbour.In(before_BTV)), 1e-5);
        }
    }

    [Fact]
    public void Dropout_of_attention_draws_for_one_sequence_after_the_other_as_if_they_came_alone()
    {
        using Decoder model = new(Tiny with { AttentionDropout = 0.4, NumDecoderLayers = 1 }, 7);
        ArchitectureTests.Spread(model, 7);
        Rows rows = Rows.Random(_random, 61, longest: 20, padding: 0);
        byte[] state = model.DropoutState;
        Tensor packed_BTV = model.Forward(rows.Tokens_BT, rows.Packing);
        model.DropoutState = state;
        foreach (Piece piece in rows.Pieces) Assert.Equal(0, Difference(piece.In(packed_BTV), model.Forward(piece.In(rows.Tokens_BT))), 1e-5);
    }

    [Fact]
    public void In_bfloat16_packed_rows_are_what_the_sequences_are_alone()
    {
        using Decoder model = new(Tiny with { Positions = Positions.Rope }, 8);
        model.to(ScalarType.BFloat16);
        Rows rows = Rows.Random(_random, 61, longest: 40);
        Tensor packed_BTV = model.Forward(rows.Tokens_BT, rows.Packing);
        Assert.Equal(ScalarType.BFloat16, packed_BTV.dtype);
        foreach (Piece piece in rows.Pieces) Assert.Equal(0, Difference(piece.In(packed_BTV).@float(), model.Forward(piece.In(rows.Tokens_BT)).@float()), 0.02);
        model.LossPerToken(rows.Tokens_BT, rows.Targets_BT, rows.Packing).sum().backward();
        Assert.All(model.Parameters(), p => Assert.True(p.Parameter.grad!.isfinite().all().item<bool>(), p.Name));
    }

    [Fact]
    public void Rows_of_one_sequence_need_no_packing_even_with_padding_behind()
    {
        using Decoder model = new(Tiny with { Positions = Positions.Rope }, 9);
        Tensor tokens_BT = randint(0, 61, [2, 12], ScalarType.Int64), targets_BT = randint(0, 61, [2, 12], ScalarType.Int64);
        targets_BT[1, 7..] = Ignored;
        int[] sequences = [.. Enumerable.Repeat(0, 19), .. Enumerable.Repeat(Padding, 5)];
        Tensor packed = model.Loss(tokens_BT, targets_BT, new Packing(sequences, 2, 12)), plain = model.Loss(tokens_BT, targets_BT);
        Assert.Equal(plain.item<float>(), packed.item<float>(), 1e-6);
    }

    [Fact]
    public void Learned_positions_limit_the_sequences_and_not_the_row()
    {
        using Decoder model = new(Tiny with { Positions = Positions.Learned, ContextLength = 8 }, 1);
        Tensor tokens_BT = randint(0, 61, [1, 30], ScalarType.Int64);
        int[] Sequences(int first) => [.. Enumerable.Range(0, 30).Select(i => i < first ? 0 : i < first + 8 ? 1 : Padding)];
        Assert.Equal([1, 30, 61], model.Forward(tokens_BT, new Packing(Sequences(8), 1, 30)).shape);
        ArgumentException error = Assert.Throws<ArgumentException>(() => model.Forward(tokens_BT, new Packing(Sequences(9), 1, 30)));
        Assert.Contains("9 tokens do not fit", error.Message, StringComparison.Ordinal);
    }

    [Theory]
    [InlineData(new[] { 0, 1, 0, 1 }, "sequence 0 of row 0 goes on at token 2")]
    [InlineData(new[] { 0, Padding, 0, 1 }, "sequence 0 of row 0 goes on at token 2")]
    [InlineData(new[] { 0, 0, 0 }, "there are 3")]
    [InlineData(new int[0], "there are 0")]
    public void Sequences_in_pieces_and_of_another_size_are_refused(int[] sequences, string problem) =>
        Assert.Contains(problem, Assert.Throws<ArgumentException>(() => new Packing(sequences, 1, 4)).Message, StringComparison.Ordinal);

    [Fact]
    public void A_packing_of_other_rows_is_refused_with_both_sizes()
    {
        using Decoder model = new(Tiny, 1);
        Packing packing = new([0, 0, 1, 1], 1, 4);
        string message = Assert.Throws<ArgumentException>(() => model.Forward(zeros(2, 2, ScalarType.Int64), packing)).Message;
        Assert.Contains("1 rows of 4 tokens", message, StringComparison.Ordinal);
        Assert.Contains("[2, 2]", message, StringComparison.Ordinal);
    }

    [Fact]
    public void Live_tensors_stay_level_over_packed_steps()
    {
        using Decoder model = new(Tiny with { Positions = Positions.Rope, AttentionDropout = 0.1 }, 1);
        Rows rows = Rows.Random(_random, 61, longest: 10);
        long? level = null;
        for (int i = 0; i < 12; i++)
        {
            using (NewDisposeScope())
            {
                model.train(i % 2 == 0);
                model.Loss(rows.Tokens_BT, rows.Targets_BT, rows.Packing).backward();
                foreach ((_, Tensor parameter) in model.Parameters()) parameter.grad = null;
                using (no_grad()) model.LossPerToken(rows.Tokens_BT, rows.Targets_BT, rows.Packing);
            }
            if (i >= 2) Assert.Equal(level, DisposeScopeManager.Statistics.ThreadTotalLiveCount);
            level = DisposeScopeManager.Statistics.ThreadTotalLiveCount;
        }
    }

    /// <summary>The largest difference, in units of the largest value where that is more than 1.</summary>
    private static double Difference(Tensor one, Tensor other) =>
        (one.@double() - other.@double()).abs().max().item<double>() / Math.Max(1, other.@double().abs().max().item<double>());

    private static void AssertSameGradients(Decoder expected, Decoder actual)
    {
        double whole = expected.Parameters().Sum(p => p.Parameter.grad!.norm().item<float>());
        foreach (((string name, Tensor truth), (_, Tensor parameter)) in expected.Parameters().Zip(actual.Parameters()))
        {
            double off = (truth.grad! - parameter.grad!).norm().item<float>(), size = truth.grad!.norm().item<float>();
            Assert.True(off <= (1e-4 * size) + (1e-6 * whole), $"the gradient of {name} differs by {off:E2} of {size:E2}");
        }
    }

    /// <summary>Where a sequence stands.</summary>
    private sealed record Piece(int Row, int Start, int Length, int Labels)
    {
        public Tensor In(Tensor of_BT) => of_BT.narrow(0, Row, 1).narrow(1, Start, Length);
    }

    private sealed record Rows(int Count, int Length, int[] Sequences, Tensor Tokens_BT, Tensor Targets_BT, IReadOnlyList<Piece> Pieces)
    {
        public Packing Packing => new(Sequences, Count, Length);

        public int Labels => Pieces.Sum(piece => piece.Labels);

        /// <summary>Rows of two to five sequences of up to so many tokens, some of them of one, the last token of a sequence always a target.</summary>
        /// <param name="padding">Tokens of padding behind the longest row.</param>
        public static Rows Random(Random random, int vocabulary, int longest, int? padding = null)
        {
            int count = random.Next(1, 4);
            int[][] lengths = [.. Enumerable.Range(0, count).Select(_ => Enumerable.Range(0, random.Next(2, 6)).Select(_ => random.Next(4) == 0 ? 1 : random.Next(1, longest + 1)).ToArray())];
            // With a given padding all rows are equally long.
            if (padding is not null) lengths = [.. lengths.Select(_ => lengths[0])];
            int length = lengths.Max(row => row.Sum()) + (padding ?? random.Next(4));
            int[] sequences = [.. Enumerable.Repeat(Padding, count * length)];
            long[] tokens = [.. sequences.Select(_ => (long)random.Next(vocabulary / 2))], targets = [.. sequences.Select(_ => (long)Ignored)];
            List<Piece> pieces = [];
            for (int row = 0; row < count; row++)
            {
                int at = 0;
                for (int i = 0; i < lengths[row].Length; at += lengths[row][i++])
                {
                    int labels = 0;
                    for (int k = 0; k < lengths[row][i]; k++)
                    {
                        int index = (row * length) + at + k;
                        sequences[index] = i;
                        if (random.Next(3) == 0 && k + 1 < lengths[row][i]) continue;
                        targets[index] = random.Next(vocabulary);
                        labels++;
                    }
                    pieces.Add(new(row, at, lengths[row][i], labels));
                }
            }
            return new(count, length, sequences, tensor(tokens, [count, length]), tensor(targets, [count, length]), pieces);
        }

        /// <summary>With so many tokens less at the right.</summary>
        public Rows WithoutPadding(int less) => this with
        {
            Length = Length - less,
            Sequences = [.. Sequences.Chunk(Length).SelectMany(row => row[..^less])],
            Tokens_BT = Tokens_BT.narrow(1, 0, Length - less),
            Targets_BT = Targets_BT.narrow(1, 0, Length - less),
        };
    }
}
