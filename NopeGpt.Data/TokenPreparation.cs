using System.Collections.Concurrent;
using NopeGpt.Data.Documents;
using NopeGpt.Data.Tokenization;

namespace NopeGpt.Data;

/// <summary>How far preparation is.</summary>
/// <param name="Fraction">Done part of the source, 0 to 1.</param>
/// <param name="TextBytes">UTF-8 bytes of text encoded, those of earlier attempts included.</param>
/// <param name="BytesPerSecond">Of text, in this attempt.</param>
/// <param name="Remaining">Expected time to the end; null where it is not known yet.</param>
public sealed record PreparationProgress(double Fraction, long Documents, long TextBytes, long Tokens, double BytesPerSecond, TimeSpan? Remaining);

/// <summary>What preparation made.</summary>
/// <param name="TextBytes">UTF-8 bytes of the documents.</param>
/// <param name="Tokens">Ids, end-of-text included.</param>
/// <param name="Report">What reading counted, all attempts together.</param>
/// <param name="ResumedDocuments">Documents that an earlier attempt had finished.</param>
public sealed record PreparationResult(long Documents, long TextBytes, long Tokens, ReadingReport Report, long ResumedDocuments);

/// <summary>A source to a token file, by any number of workers with one result. A worker takes the next shard, reads and encodes it; one writer puts
/// the shards behind each other in the source's order. Memory is bounded by a few shards. What is finished lies in a folder beside the token
/// file, and the next attempt goes on from there.</summary>
public sealed class TokenPreparation
{
    /// <summary>Shards that are encoded or waiting to be written, for each worker.</summary>
    private const int ShardsInWork = 3;

    private readonly Tokenizer _tokenizer;
    private readonly EndOfText _endOfText;
    private readonly int _workers;
    private readonly long _maximumTokens;
    private readonly TimeProvider _time;

    /// <param name="endOfText">where each document gets an end-of-text token</param>
    /// <param name="workers">threads that encode; 0 takes as many as there are cores</param>
    /// <param name="maximumTokens">ends with the document that reaches so many tokens; 0 takes the whole source</param>
    public TokenPreparation(Tokenizer tokenizer, EndOfText endOfText = EndOfText.After, int workers = 0, long maximumTokens = 0, TimeProvider? time = null)
    {
        ArgumentNullException.ThrowIfNull(tokenizer);
        ArgumentOutOfRangeException.ThrowIfNegative(maximumTokens);
        ArgumentOutOfRangeException.ThrowIfNegative(workers);
        if (!Enum.IsDefined(endOfText)) throw new ArgumentOutOfRangeException(nameof(endOfText), endOfText, "There is no such place for end-of-text.");
        (_tokenizer, _endOfText, _workers, _maximumTokens, _time) = (tokenizer, endOfText, workers == 0 ? Environment.ProcessorCount : workers, maximumTokens, time ?? TimeProvider.System);
    }

    /// <summary>The size of a source's shards at which the cores share the work evenly and a kill costs little: <see cref="SourceOptions.ShardBytes"/>.</summary>
    public const int ShardBytes = 2 << 20;

    /// <summary>Writes the token file of a source's text. What is wrong in the source is counted in the report.</summary>
    /// <param name="path">the token file; an existing one is replaced when all is done. Until then the work lies in a folder of this name and .parts</param>
    /// <param name="mapping">which column is the text</param>
    /// <exception cref="OperationCanceledException">Cancelled; the finished shards stay.</exception>
    public PreparationResult Run(string path, Source source, ColumnMapping mapping, Action<PreparationProgress>? progress = null, CancellationToken cancel = default)
    {
        ArgumentException.ThrowIfNullOrEmpty(path);
        ArgumentNullException.ThrowIfNull(source);
        ArgumentNullException.ThrowIfNull(mapping);
        Source texts = source.Select(mapping);
        TokenFileLayout layout = new(_tokenizer.VocabularySize, 0, 0, 0, _tokenizer.Hash, _endOfText, []);
        string identity = string.Join(' ', _tokenizer.Hash, _tokenizer.VocabularySize, _endOfText, _maximumTokens, mapping, texts.Fingerprint);
        using TokenFileAssembly assembly = new(path, layout, identity, cancel);
        long resumed = assembly.Documents;
        Meter meter = new(assembly, _time, progress);
        bool IsFull() => _maximumTokens > 0 && assembly.Tokens >= _maximumTokens;
        if (!IsFull())
        {
            Encode(texts.Shards(assembly.Position, cancel), mapping, shard =>
            {
                if (_maximumTokens > 0) shard.Cut(_maximumTokens - assembly.Tokens);
                assembly.Append(shard);
                meter.Report(_maximumTokens > 0 ? Math.Max(shard.Fraction, Math.Min(1, (double)assembly.Tokens / _maximumTokens)) : shard.Fraction);
                return !IsFull();
            }, cancel);
        }
        assembly.Complete();
        return new PreparationResult(assembly.Documents, assembly.TextBytes, assembly.Tokens, assembly.Report, resumed);
    }

