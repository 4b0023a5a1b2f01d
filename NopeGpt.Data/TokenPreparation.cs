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
/// <param name="Statistics">As <see cref="TokenStatistics.Of"/> gives them for the file.</param>
/// <param name="ResumedDocuments">Documents that an earlier attempt had finished.</param>
/// <param name="ResumedTextBytes">Their UTF-8 bytes.</param>
public sealed record PreparationResult(long Documents, long TextBytes, long Tokens, ReadingReport Report, TokenStatistics Statistics, long ResumedDocuments, long ResumedTextBytes);

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
        (long resumed, long resumedBytes) = (assembly.Documents, assembly.TextBytes);
        Meter meter = new(assembly, _time, progress);
        bool IsFull() => _maximumTokens > 0 && assembly.Tokens >= _maximumTokens;
        if (!IsFull())
        {
            Encode(texts, assembly.Position, assembly.Tokens, mapping, shard =>
            {
                // Once more and only as far as it is wanted, so that the report counts nothing beyond.
                if (_maximumTokens > 0 && assembly.Tokens + shard.Finished!.Tokens >= _maximumTokens) Fill(shard, shard.Shard!, mapping, cancel, _maximumTokens - assembly.Tokens);
                assembly.Append(shard);
                meter.Report(_maximumTokens > 0 ? Math.Max(shard.Fraction, Math.Min(1, (double)assembly.Tokens / _maximumTokens)) : shard.Fraction);
                return !IsFull();
            }, cancel);
        }
        assembly.Complete();
        return new PreparationResult(assembly.Documents, assembly.TextBytes, assembly.Tokens, assembly.Report, assembly.Statistics.Result(), resumed, resumedBytes);
    }

    private void Fill(EncodedShard encoded, Shard shard, ColumnMapping mapping, CancellationToken cancel, long maximumTokens = long.MaxValue) => encoded.Fill(shard, mapping, _tokenizer, _endOfText, cancel, maximumTokens);

    /// <summary>Encodes shards on all workers and hands them over on this thread in their order, until one is the last that is wanted. A thread of its own
    /// reads ahead, so that no worker waits for a disk, the network or a decompressor.</summary>
    /// <param name="already">Tokens that are there.</param>
    private void Encode(Source source, ShardPosition from, long already, ColumnMapping mapping, Func<EncodedShard, bool> write, CancellationToken cancel)
    {
        // It ends what is being read and got when no more is wanted, too.
        using CancellationTokenSource stop = CancellationTokenSource.CreateLinkedTokenSource(cancel);
        using BlockingCollection<Place> order = new(_workers * ShardsInWork), work = [];
        ConcurrentBag<EncodedShard> idle = [];
        using ReadAhead ahead = new(_maximumTokens - already);
        Thread[] threads =
        [
            new(() => Read(source.Shards(from, stop.Token), order, work, ahead, stop.Token)) { IsBackground = true, Name = "shard reader" },
            .. Enumerable.Range(0, _workers).Select(i => new Thread(() => Work(work, idle, mapping, stop.Token)) { IsBackground = true, Name = $"encoder {i}" }),
        ];
        foreach (Thread thread in threads) thread.Start();
        try
        {
            foreach (Place place in order.GetConsumingEnumerable(cancel))
            {
                EncodedShard encoded = place.Task.GetAwaiter().GetResult();
                cancel.ThrowIfCancellationRequested();
                if (!write(encoded)) break;
                ahead.Written(encoded.Finished!.Tokens);
                encoded.ReleaseShard();
                idle.Add(encoded);
            }
            // The reader sees it too and may have closed the order before the loop looked: then the source has not ended.
            cancel.ThrowIfCancellationRequested();
        }
        finally
        {
            stop.Cancel();
            foreach (Thread thread in threads) thread.Join();
        }
    }

    /// <summary>Gives every shard its place in the order and to the workers. An error takes the place of the shard that it struck.</summary>
    private static void Read(IEnumerable<Shard> shards, BlockingCollection<Place> order, BlockingCollection<Place> work, ReadAhead ahead, CancellationToken stop)
    {
        try
        {
            foreach (Shard shard in shards)
            {
                ahead.Begun();
                Place place = new(shard);
                // The order has room for a few: whoever waits here has read ahead enough.
                order.Add(place, stop);
                work.Add(place, stop);
                // What comes next may be a file that has to be downloaded first.
                ahead.WaitForNeed(stop);
            }
        }
        catch (Exception error)
        {
            Place place = new(null);
            place.SetException(error);
            try { order.Add(place, stop); }
            catch (OperationCanceledException) { /* nobody looks any more */ }
        }
        finally
        {
            order.CompleteAdding();
            work.CompleteAdding();
        }
    }

    private void Work(BlockingCollection<Place> work, ConcurrentBag<EncodedShard> idle, ColumnMapping mapping, CancellationToken stop)
    {
        foreach (Place place in work.GetConsumingEnumerable(CancellationToken.None))
        {
            try
            {
                stop.ThrowIfCancellationRequested();
                if (!idle.TryTake(out EncodedShard? encoded)) encoded = new EncodedShard();
                Fill(encoded, place.Shard!, mapping, stop);
                place.SetResult(encoded);
            }
            catch (Exception error) { place.SetException(error); }
        }
    }

    /// <summary>Keeps from reading, and so from downloading, what the bound on tokens is likely to leave out: the shards that are read but not written yet
    /// are taken to be as large as the largest before.</summary>
    /// <param name="wanted">Tokens that are still missing; not above 0 where there is no bound.</param>
    private sealed class ReadAhead(long wanted) : IDisposable
    {
        private readonly Lock _lock = new();
        private readonly SemaphoreSlim _changed = new(0);
        private readonly bool _bounded = wanted > 0;
        private long _written, _largest, _unwritten;

        private bool IsNeeded
        {
            get
            {
                lock (_lock) return !_bounded || _unwritten == 0 || (_largest > 0 && _written + (_unwritten * _largest) < wanted);
            }
        }

        public void Begun()
        {
            lock (_lock) _unwritten++;
        }

        public void Written(long tokens)
        {
            lock (_lock) (_unwritten, _written, _largest) = (_unwritten - 1, _written + tokens, Math.Max(_largest, tokens));
            _changed.Release();
        }

        /// <summary>Returns when more will be needed, or cannot be told without.</summary>
        public void WaitForNeed(CancellationToken stop)
        {
            while (!IsNeeded) _changed.Wait(stop);
        }

        public void Dispose() => _changed.Dispose();
    }

    /// <summary>A shard's place in the order, where its ids appear.</summary>
    private sealed class Place(Shard? shard) : TaskCompletionSource<EncodedShard>(TaskCreationOptions.RunContinuationsAsynchronously)
    {
        public Shard? Shard { get; } = shard;
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
