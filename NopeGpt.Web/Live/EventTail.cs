using System.Text;
using NopeGpt.Jobs;

namespace NopeGpt.Web.Live;

/// <summary>Reads what has been added to an events.jsonl since the last time. A line counts once its newline is there, so that
/// one that is being written, or that a crash has torn, is never taken for an event.</summary>
internal sealed class EventTail(string path)
{
    private long _offset;

    /// <summary>True where the file is shorter than what was read of it: it is another file now, and everything must be read anew.</summary>
    public bool IsReplaced => Length < _offset;

    /// <summary>The events of the lines that are new, oldest first; damaged lines are left out.</summary>
    public List<TrainingEvent> Read()
    {
        List<TrainingEvent> events = [];
        if (Length == _offset) return events;
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
                if (length > 0 && RunFolder.ParseEvent(Encoding.UTF8.GetString(buffer, start, length)) is { } one) events.Add(one);
            }
            _offset += start;
            filled -= start;
            Buffer.BlockCopy(buffer, start, buffer, 0, filled);
            if (filled == buffer.Length) Array.Resize(ref buffer, buffer.Length * 2);
        }
        return events;
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
