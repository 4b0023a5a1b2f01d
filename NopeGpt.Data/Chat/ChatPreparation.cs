using System.Runtime.ExceptionServices;
using System.Security.Cryptography;
using System.Text;
using System.Text.Json;
using NopeGpt.Data.Documents;

namespace NopeGpt.Data.Chat;

/// <summary>A part of a source that is prepared at one go.</summary>
/// <param name="Key">what it is, so that it is recognised when preparation goes on: file, place and revision</param>
/// <param name="Read">its records, in order</param>
public sealed record ChatShard(string Key, Func<CancellationToken, IEnumerable<Record>> Read);

/// <summary>How far preparation is.</summary>
/// <param name="Records">records read by now in this run</param>
/// <param name="ShardsDone">shards that are finished, those of an earlier run included</param>
public sealed record ChatProgress(long Records, long Tokens, int ShardsDone, int Shards);

/// <summary>Records to a chat file, by any number of workers with one result. Every finished shard lies beside the file until all are
/// joined, so that after a kill only the shards in work are done again.</summary>
public sealed class ChatPreparation
{
    private const int RecordsBetweenReports = 256;

    private readonly ChatFormat _format;
    private readonly ConversationReader _reader;
    private readonly bool _pairs;

    /// <param name="pairs">whether records are preference pairs; each makes two conversations, chosen and then rejected, in which only the
    /// compared replies are replies</param>
    public ChatPreparation(ChatFormat format, ConversationReader reader, bool pairs = false)
    {
        ArgumentNullException.ThrowIfNull(format);
        ArgumentNullException.ThrowIfNull(reader);
        (_format, _reader, _pairs) = (format, reader, pairs);
    }

    /// <summary>Writes the file, and returns what became of the records of all shards, in their order.</summary>
    /// <param name="path">the token file; an existing one is replaced when all is done</param>
    /// <exception cref="ArgumentException">Two shards have one key.</exception>
    public ChatStatistics Run(string path, IReadOnlyList<ChatShard> shards, int workers = 1, IProgress<ChatProgress>? progress = null, CancellationToken cancellation = default)
    {
        ArgumentException.ThrowIfNullOrEmpty(path);
        ArgumentNullException.ThrowIfNull(shards);
        ArgumentOutOfRangeException.ThrowIfLessThan(workers, 1);
        if (shards.GroupBy(shard => shard.Key).FirstOrDefault(group => group.Count() > 1) is { } twice) throw new ArgumentException($"The shard {twice.Key} is there twice; each must be given once.", nameof(shards));
        string folder = $"{path}.parts";
        Directory.CreateDirectory(folder);
        Progress done = new(progress, shards.Count);
        try
        {
            Parallel.For(0, shards.Count, new ParallelOptions { MaxDegreeOfParallelism = workers, CancellationToken = cancellation }, (i, loop) =>
            {
                if (!loop.ShouldExitCurrentIteration) PrepareShard(PartFile(folder, shards[i]), shards[i], done, cancellation);
            });
        }
        catch (AggregateException errors) { ExceptionDispatchInfo.Throw(errors.InnerExceptions[0]); }
        ChatStatistics statistics = new();
        using (ChatFileWriter writer = new(path, _format.Tokenizer.VocabularySize, _format.Tokenizer.Hash))
        {
            foreach (ChatShard shard in shards)
            {
                cancellation.ThrowIfCancellationRequested();
                string part = PartFile(folder, shard);
                using ChatFile file = ChatFile.Open(part);
                writer.Append(file);
                statistics = statistics.Add(ReadStatistics(part));
            }
            writer.Complete();
        }
        Directory.Delete(folder, recursive: true);
        return statistics;
    }