    /// <summary>Encodes shards on all workers and hands them over on this thread in their order, until one is the last that is wanted.</summary>
    private void Encode(IEnumerable<Shard> shards, ColumnMapping mapping, Func<EncodedShard, bool> write, CancellationToken cancel)
    {
        using CancellationTokenSource stop = CancellationTokenSource.CreateLinkedTokenSource(cancel);
        using IEnumerator<Shard> reading = shards.GetEnumerator();
        using BlockingCollection<TaskCompletionSource<EncodedShard>> order = new(_workers * ShardsInWork);
        ConcurrentBag<EncodedShard> idle = [];
        Lock turn = new();
        void Work()
        {
            while (Next(reading, order, turn, stop.Token) is var (shard, place))
            {
                try
                {
                    if (!idle.TryTake(out EncodedShard? encoded)) encoded = new EncodedShard();
                    encoded.Fill(shard, mapping, _tokenizer, _endOfText, stop.Token);
                    place.SetResult(encoded);
                }
                catch (Exception error) { place.SetException(error); }
            }
        }
        Thread[] workers = [.. Enumerable.Range(0, _workers).Select(i => new Thread(Work) { IsBackground = true, Name = $"encoder {i}" })];
        foreach (Thread worker in workers) worker.Start();
        try
        {
            foreach (TaskCompletionSource<EncodedShard> place in order.GetConsumingEnumerable(cancel))
            {
                EncodedShard encoded = place.Task.GetAwaiter().GetResult();
                cancel.ThrowIfCancellationRequested();
                if (!write(encoded)) break;
                idle.Add(encoded);
            }
        }
        finally
        {
            stop.Cancel();
            foreach (Thread worker in workers) worker.Join();
        }
    }

    /// <summary>The next shard and its place in the order; null behind the last one. One worker at a time: whoever has nothing to encode reads.</summary>
    private static (Shard Shard, TaskCompletionSource<EncodedShard> Place)? Next(IEnumerator<Shard> reading, BlockingCollection<TaskCompletionSource<EncodedShard>> order, Lock turn, CancellationToken stop)
    {
        lock (turn)
        {
            if (order.IsAddingCompleted) return null;
            TaskCompletionSource<EncodedShard> place = new(TaskCreationOptions.RunContinuationsAsynchronously);
            try
            {
                bool more = false;
                try { more = reading.MoveNext(); }
                catch (Exception error) { place.SetException(error); }
                if (more || place.Task.IsFaulted) order.Add(place, stop);
                if (more) return (reading.Current, place);
            }
            catch (OperationCanceledException) { /* the writer has ended, and so does this worker */ }
            order.CompleteAdding();
            return null;
        }
    }

    /// <summary>Speed and expected end, from what this attempt did.</summary>
    private sealed class Meter(TokenFileAssembly assembly, TimeProvider time, Action<PreparationProgress>? listener)
    {
        private readonly long _start = time.GetTimestamp(), _bytes = assembly.TextBytes;
        private double? _from;

        public void Report(double fraction)
        {
            double seconds = time.GetElapsedTime(_start).TotalSeconds;
            // Of a resumed preparation the part that was done before is known when its first shard is: by the bytes, as far as they go evenly.
            _from ??= assembly.TextBytes == 0 ? 0 : fraction * _bytes / assembly.TextBytes;
            TimeSpan? remaining = fraction > _from ? TimeSpan.FromSeconds(seconds * (1 - fraction) / (fraction - _from.Value)) : null;
            listener?.Invoke(new PreparationProgress(fraction, assembly.Documents, assembly.TextBytes, assembly.Tokens, seconds > 0 ? (assembly.TextBytes - _bytes) / seconds : 0, remaining));
        }
    }
}
