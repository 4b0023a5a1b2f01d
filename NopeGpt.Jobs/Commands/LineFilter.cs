using System.Buffers;
using System.Globalization;
using System.Threading.Channels;

namespace NopeGpt.Jobs.Commands;

/// <summary>Turns the lines of one stream into lines of another, on all cores and in order. Whatever can be read at once is converted and written at
/// once, so that a person or a program at the other end of a pipe gets an answer to each line; memory is bounded by some blocks, or by the longest
/// line. Blank lines are passed over.</summary>
/// <param name="converter">Makes a converter for a thread.</param>
/// <param name="isGone">Whether nobody will read what is written any more: then no more is read.</param>
internal sealed class LineFilter(Stream input, Stream output, Func<LineConverter> converter, Func<bool> isGone)
{
    private const int BlockBytes = 1 << 20, LongestLine = 1 << 27;
    private static readonly SearchValues<byte> _blanks = SearchValues.Create(" \t\r\n"u8);

    private readonly Channel<Task<Converted>> _queue = Channel.CreateBounded<Task<Converted>>(Environment.ProcessorCount + 1);
    private volatile bool _stopped;

    /// <summary>Lines read, blank ones among them, and those of them with something replaced.</summary>
    public (long Lines, long Repaired) Counts { get; private set; }

    /// <exception cref="UserException">A line is not of the right form; everything before it is written.</exception>
    public async Task RunAsync(CancellationToken cancel)
    {
        // Reading from a pipe cannot be cancelled: the thread is left behind where it still waits.
        Task reading = Task.Factory.StartNew(Read, CancellationToken.None, TaskCreationOptions.LongRunning, TaskScheduler.Default);
        try
        {
            while (await _queue.Reader.WaitToReadAsync(cancel))
            {
                Converted block = await (await _queue.Reader.ReadAsync(cancel)).WaitAsync(cancel);
                if (isGone()) return;
                output.Write(block.Bytes.WrittenSpan);
                output.Flush();
                if (block.Problem is { } problem) throw new UserException(string.Create(CultureInfo.InvariantCulture, $"line {Counts.Lines + block.Lines}: {problem}"));
                Counts = (Counts.Lines + block.Lines, Counts.Repaired + block.Repaired);
            }
            await reading;
        }
        finally
        {
            _stopped = true;
            _queue.Writer.TryComplete();
        }
    }

    private void Read()
    {
        try
        {
            byte[] buffer = ArrayPool<byte>.Shared.Rent(BlockBytes);
            int filled = 0;
            bool first = true;
            while (!_stopped)
            {
                if (filled == buffer.Length) buffer = Grown(buffer);
                int read = input.Read(buffer, filled, buffer.Length - filled);
                int end = read == 0 ? filled : buffer.AsSpan(filled, read).LastIndexOf((byte)'\n') is >= 0 and int at ? filled + at + 1 : 0;
                filled += read;
                if (read == 0 && end == 0) break;
                if (end == 0) continue;
                int start = first && buffer.AsSpan(0, end).StartsWith("\uFEFF"u8) ? 3 : 0;
                first = false;
                byte[] block = buffer;
                buffer = ArrayPool<byte>.Shared.Rent(Math.Max(BlockBytes, 2 * (filled - end)));
                block.AsSpan(end..filled).CopyTo(buffer);
                filled -= end;
                Task<Converted> converted = Task.Run(() => Convert(block, start..end));
                // False when nobody waits for what is read any more.
                while (!_queue.Writer.TryWrite(converted))
                    if (!_queue.Writer.WaitToWriteAsync().AsTask().GetAwaiter().GetResult()) return;
                if (read == 0) break;
            }
            _queue.Writer.TryComplete();
        }
#pragma warning disable CA1031 // whatever it is, it is thrown where the lines are written
        catch (Exception e) { _queue.Writer.TryComplete(e); }
#pragma warning restore CA1031
    }

    private static byte[] Grown(byte[] buffer)
    {
        if (buffer.Length >= LongestLine) throw new UserException($"a line is longer than {LongestLine} bytes: cut its text into several");
        byte[] grown = ArrayPool<byte>.Shared.Rent((int)Math.Min(2L * buffer.Length, LongestLine));
        buffer.CopyTo(grown, 0);
        ArrayPool<byte>.Shared.Return(buffer);
        return grown;
    }

    private Converted Convert(byte[] block, Range part)
    {
        ReadOnlySpan<byte> lines = block.AsSpan(part);
        if (lines.EndsWith("\n"u8)) lines = lines[..^1];
        LineConverter convert = converter();
        ArrayBufferWriter<byte> into = new(lines.Length + 256);
        long number = 0;
        try
        {
            foreach (Range range in lines.Split((byte)'\n'))
            {
                number++;
                ReadOnlySpan<byte> line = Trim(lines[range]);
                if (line.IsEmpty) continue;
                convert.Convert(line, into);
                into.Write("\n"u8);
            }
            return new(into, number, convert.Repaired, null);
        }
        catch (LineException e) { return new(into, number, convert.Repaired, e.Message); }
        finally { ArrayPool<byte>.Shared.Return(block); }
    }

    private static ReadOnlySpan<byte> Trim(ReadOnlySpan<byte> line)
    {
        int start = line.IndexOfAnyExcept(_blanks);
        return start < 0 ? [] : line[start..(line.LastIndexOfAnyExcept(_blanks) + 1)];
    }

    /// <param name="Lines">Converted, or, with a problem, up to the one that it is in.</param>
    private sealed record Converted(ArrayBufferWriter<byte> Bytes, long Lines, long Repaired, string? Problem);
}