    private void PrepareShard(string part, ChatShard shard, Progress progress, CancellationToken cancellation)
    {
        if (!IsWhole(part))
        {
            ChatCounter counter = new();
            using ChatFileWriter writer = new(part, _format.Tokenizer.VocabularySize, _format.Tokenizer.Hash);
            long records = 0, tokens = 0;
            foreach (Record record in shard.Read(cancellation))
            {
                cancellation.ThrowIfCancellationRequested();
                tokens += Add(record, writer, counter);
                if (++records % RecordsBetweenReports != 0) continue;
                progress.Add(RecordsBetweenReports, tokens, 0);
                tokens = 0;
            }
            writer.Complete();
            progress.Add(records % RecordsBetweenReports, tokens, 0);
            // Written last: a part with its statistics is whole.
            using AsideFile aside = new(StatisticsFile(part));
            JsonSerializer.Serialize(aside.Stream, counter.Result());
            aside.Complete();
        }
        progress.Add(0, 0, 1);
    }

    /// <summary>Adds what a record has, and returns its tokens.</summary>
    private int Add(Record record, ChatFileWriter writer, ChatCounter counter)
    {
        (EncodedConversation Encoded, long TextBytes)[]? conversations = Encode(record, out RecordProblem? problem);
        if (conversations is null)
        {
            counter.Drop(problem!);
            return 0;
        }
        foreach ((EncodedConversation encoded, long textBytes) in conversations)
        {
            writer.Append(encoded, textBytes);
            counter.Length(encoded.Tokens.Length);
        }
        int tokens = conversations.Sum(made => made.Encoded.Tokens.Length);
        counter.Keep(tokens);
        return tokens;
    }

    private (EncodedConversation Encoded, long TextBytes)[]? Encode(Record record, out RecordProblem? problem)
    {
        if (!_pairs)
            return _reader.TryRead(record, out Conversation? conversation, out problem) ? [(_format.Encode(conversation.Messages), ChatFileWriter.TextBytes(conversation.Messages))] : null;
        if (!_reader.TryReadPair(record, out PreferencePair? pair, out problem)) return null;
        (EncodedConversation chosen, EncodedConversation rejected) = _format.Encode(pair);
        return [(chosen, ChatFileWriter.TextBytes([.. pair.Prompt, .. pair.Chosen])), (rejected, ChatFileWriter.TextBytes([.. pair.Prompt, .. pair.Rejected]))];
    }

    /// <summary>A finished part that a kill or a full disk did not damage; another is made anew.</summary>
    private static bool IsWhole(string part)
    {
        if (!File.Exists(StatisticsFile(part))) return false;
        try
        {
            using ChatFile file = ChatFile.Open(part);
            file.Verify();
            _ = ReadStatistics(part);
            return true;
        }
        catch (Exception error) when (error is FileNotFoundException or InvalidDataException or JsonException) { return false; }
    }

    private string PartFile(string folder, ChatShard shard)
    {
        string content = string.Join('\u001f', "chat part 1", _format.Tokenizer.Hash, _reader.Options, _pairs, shard.Key);
        return Path.Combine(folder, $"{Convert.ToHexStringLower(SHA256.HashData(Encoding.UTF8.GetBytes(content)))[..32]}.bin");
    }

    private static string StatisticsFile(string part) => Path.ChangeExtension(part, ".json");

    private static ChatStatistics ReadStatistics(string part) => JsonSerializer.Deserialize<ChatStatistics>(File.ReadAllBytes(StatisticsFile(part))) ?? throw new JsonException("no statistics");

    /// <summary>What all workers did together.</summary>
    private sealed class Progress(IProgress<ChatProgress>? listener, int shards)
    {
        private readonly Lock _lock = new();
        private ChatProgress _state = new(0, 0, 0, shards);

        public void Add(long records, long tokens, int finished)
        {
            lock (_lock)
            {
                _state = _state with { Records = _state.Records + records, Tokens = _state.Tokens + tokens, ShardsDone = _state.ShardsDone + finished };
                listener?.Report(_state);
            }
        }
    }
}
