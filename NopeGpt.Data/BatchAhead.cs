using System.Collections.Concurrent;
using System.Runtime.ExceptionServices;
using System.Threading.Channels;

namespace NopeGpt.Data;

/// <summary>Prepares batches on a thread of its own before they are asked for. What it gives is what the source gives: only the waiting goes.</summary>
public sealed class BatchAhead : IDisposable
{
    private readonly Channel<Batch> _ready;
    private readonly CancellationTokenSource _stop = new();
    private readonly Thread _thread;
    private readonly ConcurrentQueue<Batch>? _used;
    private Batch? _last;
    private bool _disposed;

    /// <param name="fetch">the batch of an index; called on the other thread, in order</param>
    /// <param name="first">index of the first batch</param>
    /// <param name="depth">batches that are ready at most</param>
    public BatchAhead(Func<long, Batch> fetch, long first, int depth = 2) : this((index, _) => fetch(index), first, depth, used: null) => ArgumentNullException.ThrowIfNull(fetch);

    /// <summary>As the other, with a few batches whose arrays are used again and again: a batch counts until the next is asked for.</summary>
    /// <param name="fetch">the batch of an index, in the arrays of another where one is given; called on the other thread, in order</param>
    /// <param name="first">index of the first batch</param>
    /// <param name="depth">batches that are ready at most</param>
    public BatchAhead(Func<long, Batch?, Batch> fetch, long first, int depth = 2) : this(fetch, first, depth, used: new())
    {
    }

    private BatchAhead(Func<long, Batch?, Batch> fetch, long first, int depth, ConcurrentQueue<Batch>? used)
    {
        ArgumentNullException.ThrowIfNull(fetch);
        ArgumentOutOfRangeException.ThrowIfNegative(first);
        ArgumentOutOfRangeException.ThrowIfLessThan(depth, 1);
        Position = first;
        _used = used;
        _ready = Channel.CreateBounded<Batch>(new BoundedChannelOptions(depth) { SingleReader = true, SingleWriter = true });
        _thread = new Thread(() => Fill(fetch, first)) { IsBackground = true, Name = "batches ahead" };
        _thread.Start();
    }

    /// <summary>Index of the batch that <see cref="Next"/> gives.</summary>
    public long Position { get; private set; }

    /// <summary>The next batch, in order. An error of the source is thrown here, after the batches before it.</summary>
    public Batch Next(CancellationToken cancellation = default)
    {
        ObjectDisposedException.ThrowIf(_disposed, this);
        Batch batch;
        if (!_ready.Reader.TryRead(out batch!))
        {
            try { batch = _ready.Reader.ReadAsync(cancellation).AsTask().GetAwaiter().GetResult(); }
            catch (ChannelClosedException closed) when (closed.InnerException is { } error)
            {
                ExceptionDispatchInfo.Throw(error);
            }
        }
        Position++;
        if (_last is not null) _used?.Enqueue(_last);
        return _last = batch;
    }

    /// <summary>Ends the thread; a batch that it is preparing is finished first.</summary>
    public void Dispose()
    {
        if (_disposed) return;
        _disposed = true;
        _stop.Cancel();
        _thread.Join();
        _stop.Dispose();
    }

    private void Fill(Func<long, Batch?, Batch> fetch, long index)
    {
        try
        {
            while (true)
            {
                Batch? used = null;
                _used?.TryDequeue(out used);
                _ready.Writer.WriteAsync(fetch(index++, used), _stop.Token).AsTask().GetAwaiter().GetResult();
            }
        }
        catch (OperationCanceledException) when (_stop.IsCancellationRequested) { _ready.Writer.Complete(); }
        catch (Exception error) { _ready.Writer.Complete(error); }
    }
}
