using System.Text.Json;
using System.Threading.Channels;

namespace NopeGpt.Jobs.Training;

/// <summary>Writes a run's events: to the file first, then to the dashboard where one listens. The training loop never waits for either:
/// one writer takes events from a bounded queue. Whatever the dashboard misses it reads from the file by sequence number.</summary>
public sealed class EventWriter : IAsyncDisposable
{
    private const int MostWaiting = 4096;
    private readonly FileStream file;
    private readonly Channel<TrainingEvent> queue = Channel.CreateBounded<TrainingEvent>(new BoundedChannelOptions(65_536) { SingleReader = true });
    private readonly HubSender hub;
    private readonly TimeProvider time;
    private readonly Action<TrainingEvent>? watch;
    private readonly TensorBoardWriter? board;
    private readonly Task writing;
    private readonly Lock gate = new();
    private readonly object written = new();
    private long sequence, writtenSequence;
    private volatile IOException? fault;

    /// <param name="folder">The run; the caller holds its lock.</param>
    /// <param name="watch">Told of every event at once, on the thread that writes it.</param>
    public EventWriter(RunFolder folder, Store store, Action<TrainingEvent>? watch = null, TimeProvider? time = null)
        : this(folder, store, watch, time, null)
    {
    }

    /// <param name="board">Gets the events too, after the file; it ends with this one.</param>
    internal EventWriter(RunFolder folder, Store store, Action<TrainingEvent>? watch, TimeProvider? time, TensorBoardWriter? board)
    {
        this.board = board;
        this.watch = watch;
        this.time = time ?? TimeProvider.System;
        // Without a buffer: what failed once would be written again on closing, and throw there.
        file = new FileStream(folder.EventsPath, FileMode.OpenOrCreate, FileAccess.ReadWrite, FileShare.ReadWrite | FileShare.Delete, bufferSize: 0);
        Attempts = 0;
        EndTornLine();
        List<string> damaged = [];
        foreach (TrainingEvent earlier in folder.Events(0, damaged.Add))
        {
            sequence = Math.Max(sequence, earlier.Sequence);
            if (earlier is StartedEvent started) Attempts = Math.Max(Attempts, started.Attempt);
            if (earlier is WarningEvent warning) damaged.Remove(warning.Message);
        }
        writtenSequence = sequence;
        hub = new HubSender(folder.Id, store);
        writing = Task.Run(WriteAsync);
        // Each is told once, not by every attempt.
        foreach (string one in damaged) Write(new WarningEvent(one));
    }

    /// <summary>Attempts that the file already tells of.</summary>
    public int Attempts { get; }

    /// <summary>Why the file could not be written (a full disk); null while all is well.</summary>
    public IOException? Fault => fault;

    /// <summary>Gives the event its number and time and queues it. Safe for concurrent use: downloads and workers tell of themselves.</summary>
    public void Write(TrainingEvent happened)
    {
        // One at a time, so that the numbers rise in the file.
        lock (gate)
        {
            TrainingEvent numbered = happened with { Sequence = ++sequence, Time = time.GetUtcNow() };
            watch?.Invoke(numbered);
            // The queue is full only when the disk is far behind; losing an event would be worse than waiting for it.
            if (!queue.Writer.TryWrite(numbered)) queue.Writer.WriteAsync(numbered).AsTask().GetAwaiter().GetResult();
        }
    }

    /// <summary>Waits until what was told before stands in the file, where a kill of this process does not reach it any more, or the file has a <see cref="Fault"/>.</summary>
    public void Flush()
    {
        long last;
        lock (gate) last = sequence;
        lock (written)
        {
            while (writtenSequence < last && fault is null) Monitor.Wait(written);
        }
    }

    /// <summary>Writes what is queued, gives the dashboard a moment to take it, and closes the file.</summary>
    public async ValueTask DisposeAsync()
    {
        queue.Writer.Complete();
        await writing;
        board?.Dispose();
        await hub.DisposeAsync();
        await file.DisposeAsync();
    }

    private async Task WriteAsync()
    {
        MemoryStream lines = new();
        List<TrainingEvent> batch = [];
        long whole = file.Position;
        while (await queue.Reader.WaitToReadAsync())
        {
            // What could not be written is tried again with what comes after it: a run that fails often frees the room for its last words.
            while (batch.Count < MostWaiting && queue.Reader.TryRead(out TrainingEvent? next))
            {
                JsonSerializer.Serialize<TrainingEvent>(lines, next, TrainingEvent.Json);
                lines.WriteByte((byte)'\n');
                batch.Add(next);
            }
            try
            {
                file.Position = whole;
                await file.WriteAsync(lines.GetBuffer().AsMemory(0, (int)lines.Length));
                whole += lines.Length;
                Done(batch[^1].Sequence);
                hub.Offer(batch);
                board?.Write(batch);
                lines.SetLength(0);
                batch.Clear();
            }
            catch (IOException e)
            {
                fault ??= e;
                Done(writtenSequence);
                // No half line stays; where even that fails, the next writer ends it.
                try { file.SetLength(whole); }
                catch (IOException) { }
                if (batch.Count >= MostWaiting) return;
            }
        }
    }

    private void Done(long last)
    {
        lock (written)
        {
            writtenSequence = last;
            Monitor.PulseAll(written);
        }
    }

    // A process that was killed may have left half a line: the next event has its number, and begins a line.
    private void EndTornLine()
    {
        byte[] end = new byte[Math.Min(file.Length, 1 << 20)];
        file.Seek(-end.Length, SeekOrigin.End);
        file.ReadExactly(end);
        int start = end.AsSpan().LastIndexOf((byte)'\n') + 1;
        if (start < end.Length)
        {
            if (RunFolder.ParseEvent(end.AsSpan(start)) is not null || (start == 0 && end.Length < file.Length)) file.Write("\n"u8);
            else file.SetLength(file.Length - (end.Length - start));
        }
        file.Seek(0, SeekOrigin.End);
    }
}
