using System.Diagnostics;
using NopeGpt.Data.Chat;
using NopeGpt.Tests;
using Xunit.Abstractions;
using static NopeGpt.Data.Tests.Chat.ChatTokenizers;

namespace NopeGpt.Data.Tests.Chat;

public sealed class ChatBatchSourceTests : IDisposable
{
    private const int Ignored = ChatFormat.IgnoredLabel;
    private readonly TemporaryFolder _folder = new();
    private readonly ITestOutputHelper _output;
    private readonly ChatFile _file;

    public ChatBatchSourceTests(ITestOutputHelper output)
    {
        _output = output;
        int seed = Environment.TickCount;
        output.WriteLine($"seed {seed}");
        Random random = new(seed);
        ChatFileTests.Write(_folder["chat.bin"], Enumerable.Range(0, 150).Select(_ => Small.Encode(ChatTokenizers.Random(random, 6, 12).Messages)));
        _file = ChatFile.Open(_folder["chat.bin"]);
    }

    public void Dispose()
    {
        _file.Dispose();
        _folder.Dispose();
    }

    [Theory]
    [InlineData(false, 1, 1, ChatLabels.Reply)]
    [InlineData(false, 4, 3, ChatLabels.Everything)]
    [InlineData(true, 1, 1, ChatLabels.ReplyWithoutHeader)]
    [InlineData(true, 3, 2, ChatLabels.Everything)]
    public void An_epoch_has_every_kept_conversation_whole_and_once_over_all_ranks(bool packing, int batchSize, int ranks, ChatLabels labels)
    {
        ChatBatchOptions options = new() { BatchSize = batchSize, Packing = packing, Seed = 5, HoldoutSamples = 20, Ranks = ranks, Sample = new() { MaxTokens = 120, Labels = labels } };
        ChatBatchSource[] sources = [.. Enumerable.Range(0, ranks).Select(rank => Source(options with { Rank = rank }))];
        long[] kept = [.. Range(_file.Count).Where(i => _file.Cut(i, options.Sample).Dropped is null)];
        Assert.Equal((kept.Length, 150L), (sources[0].Statistics.Kept, sources[0].Statistics.Read));
        List<long> heldOut = [.. sources[0].Holdout().SelectMany(batch => Checked(batch, options))];
        Assert.Equal(20, heldOut.Distinct().Count());
        foreach (ChatBatchSource other in sources) Assert.Equal(heldOut, other.Holdout().SelectMany(batch => batch.Documents!).SelectMany(row => row));
        for (int epoch = 0; epoch < 2; epoch++)
        {
            // The rows of all ranks, one after the other, pass through the epochs without a gap.
            List<IReadOnlyList<long>> rows = [];
            for (long index = 0; rows.Count < (epoch + 1) * sources[0].TrainingRows; index++)
                foreach (ChatBatchSource source in sources)
                {
                    Batch batch = source.Training(index);
                    Checked(batch, options);
                    rows.AddRange(batch.Documents!);
                }
            long[] seen = [.. rows.Skip(epoch * sources[0].TrainingRows).Take(sources[0].TrainingRows).SelectMany(row => row)];
            Assert.Equal(kept.Except(heldOut), seen.Order());
        }
        Assert.Equal((sources[0].TrainingRows + (batchSize * ranks) - 1) / (batchSize * ranks), sources[0].BatchesPerEpoch);
        if (packing) Assert.InRange(sources[0].TrainingRows, 1, sources[0].TrainingSamples - 1);
        else Assert.Equal(sources[0].TrainingSamples, sources[0].TrainingRows);
    }

