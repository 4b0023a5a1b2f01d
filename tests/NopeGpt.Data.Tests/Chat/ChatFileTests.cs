using System.Text.Json;
using NopeGpt.Data.Chat;
using NopeGpt.Data.Documents;
using NopeGpt.Tests;
using Xunit.Abstractions;
using static NopeGpt.Data.Tests.Chat.ChatTokenizers;

namespace NopeGpt.Data.Tests.Chat;

public sealed class ChatFileTests(ITestOutputHelper output) : IDisposable
{
    private readonly TemporaryFolder _folder = TemporaryFolder.InMemory();

    public void Dispose() => _folder.Dispose();

    [Fact]
    public void What_was_written_is_read_and_cut_without_reading_ids()
    {
        EncodedConversation[] conversations = Conversations(60);
        Write(_folder["chat.bin"], conversations);
        Assert.Equal(["chat.bin", "chat.messages"], Directory.GetFiles(_folder.Path).Select(Path.GetFileName).Order());
        using ChatFile file = ChatFile.Open(_folder["chat.bin"]);
        file.Verify();
        Assert.Equal((60, conversations.Sum(c => (long)c.Messages.Length), Small.Tokenizer.Hash, 180), (file.Count, file.MessageCount, file.Tokens.TokenizerHash, file.Tokens.TextBytes));
        ChatSampleOptions options = new() { MaxTokens = 20, Truncation = ChatTruncation.Tokens };
        for (int i = 0; i < conversations.Length; i++)
        {
            Assert.Equal(conversations[i].Tokens, file[i].Tokens);
            Assert.Equal(conversations[i].Messages, file[i].Messages);
            Assert.Equal(conversations[i].Cut(options), file.Cut(i, options));
        }
        foreach (long beyond in (long[])[-1, 60]) Assert.Throws<ArgumentOutOfRangeException>(() => file[beyond]);
    }

    [Fact]
    public void Nothing_stands_under_the_names_before_it_is_complete()
    {
        using (ChatFileWriter writer = new(_folder["chat.bin"], Small.Tokenizer.VocabularySize, "hash"))
            writer.Append(Small.Encode([User("Hello")]), 5);
        Assert.Empty(Directory.GetFiles(_folder.Path));
    }

    [Fact]
    public void Files_that_do_not_belong_together_are_refused()
    {
        Write(_folder["a.bin"], Conversations(5));
        Write(_folder["b.bin"], [.. Conversations(5).Reverse()]);
        File.Copy(_folder["b.messages"], _folder["a.messages"], overwrite: true);
        Assert.Contains($"it belongs to other tokens than those in {_folder["a.bin"]}; prepare the conversations again", Assert.Throws<InvalidDataException>(() => ChatFile.Open(_folder["a.bin"])).Message, StringComparison.Ordinal);
        File.Delete(_folder["a.messages"]);
        Assert.Contains("holds documents, not conversations", Assert.Throws<FileNotFoundException>(() => ChatFile.Open(_folder["a.bin"])).Message, StringComparison.Ordinal);
    }

    [Fact]
    public void A_file_that_is_cut_short_while_it_is_open_gives_an_error_and_not_the_end_of_the_process()
    {
        Write(_folder["chat.bin"], Conversations(30));
        using ChatFile file = ChatFile.Open(_folder["chat.bin"]);
        using (FileStream stream = new(_folder["chat.messages"], FileMode.Open, FileAccess.Write, FileShare.ReadWrite | FileShare.Delete)) stream.SetLength(200);
        foreach (Action read in (Action[])[() => file.Cut(29, new()), () => _ = file[29], file.Verify])
            Assert.Contains($"{_folder["chat.messages"]} cannot be used: it has become shorter since it was opened", Assert.Throws<InvalidDataException>(read).Message, StringComparison.Ordinal);
    }

