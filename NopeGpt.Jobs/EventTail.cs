namespace NopeGpt.Jobs;

/// <summary>Reads what has been added to a run's events.jsonl since the last time. A line counts once its newline is there, so that
/// one that is being written, or that a crash has torn, is never taken for an event.</summary>
/// <param name="from">Where to begin: the end of a line, as <see cref="Position"/> told.</param>
/// <param name="warn">Told of each damaged line.</param>
public sealed class EventTail(string path, long from = 0, Action<string>? warn = null)
{
    private long _offset = from;
    private long _line;

    /// <summary>Bytes read so far: the end of the line of the last event.</summary>
    public long Position => _offset;

    /// <summary>True where the file is shorter than what was read of it: it is another file now, and everything must be read anew.</summary>
    public bool IsReplaced => Length < _offset;

    /// <summary>The events of the lines that are new, oldest first, one at a time: a long run's file is larger than what is kept of it.
    /// Damaged lines are left out.</summary>
    public IEnumerable<TrainingEvent> Read()
    {
        if (Length == _offset) yield break;
        using FileStream stream = new(path, FileMode.Open, FileAccess.Read, FileShare.ReadWrite | FileShare.Delete, bufferSize: 1);
        stream.Position = _offset;
        byte[] buffer = new byte[1 << 16];
        int filled = 0;
        for (int read; (read = stream.Read(buffer, filled, buffer.Length - filled)) > 0;)
        {
            filled += read;
            int start = 0;
            for (int length; (length = buffer.AsSpan(start, filled - start).IndexOf((byte)'\n')) >= 0; start += length + 1)
            {
                _offset += length + 1;
                _line++;
                if (length == 0) continue;
                if (RunFolder.ParseEvent(buffer.AsSpan(start, length)) is { } one) yield return one;
                else warn?.Invoke($"{path} line {_line} is damaged and left out");
            }
            filled -= start;
            Buffer.BlockCopy(buffer, start, buffer, 0, filled);
            if (filled == buffer.Length) Array.Resize(ref buffer, buffer.Length * 2);
        }
    }

    private long Length
    {
        get
        {
            FileInfo file = new(path);
            return file.Exists ? file.Length : 0;
        }
    }
}