    [Fact]
    public void A_batch_is_a_function_of_seed_and_index()
    {
        foreach (bool packing in (bool[])[false, true])
        {
            ChatBatchOptions options = new() { BatchSize = 3, Packing = packing, Seed = 9, HoldoutSamples = 10, Sample = new() { MaxTokens = 150 } };
            ChatBatchSource one = Source(options), other = Source(options), different = Source(options with { Seed = 10 });
            Batch[] parallel = new Batch[60];
            Parallel.For(0, parallel.Length, index => parallel[index] = one.Training(index));
            foreach (int index in Enumerable.Range(0, parallel.Length).Reverse())
            {
                Batch again = other.Training(index);
                Assert.Equal(again.Tokens, parallel[index].Tokens);
                Assert.Equal(again.Windows, parallel[index].Windows);
            }
            Assert.NotEqual(one.Training(0).Tokens, different.Training(0).Tokens);
            Assert.NotEqual(one.Holdout().First().Tokens, different.Holdout().First().Tokens);
            Assert.NotEqual(one.Training(0).Documents![0], one.Training(one.BatchesPerEpoch).Documents![0]);
            // The batch size changes nothing about what is held out.
            Assert.Equal(one.Holdout().SelectMany(batch => batch.Windows), Source(options with { BatchSize = 7 }).Holdout().SelectMany(batch => batch.Windows));
        }
    }

    [Fact]
    public void Statistics_count_what_was_dropped_and_cut()
    {
        ChatSampleOptions sample = new() { MaxTokens = 60, FilterLongSamples = false };
        ChatStatistics truncated = Source(new() { Sample = sample }).Statistics, filtered = Source(new() { Sample = sample with { FilterLongSamples = true } }).Statistics;
        ChatCut[] cuts = [.. Range(_file.Count).Select(i => _file.Cut(i, sample))];
        ChatCut[] kept = [.. cuts.Where(cut => cut.Dropped is null)];
        Assert.Equal((150, kept.Length, kept.Sum(cut => (long)cut.Length), kept.Sum(cut => (long)cut.Labelled), kept.Sum(cut => (long)cut.TokensCut), kept.Count(cut => cut.TokensCut > 0)),
            (truncated.Read, truncated.Kept, truncated.Tokens, truncated.LabelledTokens, truncated.TokensCut, truncated.Truncated));
        Assert.Equal(cuts.Count(cut => cut.Dropped == DropReason.NoReply), truncated.Dropped.GetValueOrDefault(DropReason.NoReply));
        Assert.Equal(Range(_file.Count).Count(i => _file[i].Tokens.Length >= 60), filtered.Dropped[DropReason.TooLong]);
        Assert.Equal(0, filtered.Truncated);
        foreach (ChatStatistics statistics in (ChatStatistics[])[truncated, filtered])
        {
            Assert.Equal(statistics.Read, statistics.Kept + statistics.Dropped.Values.Sum());
            Assert.Equal([.. Enumerable.Range(0, statistics.Lengths.Count).Select(i => (long)Range(_file.Count).Count(c => _file[c].Tokens.Length >> i == 1))], statistics.Lengths);
        }
    }

    [Fact]
    public void Too_few_conversations_and_wrong_options_are_refused_with_what_would_do()
    {
        string message = Assert.Throws<ArgumentException>(() => Source(new() { HoldoutSamples = 150 })).Message;
        Assert.Contains("150 held out and at least 1 to train on need 151", message, StringComparison.Ordinal);
        Assert.Contains($"Of the 150 conversations in {_file.Path}", message, StringComparison.Ordinal);
        foreach ((ChatBatchOptions options, string problem) in new (ChatBatchOptions, string)[]
        {
            (new() { BatchSize = 0 }, "The batch size is 0; it must be from 1"),
            (new() { Sample = new() { MaxTokens = 0 } }, "The most tokens of a sample is 0"),
            (new() { HoldoutSamples = -1 }, "The holdout samples is -1"),
            (new() { Ranks = 2, Rank = 2 }, "The rank is 2; it must be from 0 to 1"),
            (new() { Ranks = 0 }, "The number of ranks is 0"),
        })
            Assert.Contains(problem, Assert.Throws<ArgumentException>(() => Source(options)).Message, StringComparison.Ordinal);
        Assert.Throws<ArgumentException>(() => new ChatBatchSource(_file, _file.Tokens.VocabularySize, new()));
        Assert.Throws<ArgumentOutOfRangeException>(() => Source(new()).Training(-1));
    }