    /// <summary>Bytes turned, cut off, put in, moved, and numbers of the header and the index set to what is hard to bear, in either file.</summary>
    [Fact]
    public void Ten_thousand_damaged_files_give_an_error_or_ids_of_the_vocabulary()
    {
        int seed = Environment.TickCount;
        output.WriteLine($"seed {seed}");
        Random random = new(seed);
        Write(_folder["chat.bin"], Conversations(12));
        Dictionary<string, byte[]> whole = new[] { "chat.bin", "chat.messages" }.ToDictionary(name => name, name => File.ReadAllBytes(_folder[name]));
        (int refused, int read) = (0, 0);
        for (int i = 0; i < 10_000; i++)
        {
            string name = random.Next(3) == 0 ? "chat.bin" : "chat.messages";
            File.WriteAllBytes(_folder[name], Damaged(random, whole[name]));
            try
            {
                using ChatFile file = ChatFile.Open(_folder["chat.bin"]);
                bool packing = random.Next(2) == 0;
                ChatSampleOptions sample = new() { MaxTokens = random.Next(1, 300), Labels = (ChatLabels)random.Next(3), Truncation = (ChatTruncation)random.Next(2), FilterLongSamples = random.Next(4) == 0 };
                ChatBatchSource source = new(file, Small.PaddingId, new() { BatchSize = 3, Packing = packing, Sample = sample, HoldoutSamples = random.Next(2) });
                foreach (Batch batch in Enumerable.Range(0, (int)source.BatchesPerEpoch).Select(index => source.Training(index)).Concat(source.Holdout()))
                {
                    Assert.All(batch.Tokens, id => Assert.InRange(id, 0, file.Tokens.VocabularySize - 1));
                    Assert.All(batch.Targets, id => Assert.True(id == ChatFormat.IgnoredLabel || (id >= 0 && id < file.Tokens.VocabularySize)));
                }
                read++;
            }
            catch (InvalidDataException error)
            {
                Assert.Contains(_folder.Path, error.Message, StringComparison.Ordinal);
                refused++;
            }
            // Too few conversations are left, or the vocabulary has become so small that the padding is not of it.
            catch (ArgumentException) { refused++; }
            catch (Exception error) when (error is not Xunit.Sdk.XunitException) { Assert.Fail($"mutation {i}: {error}"); }
            File.WriteAllBytes(_folder[name], whole[name]);
        }
        output.WriteLine($"{refused} refused, {read} read");
        Assert.True(refused > 1000 && read > 200, $"{refused} refused, {read} read");

        static byte[] Damaged(Random random, byte[] whole)
        {
            byte[] bytes = [.. whole];
            int at = random.Next(bytes.Length);
            switch (random.Next(6))
            {
                case 0: return bytes[..at];
                case 1: return [.. bytes, .. whole[..random.Next(40)]];
                case 2: return [.. bytes[..at], .. new byte[random.Next(1, 20)], .. bytes[at..]];
                case 3:
                    long[] hard = [0, 1, -1, int.MaxValue, int.MinValue, long.MaxValue, long.MinValue, long.MaxValue / 8, uint.MaxValue, bytes.Length];
                    BitConverter.TryWriteBytes(bytes.AsSpan(Math.Min(at & ~7, bytes.Length - 8)), hard[random.Next(hard.Length)]);
                    return bytes;
                case 4:
                    for (int n = random.Next(1, 5); n > 0; n--) bytes[random.Next(bytes.Length)] = (byte)random.Next(256);
                    return bytes;
                default:
                    bytes[at] ^= (byte)(1 << random.Next(8));
                    return bytes;
            }
        }
    }

    [Fact]
    public void Any_damage_is_found_and_named()
    {
        int seed = Environment.TickCount;
        output.WriteLine($"seed {seed}");
        Random random = new(seed);
        Write(_folder["chat.bin"], Conversations(8));
        byte[] whole = File.ReadAllBytes(_folder["chat.messages"]);
        for (int i = 0; i < 400; i++)
        {
            byte[] damaged = [.. whole];
            int at = random.Next(whole.Length);
            // Bytes of the header that say nothing are not looked at before Verify, but the checksum covers them all.
            if (random.Next(4) == 0) damaged = damaged[..at];
            else damaged[at] ^= (byte)(1 << random.Next(8));
            File.WriteAllBytes(_folder["chat.messages"], damaged);
            bool reserved = damaged.Length == whole.Length && at is >= 96 and < 128;
            InvalidDataException? error = null;
            try
            {
                using ChatFile file = ChatFile.Open(_folder["chat.bin"]);
                for (int number = 0; number < file.Count; number++) _ = file[number].Sample(new());
                file.Verify();
            }
            catch (InvalidDataException found) { error = found; }
            if (reserved) continue;
            Assert.True(error is not null, $"byte {at}");
            Assert.Contains("; prepare the conversations again", error.Message, StringComparison.Ordinal);
        }
    }

