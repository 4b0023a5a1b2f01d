using NopeGpt.Data;
using NopeGpt.Data.Chat;
using NopeGpt.Data.Documents;
using NopeGpt.Data.Tokenization;
using NopeGpt.Jobs.Training;
using NopeGpt.Model;
using NopeGpt.Model.Native;
using NopeGpt.Tests;
using TorchSharp;
using Xunit.Abstractions;
using static TorchSharp.torch;

namespace NopeGpt.Jobs.Tests.Training;

/// <summary>What the model is told of a batch.</summary>
public sealed class EvaluatorTests : IDisposable
{
    private static readonly ChatFormat Format = ChatFormat.For(BytePairTrainer.Train(StoryGenerator.Stories(1).Take(40), 400, [Tokenizer.EndOfText]).WithChatMarkers());

    private readonly TemporaryFolder _folder = new();
    private readonly DisposeScope _scope;
    private readonly Random _random;

    public EvaluatorTests(ITestOutputHelper output)
    {
        int seed = Random.Shared.Next();
        output.WriteLine($"seed {seed}");
        _random = new(seed);
        TorchRuntime.Load();
        _scope = NewDisposeScope();
    }

    public void Dispose()
    {
        _scope.Dispose();
        _folder.Dispose();
    }

    [Theory]
    [InlineData(Positions.None)]
    [InlineData(Positions.Rope)]
    [InlineData(Positions.Learned)]
    public void Packed_conversations_cost_what_the_same_conversations_cost_in_rows_of_their_own(Positions positions)
    {
        using ChatFile file = Conversations(40);
        ModelConfig config = new() { VocabularySize = Format.Tokenizer.VocabularySize, EmbeddingDimensions = 32, NumQHeads = 4, NumKvHeads = 2, NumDecoderLayers = 2, Positions = positions, ContextLength = 96 };
        using Decoder model = new(config, 3);
        using IDisposable quiet = no_grad();
        // Far from where training starts, so that it matters what a token sees.
        foreach ((_, Tensor parameter) in model.Parameters()) if (parameter.dim() == 2) parameter.mul_(Scalars.Of(6));
        (double packedSum, long packedCount, int packedRows) = Epoch(packing: true);
        (double sum, long count, int rows) = Epoch(packing: false);
        Assert.Equal((40, count), (rows, packedCount));
        Assert.InRange(packedRows, 1, 39);
        Assert.Equal(sum / count, packedSum / packedCount, 1e-4);

        (double Sum, long Count, int Rows) Epoch(bool packing)
        {
            ChatBatchSource source = new(file, Format.PaddingId, new() { BatchSize = 1, Packing = packing, Sample = new() { MaxTokens = 96 } });
            (double total, long labels) = (0, 0);
            for (long index = 0; index < source.BatchesPerEpoch; index++)
            {
                Batch batch = source.Training(index);
                (Tensor tokens_BT, Tensor targets_BT, Packing? told) = Evaluator.Tensors(batch, CPU);
                Assert.Equal(packing, told is not null);
                int counted = batch.Targets.Count(target => target != BatchSource.IgnoredTarget);
                total += model.Loss(tokens_BT, targets_BT, told).item<float>() * counted;
                labels += counted;
            }
            return (total, labels, source.TrainingRows);
        }
    }

    [Fact]
    public void Windows_and_padded_documents_need_no_packing()
    {
        using (TokenFileWriter writer = new(_folder["tokens.bin"], 50, "hash"))
        {
            for (int i = 0; i < 30; i++) writer.Append([.. Enumerable.Range(0, _random.Next(2, 30)).Select(_ => _random.Next(50))], 1);
            writer.Complete();
        }
        using TokenFile file = TokenFile.Open(_folder["tokens.bin"]);
        foreach (bool packed in (bool[])[true, false])
        {
            Batch batch = new BatchSource(file, new BatchOptions { BatchSize = 4, TokensPerSample = 12, Packed = packed }).Training(0);
            Assert.Null(Evaluator.Tensors(batch, CPU).Packing);
            Assert.Equal([4, 12], Evaluator.Tensors(batch, CPU).Tokens_BT.shape);
        }
    }

    private ChatFile Conversations(int count)
    {
        string[] words = ["the", "sun", "a", "fox", "sleeps", "and", "runs"];
        string Text() => string.Join(' ', Enumerable.Range(0, _random.Next(1, 12)).Select(_ => words[_random.Next(words.Length)]));
        using (ChatFileWriter writer = new(_folder["chat.bin"], Format.Tokenizer.VocabularySize, Format.Tokenizer.Hash))
        {
            for (int i = 0; i < count; i++) writer.Append(Format.Encode([new(ChatRole.User, Text()), new(ChatRole.Assistant, Text())]), 1);
            writer.Complete();
        }
        return ChatFile.Open(_folder["chat.bin"]);
    }
}