    [Fact]
    public void Batches_prepared_ahead_are_the_same_and_errors_come_in_their_place()
    {
        ChatBatchSource source = Source(new() { BatchSize = 2, Packing = true, Sample = new() { MaxTokens = 150 } });
        using (BatchAhead ahead = new(source.Training, 7, depth: 3))
        {
            for (long index = 7; index < 40; index++)
            {
                Assert.Equal(index, ahead.Position);
                Assert.Equal(source.Training(index).Tokens, ahead.Next().Tokens);
            }
        }
        using BatchAhead failing = new(index => index < 5 ? source.Training(index) : throw new IOException("gone"), 3);
        Assert.Equal(source.Training(3).Tokens, failing.Next().Tokens);
        Assert.Equal(source.Training(4).Tokens, failing.Next().Tokens);
        for (int i = 0; i < 2; i++) Assert.Equal("gone", Assert.Throws<IOException>(() => failing.Next()).Message);
        Assert.Equal(5, failing.Position);
        using ManualResetEventSlim never = new();
        BatchAhead slow = new(_ =>
        {
            never.Wait();
            return source.Training(0);
        }, 0);
        using CancellationTokenSource cancel = new(10);
        Assert.ThrowsAny<OperationCanceledException>(() => slow.Next(cancel.Token));
        never.Set();
        slow.Dispose();
        Assert.Throws<ObjectDisposedException>(() => slow.Next());
    }

    [Fact]
    public void A_preview_shows_the_tokens_of_a_real_batch_and_which_are_learned()
    {
        Conversation[] conversations = [new([User("Hello"), Assistant("Good day 😀")]), new([User("Who?"), Assistant("日本")])];
        ChatFileTests.Write(_folder["two.bin"], conversations.Select(conversation => Small.Encode(conversation.Messages)));
        using ChatFile file = ChatFile.Open(_folder["two.bin"]);
        Batch batch = new ChatBatchSource(file, Small.PaddingId, new() { Packing = true, Sample = new() { MaxTokens = 200, Labels = ChatLabels.ReplyWithoutHeader } }).Training(0);
        IReadOnlyList<TokenPreview> preview = TokenPreview.Row(batch, 0, Small.Tokenizer);
        for (int sequence = 0; sequence < 2; sequence++)
        {
            long number = batch.Documents![0][sequence];
            TokenPreview[] tokens = [.. preview.Where(token => token.Sequence == sequence)];
            Assert.Equal(file[number].Tokens, tokens.Select(token => token.Id));
            Assert.Equal(Small.Tokenizer.Decode(file[number].Tokens), string.Concat(tokens.Select(token => token.Text)));
            Assert.Equal($"{conversations[number].Messages[1].Content}\n<|im_end|>\n", string.Concat(tokens.Where(token => token.Label).Select(token => token.Text)));
            Assert.DoesNotContain(tokens, token => token.Text.Contains('\ufffd'));
        }
        Assert.Equal(preview.Count, preview.Count(token => token.Sequence >= 0));
        Assert.Contains(TokenPreview.Row(batch, 0, Small.Tokenizer, padding: true), token => token is { Sequence: Batch.Padding, Label: false, Text: "<|endoftext|>" });
    }

    [Theory]
    [InlineData(1, 1)]
    [InlineData(64, 64)]
    [InlineData(100, 37)]
    [InlineData(4096, 600)]
    public void Packing_loses_nothing_overfills_nothing_and_is_near_the_fewest_rows(int capacity, int longest)
    {
        int seed = Environment.TickCount;
        _output.WriteLine($"seed {seed}");
        Random random = new(seed);
        int[] lengths = [.. Enumerable.Range(0, 2000).Select(_ => random.Next(1, longest + 1))];
        RowPacking rows = new(lengths, capacity);
        List<int> items = [];
        for (int row = 0; row < rows.Rows; row++)
        {
            int[] inRow = [.. rows[row]];
            Assert.InRange(inRow.Sum(item => lengths[item]), 1, capacity);
            items.AddRange(inRow);
        }
        Assert.Equal(Enumerable.Range(0, lengths.Length), items.Order());
        int fewest = (lengths.Sum() + capacity - 1) / capacity;
        Assert.InRange(rows.Rows, fewest, (fewest * 11 / 9) + 1 + (longest > capacity / 2 ? lengths.Count(length => 2 * length > capacity) : 0));
        Assert.Equal(0, new RowPacking([], capacity).Rows);
    }

