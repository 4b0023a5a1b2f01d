using NopeGpt.Data.Chat;
using NopeGpt.Tests;
using Xunit.Abstractions;
using static NopeGpt.Data.Tests.Chat.ChatTokenizers;
using Record = NopeGpt.Data.Documents.Record;

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
        Record[] records = Records(300);
        ChatStatistics? first = null;
        byte[]? tokens = null, messages = null;
        foreach ((int shards, int workers) in new[] { (1, 1), (7, 1), (7, 4), (60, 3) })
        {
            ChatStatistics statistics = Preparation().Run(_folder["chat.bin"], Shards(records, shards), workers);
            Assert.Equal(["chat.bin", "chat.messages"], Directory.GetFileSystemEntries(_folder.Path).Select(Path.GetFileName).Order());
            byte[] newTokens = File.ReadAllBytes(_folder["chat.bin"]), newMessages = File.ReadAllBytes(_folder["chat.messages"]);
            Assert.Equal(tokens ?? newTokens, newTokens);
            Assert.Equal(messages ?? newMessages, newMessages);
            (tokens, messages) = (newTokens, newMessages);
            first ??= statistics;
            Assert.Equal(System.Text.Json.JsonSerializer.Serialize(first), System.Text.Json.JsonSerializer.Serialize(statistics));
        }
        // Every tenth record has a wrong role, every tenth nothing to read.
        Assert.Equal((300, 240), (first!.Read, first.Kept));
        Assert.Equal(30, first.Dropped[DropReason.BadRecord]);
        Assert.Equal(30, first.Dropped[DropReason.Empty]);
        Assert.Equal(240, first.Lengths.Sum());
        Assert.Equal(ChatStatistics.MostProblems, first.Problems.Count);
        Assert.Equal("numbers.jsonl, row 4: field messages[0].role = \"critic\" is no known role; use one of system, user, assistant, tool, function.", first.Problems[0].ToString());
        using ChatFile file = ChatFile.Open(_folder["chat.bin"]);
        Assert.Equal((240, first.Tokens), (file.Count, file.Tokens.Count));
        Assert.Equal(records.Where(record => record.Row % 10 is not (4 or 7)).Sum(record => Text(record.Row).Length + 4L), file.Tokens.TextBytes);
    }

    [Fact]
    public void After_a_stop_only_unfinished_shards_are_read_again()
    {
        Record[] records = Records(60);
        Preparation().Run(_folder["whole/chat.bin"], Shards(records, 6));
        List<string> read = [];
        ChatShard[] Watched(int failing) => [.. Shards(records, 6).Select((shard, i) => shard with
        {
            Read = cancellation =>
            {
                read.Add(shard.Key);
                return i == failing ? throw new IOException("the disk is gone") : shard.Read(cancellation);
            },
        })];
        Assert.Equal("the disk is gone", Assert.Throws<IOException>(() => Preparation().Run(_folder["chat.bin"], Watched(4))).Message);
        Assert.Equal(["shard 0", "shard 1", "shard 2", "shard 3", "shard 4"], read);
        Assert.False(File.Exists(_folder["chat.bin"]));
        // A part that was damaged meanwhile is not believed.
        string[] parts = [.. Directory.GetFiles(_folder["chat.bin.parts"], "*.bin").Order()];
        Assert.Equal(4, parts.Length);
        byte[] part = File.ReadAllBytes(parts[1]);
        part[200] ^= 1;
        File.WriteAllBytes(parts[1], part);
        read.Clear();
        List<ChatProgress> reports = [];
        ChatStatistics statistics = Preparation().Run(_folder["chat.bin"], Watched(-1), 1, new Reports(reports));
        Assert.Equal(3, read.Count);
        Assert.Equal((60, 48), (statistics.Read, statistics.Kept));
        Assert.Equal((6, 6, 30), (reports[^1].ShardsDone, reports[^1].Shards, reports[^1].Records));
        foreach (string name in (string[])["chat.bin", "chat.messages"]) Assert.Equal(File.ReadAllBytes(_folder[$"whole/{name}"]), File.ReadAllBytes(_folder[name]));
        // Other options are other parts.
        ArgumentException twice = Assert.Throws<ArgumentException>(() => Preparation().Run(_folder["x.bin"], [Shards(records, 1)[0], Shards(records, 1)[0]]));
        Assert.Contains("The shard shard 0 is there twice", twice.Message, StringComparison.Ordinal);
    }

    [Fact]
    public void Preparation_can_be_cancelled()
    {
        using CancellationTokenSource cancel = new();
        ChatShard endless = new("endless", token => Enumerable.Repeat(Records(1)[0], int.MaxValue).Select((record, i) =>
        {
            if (i == 100) cancel.Cancel();
            return record;
        }));
        Assert.ThrowsAny<OperationCanceledException>(() => Preparation().Run(_folder["chat.bin"], [endless], cancellation: cancel.Token));
        Assert.False(File.Exists(_folder["chat.bin"]));
    }

    [Fact]
    public void Pairs_are_two_conversations_each()
    {
        Record pair = new(["prompt", "chosen", "rejected"], [Documents.FieldValue.Of("Q"), Documents.FieldValue.Of("A dog"), Documents.FieldValue.Of("B")], "pairs.jsonl", 1);
        Record same = new(["prompt", "chosen", "rejected"], [Documents.FieldValue.Of("Q"), Documents.FieldValue.Of("A"), Documents.FieldValue.Of("A")], "pairs.jsonl", 2);
        ChatStatistics statistics = new ChatPreparation(Small, new ConversationReader(), pairs: true).Run(_folder["pairs.bin"], [new("all", _ => [pair, same])]);
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

    private static Record[] Records(int count) => [.. Enumerable.Range(1, count).Select(row => Corpus.Record(
        System.Text.Json.JsonSerializer.SerializeToElement(new
        {
            messages = new[] { new { role = row % 10 == 4 ? "critic" : "user", content = row % 10 == 7 ? "" : Text(row) }, new { role = "assistant", content = row % 10 == 7 ? "" : "Yes." } },
        }), "numbers.jsonl", row))];

    private static ChatShard[] Shards(Record[] records, int count) =>
        [.. records.Chunk((records.Length + count - 1) / count).Select((chunk, i) => new ChatShard($"shard {i}", _ => chunk))];

    private sealed class Reports(List<ChatProgress> into) : IProgress<ChatProgress>
    {
        public void Report(ChatProgress value) => into.Add(value);
    }
}
