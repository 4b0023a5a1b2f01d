using System.Collections.Concurrent;
using System.Runtime.ExceptionServices;
using System.Security.Cryptography;
using System.Text;
using System.Text.Json;
using NopeGpt.Data.Documents;

namespace NopeGpt.Data.Chat;

/// <summary>How far preparation is.</summary>
/// <param name="Records">records read by now in this run</param>
/// <param name="Tokens">tokens of the conversations in them</param>
/// <param name="TextBytes">UTF-8 bytes of their text</param>
/// <param name="ShardsDone">shards that are finished, those of an earlier run included</param>
/// <param name="Fraction">the part of the source, by stored bytes, up to the last of them; from 0 to 1</param>
public sealed record ChatProgress(long Records, long Tokens, long TextBytes, int ShardsDone, double Fraction);

/// <summary>What preparation made.</summary>
/// <param name="Statistics">what became of the records</param>
/// <param name="Reading">what of the files could not be read as records</param>
public sealed record PreparedChat(ChatStatistics Statistics, ReadingReport Reading);

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

    /// <summary>Writes the file, and returns what became of the records, in their order.</summary>
    /// <param name="path">the token file; an existing one is replaced when all is done. Finished shards wait in a folder beside it: its name and .parts</param>
    public PreparedChat Run(string path, Source source, int workers = 1, IProgress<ChatProgress>? progress = null, CancellationToken cancellation = default)
    {
        ArgumentException.ThrowIfNullOrEmpty(path);
        ArgumentNullException.ThrowIfNull(source);
        ArgumentOutOfRangeException.ThrowIfLessThan(workers, 1);
        string folder = Directory.CreateDirectory($"{path}.parts").FullName;
        string origin = Origin(source);
        Dictionary<ShardPosition, Part> earlier = EarlierParts(folder, origin);
        ConcurrentDictionary<ShardPosition, Part> parts = new();
        Progress done = new(progress);
        ShardPosition position = default;
        while (earlier.TryGetValue(position, out Part? part))
        {
            parts[position] = part;
            done.Finish(part.Fraction);
            position = part.End;
        }
        ParallelOptions options = new() { MaxDegreeOfParallelism = workers, CancellationToken = cancellation };
        try
        {
            // One shard at a time for each worker: they are held in memory.
            Parallel.ForEach(Partitioner.Create(Linked(source, position, cancellation), EnumerablePartitionerOptions.NoBuffering), options, (link, loop) =>
            {
                if (loop.ShouldExitCurrentIteration) return;
                parts[link.From] = earlier.TryGetValue(link.From, out Part? part) && part.End == link.Shard.End ? part : Prepare(folder, origin, link.From, link.Shard, done, cancellation);
                done.Finish(link.Shard.Fraction);
            });
        }
        catch (AggregateException errors) { ExceptionDispatchInfo.Throw(errors.InnerExceptions[0]); }
        PreparedChat result = Join(path, folder, parts, cancellation);
        Directory.Delete(folder, recursive: true);
        return result;
    }

    /// <summary>Shards, each with the end of the one before it, by which a chain of finished ones is followed.</summary>
    private static IEnumerable<(ShardPosition From, Shard Shard)> Linked(Source source, ShardPosition from, CancellationToken cancellation)
    {
        foreach (Shard shard in source.Shards(from, cancellation))
        {
            yield return (from, shard);
            from = shard.End;
        }
    }

    private PreparedChat Join(string path, string folder, IReadOnlyDictionary<ShardPosition, Part> parts, CancellationToken cancellation)
    {
        ChatStatistics statistics = new();
        ReadingReport reading = new();
        using ChatFileWriter writer = new(path, _format.Tokenizer.VocabularySize, _format.Tokenizer.Hash);
        for (ShardPosition position = default; parts.TryGetValue(position, out Part? part); position = part.End)
        {
            cancellation.ThrowIfCancellationRequested();
            using ChatFile file = ChatFile.Open(PartFile(folder, part.From));
            writer.Append(file);
            statistics = statistics.Add(part.Statistics);
            reading.Add(part.Reading);
        }
        writer.Complete();
        return new PreparedChat(statistics, reading);
    }

    private Part Prepare(string folder, string origin, ShardPosition from, Shard shard, Progress progress, CancellationToken cancellation)
    {
        string file = PartFile(folder, from);
        ChatCounter counter = new();
        ReadingReport reading = new();
        using ChatFileWriter writer = new(file, _format.Tokenizer.VocabularySize, _format.Tokenizer.Hash);
        long records = 0, tokens = 0, textBytes = 0;
        foreach (Record record in shard.Records(reading))
        {
            cancellation.ThrowIfCancellationRequested();
            foreach ((EncodedConversation encoded, long bytes) in Add(record, writer, counter))
            {
                tokens += encoded.Tokens.Length;
                textBytes += bytes;
            }
            if (++records % RecordsBetweenReports != 0) continue;
            progress.Add(RecordsBetweenReports, tokens, textBytes);
            (tokens, textBytes) = (0, 0);
        }
        writer.Complete();
        progress.Add(records % RecordsBetweenReports, tokens, textBytes);
        Part part = new(origin, from, shard.End, shard.Fraction, counter.Result(), reading);
        // Written last: a part that is described is whole.
        using AsideFile aside = new(Path.ChangeExtension(file, ".json"));
        JsonSerializer.Serialize(aside.Stream, part);
        aside.Complete();
        return part;
    }

    /// <summary>Adds what a record has, and returns it.</summary>
    private (EncodedConversation Encoded, long TextBytes)[] Add(Record record, ChatFileWriter writer, ChatCounter counter)
    {
        (EncodedConversation Encoded, long TextBytes)[]? conversations = Encode(record, out RecordProblem? problem);
        if (conversations is null)
        {
            counter.Drop(problem!);
            return [];
        }
        foreach ((EncodedConversation encoded, long textBytes) in conversations)
        {
            writer.Append(encoded, textBytes);
            counter.Length(encoded.Tokens.Length);
        }
        counter.Keep(conversations.Sum(made => made.Encoded.Tokens.Length));
        return conversations;
    }

    private (EncodedConversation Encoded, long TextBytes)[]? Encode(Record record, out RecordProblem? problem)
    {
        if (!_pairs)
            return _reader.TryRead(record, out Conversation? conversation, out problem) ? [(_format.Encode(conversation.Messages), ChatFileWriter.TextBytes(conversation.Messages))] : null;
        if (!_reader.TryReadPair(record, out PreferencePair? pair, out problem)) return null;
        (EncodedConversation chosen, EncodedConversation rejected) = _format.Encode(pair);
        return [(chosen, ChatFileWriter.TextBytes([.. pair.Prompt, .. pair.Chosen])), (rejected, ChatFileWriter.TextBytes([.. pair.Prompt, .. pair.Rejected]))];
    }

    /// <summary>Finished parts of this source and these options, by where they begin. One that a kill or a full disk damaged is made anew.</summary>
    private static Dictionary<ShardPosition, Part> EarlierParts(string folder, string origin)
    {
        Dictionary<ShardPosition, Part> parts = [];
        foreach (string description in Directory.EnumerateFiles(folder, "*.json"))
        {
            try
            {
                if (JsonSerializer.Deserialize<Part>(File.ReadAllBytes(description)) is not { } part || part.Origin != origin) continue;
                using ChatFile file = ChatFile.Open(PartFile(folder, part.From));
                file.Verify();
                parts[part.From] = part;
            }
            catch (Exception error) when (error is FileNotFoundException or InvalidDataException or JsonException) { /* not whole: not among the finished */ }
        }
        return parts;
    }

    /// <summary>What a part depends on besides its place.</summary>
    private string Origin(Source source) =>
        Convert.ToHexStringLower(SHA256.HashData(Encoding.UTF8.GetBytes(string.Join('\u001f', "chat part 1", _format.Tokenizer.Hash, _reader.Options, _pairs, source.Fingerprint))));

    private static string PartFile(string folder, ShardPosition from) => Path.Combine(folder, $"{from.Shard:D8}.bin");

    /// <summary>The description of a finished shard.</summary>
    /// <param name="From">the end of the shard before it</param>
    private sealed record Part(string Origin, ShardPosition From, ShardPosition End, double Fraction, ChatStatistics Statistics, ReadingReport Reading);

    /// <summary>What all workers did together.</summary>
    private sealed class Progress(IProgress<ChatProgress>? listener)
    {
        private readonly Lock _lock = new();
        private ChatProgress _state = new(0, 0, 0, 0, 0);

        public void Add(long records, long tokens, long textBytes)
        {
            lock (_lock) Report(_state with { Records = _state.Records + records, Tokens = _state.Tokens + tokens, TextBytes = _state.TextBytes + textBytes });
        }

        public void Finish(double fraction)
        {
            lock (_lock) Report(_state with { ShardsDone = _state.ShardsDone + 1, Fraction = Math.Max(_state.Fraction, fraction) });
        }

        private void Report(ChatProgress state)
        {
            _state = state;
            listener?.Report(state);
        }
    }
}