    [NeedsTheory(Needs.SharedData)]
    [InlineData("identity-conversations.jsonl", 1024)]
    [InlineData("identity-conversations.jsonl", 2048)]
    [InlineData("alpaca-1k.json", 1024)]
    public void Packed_rows_of_real_conversations_are_within_two_percent_of_the_fewest(string name, int maxTokens)
    {
        Stopwatch watch = Stopwatch.StartNew();
        new ChatPreparation(Reference, new ConversationReader()).Run(_folder["real.bin"], [new(name, _ => Corpus.Read(name))]);
        _output.WriteLine($"prepared in {watch.Elapsed.TotalMilliseconds:f0} ms");
        using ChatFile file = ChatFile.Open(_folder["real.bin"]);
        ChatBatchOptions options = new() { BatchSize = 16, Packing = true, Sample = new() { MaxTokens = maxTokens } };
        ChatBatchSource source = new(file, Reference.PaddingId, options);
        int[] lengths = [.. Range(file.Count).Select(i => file.Cut(i, options.Sample)).Where(cut => cut.Dropped is null).Select(cut => cut.Length)];
        // No two samples of more than half a row share one.
        int fewest = Math.Max((lengths.Sum() + maxTokens - 1) / maxTokens, lengths.Count(length => 2 * length > maxTokens));
        _output.WriteLine($"{source.TrainingSamples} samples in {source.TrainingRows} rows of {fewest} at least, {source.FillRate:p2} full; {string.Join(", ", source.Statistics.Dropped)}");
        Assert.InRange(source.TrainingRows, fewest, (int)(fewest * 1.02));
        Assert.Equal(lengths.Sum() / (double)(source.TrainingRows * maxTokens), source.FillRate!.Value, 9);
    }

    /// <summary>Compares every row with the samples of its conversations, and returns their numbers.</summary>
    private List<long> Checked(Batch batch, ChatBatchOptions options)
    {
        Assert.Equal((batch.Rows * batch.Length, batch.Tokens.Length, batch.Targets.Length, batch.Sequences!.Length), (batch.Tokens.Length, batch.Targets.Length, batch.Sequences.Length, batch.Positions!.Length));
        Assert.Equal((options.Packing, batch.Rows, batch.Rows), (batch.Packed, batch.Documents!.Count, batch.Windows.Length));
        int longest = 0;
        for (int row = 0; row < batch.Rows; row++)
        {
            int at = row * batch.Length;
            foreach ((long number, int sequence) in batch.Documents[row].Select((number, sequence) => (number, sequence)))
            {
                (int[] tokens, int[] labels) = _file[number].Sample(options.Sample);
                for (int i = 0; i < tokens.Length; i++, at++) Assert.Equal((tokens[i], labels[i], sequence, i), ((int)batch.Tokens[at], (int)batch.Targets[at], batch.Sequences[at], batch.Positions[at]));
            }
            longest = Math.Max(longest, at - (row * batch.Length));
            for (int i = 0; at < (row + 1) * batch.Length; at++, i++) Assert.Equal((Small.PaddingId, Ignored, Batch.Padding, i), ((int)batch.Tokens[at], (int)batch.Targets[at], batch.Sequences[at], batch.Positions[at]));
        }
        Assert.Equal(options.Packing ? options.Sample.MaxTokens : longest, batch.Length);
        return [.. batch.Documents.SelectMany(row => row)];
    }

    private ChatBatchSource Source(ChatBatchOptions options) => new(_file, Small.PaddingId, options);

    private static IEnumerable<long> Range(long count)
    {
        for (long i = 0; i < count; i++) yield return i;
    }
}