    [Fact]
    public void Preparation_gives_one_result_with_any_number_of_workers_and_counts_what_it_drops()
    {
        Numbers(300);
        PreparedChat? first = null;
        byte[]? tokens = null, messages = null;
        foreach ((int shardBytes, int workers) in new[] { (1 << 20, 1), (3000, 1), (3000, 4), (500, 3) })
        {
            PreparedChat prepared = Preparation().Run(_folder["chat.bin"], Source(shardBytes), workers);
            Assert.Equal(["chat.bin", "chat.messages", "numbers.jsonl"], Directory.GetFileSystemEntries(_folder.Path).Select(Path.GetFileName).Order());
            byte[] newTokens = File.ReadAllBytes(_folder["chat.bin"]), newMessages = File.ReadAllBytes(_folder["chat.messages"]);
            Assert.Equal(tokens ?? newTokens, newTokens);
            Assert.Equal(messages ?? newMessages, newMessages);
            (tokens, messages) = (newTokens, newMessages);
            first ??= prepared;
            Assert.Equal(JsonSerializer.Serialize(first), JsonSerializer.Serialize(prepared));
        }
        // Of ten records one has a wrong role, one nothing to read, and one is no JSON.
        ChatStatistics statistics = first!.Statistics;
        Assert.Equal((30, 270), (first.Reading.Bad, first.Reading.Records));
        Assert.Equal((270, 210), (statistics.Read, statistics.Kept));
        Assert.Equal(30, statistics.Dropped[DropReason.BadRecord]);
        Assert.Equal(30, statistics.Dropped[DropReason.Empty]);
        Assert.Equal(210, statistics.Lengths.Sum());
        Assert.Equal(ChatStatistics.MostProblems, statistics.Problems.Count);
        Assert.EndsWith("numbers.jsonl, row 4: field messages[0].role = \"critic\" is no known role; use one of system, user, assistant, tool, function.", statistics.Problems[0].ToString(), StringComparison.Ordinal);
        using ChatFile file = ChatFile.Open(_folder["chat.bin"]);
        Assert.Equal((210, statistics.Tokens), (file.Count, file.Tokens.Count));
        Assert.Equal(Enumerable.Range(1, 300).Where(row => row % 10 is not (4 or 7 or 9)).Sum(row => Text(row).Length + 4L), file.Tokens.TextBytes);
    }

    [Fact]
    public void After_a_stop_only_unfinished_shards_are_read_again()
    {
        Numbers(200);
        Preparation().Run(_folder["whole/chat.bin"], Source(1 << 20));
        string[] Parts() => [.. Directory.GetFiles(_folder["chat.bin.parts"], "*.json").Order()];
        foreach (int workers in (int[])[1, 3])
        {
            using CancellationTokenSource stop = new();
            Assert.ThrowsAny<OperationCanceledException>(() => Preparation().Run(_folder["chat.bin"], Source(2000), workers, new Reports(report =>
            {
                if (report.ShardsDone == 4) stop.Cancel();
            }), stop.Token));
            Assert.False(File.Exists(_folder["chat.bin"]));
            Assert.InRange(Parts().Length, 4, 6);
            // A part that was damaged meanwhile is not believed, and one of other options is not taken.
            string damaged = Path.ChangeExtension(Parts()[1], ".bin");
            byte[] bytes = File.ReadAllBytes(damaged);
            bytes[200] ^= 1;
            File.WriteAllBytes(damaged, bytes);
            int whole = Parts().Length - 1;
            ChatProgress last = new(0, 0, 0, 0, 0);
            PreparedChat prepared = Preparation().Run(_folder["chat.bin"], Source(2000), workers, new Reports(report => last = report));
            Assert.Equal((180, 140), (prepared.Statistics.Read, prepared.Statistics.Kept));
            Assert.Equal(1, last.Fraction);
            Assert.InRange(last.Records, 180 - (whole * 20), 180 - (whole * 8));
            foreach (string name in (string[])["chat.bin", "chat.messages"]) Assert.Equal(File.ReadAllBytes(_folder[$"whole/{name}"]), File.ReadAllBytes(_folder[name]));
            File.Delete(_folder["chat.bin"]);
        }
    }

    [Fact]
    public void Parts_of_other_options_are_not_taken()
    {
        Numbers(100);
        using CancellationTokenSource stop = new();
        Assert.ThrowsAny<OperationCanceledException>(() => Preparation().Run(_folder["chat.bin"], Source(1000), 1, new Reports(report =>
        {
            if (report.ShardsDone == 3) stop.Cancel();
        }), stop.Token));
        ChatProgress last = new(0, 0, 0, 0, 0);
        ConversationReader other = new(new() { ToolCallMarkup = true });
        Assert.Equal(90, new ChatPreparation(Small, other).Run(_folder["chat.bin"], Source(1000), 1, new Reports(report => last = report)).Statistics.Read);
        Assert.Equal(90, last.Records);
        Assert.False(Directory.Exists(_folder["chat.bin.parts"]));
    }

    [Fact]
    public void Pairs_are_two_conversations_each()
    {
        File.WriteAllText(_folder["pairs.jsonl"], """
            {"prompt": "Q", "chosen": "A dog", "rejected": "B"}
            {"prompt": "Q", "chosen": "A", "rejected": "A"}
            """);
        ChatStatistics statistics = new ChatPreparation(Small, new ConversationReader(), pairs: true).Run(_folder["pairs.bin"], Documents.Source.Open(_folder["pairs.jsonl"])).Statistics;
        Assert.Equal((2, 1, 1), (statistics.Read, statistics.Kept, statistics.Dropped[DropReason.SameReplies]));
        using ChatFile file = ChatFile.Open(_folder["pairs.bin"]);
        Assert.Equal(2, file.Count);
        Assert.Equal(Small.Encode([User("Q"), Assistant("A dog")]).Tokens, file[0].Tokens);
        Assert.Equal(Small.Encode([User("Q"), Assistant("B")]).Tokens, file[1].Tokens);
    }

    internal static void Write(string path, IEnumerable<EncodedConversation> conversations)
    {
        using ChatFileWriter writer = new(path, Small.Tokenizer.VocabularySize, Small.Tokenizer.Hash);
        foreach (EncodedConversation conversation in conversations) writer.Append(conversation, 3);
        writer.Complete();
    }

    private EncodedConversation[] Conversations(int count)
    {
        int seed = Environment.TickCount;
        output.WriteLine($"seed {seed}");
        Random random = new(seed);
        return [.. Enumerable.Range(0, count).Select(_ => Small.Encode(ChatTokenizers.Random(random, 6, 10).Messages))];
    }

    private static ChatPreparation Preparation() => new(Small, new ConversationReader());

    private static string Text(long row) => $"The number {row} is a number.";

    private void Numbers(int count) => File.WriteAllLines(_folder["numbers.jsonl"], Enumerable.Range(1, count).Select(row => row % 10 == 9 ? "{\"messages\": [" : JsonSerializer.Serialize(new
    {
        messages = new[] { new { role = row % 10 == 4 ? "critic" : "user", content = row % 10 == 7 ? "" : Text(row) }, new { role = "assistant", content = row % 10 == 7 ? "" : "Yes." } },
    })));

    private Source Source(int shardBytes) => Documents.Source.Open(_folder["numbers.jsonl"], new() { ShardBytes = shardBytes });

    private sealed class Reports(Action<ChatProgress> listen) : IProgress<ChatProgress>
    {
        public void Report(ChatProgress value) => listen(value);
    }
}
