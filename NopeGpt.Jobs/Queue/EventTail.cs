using System.Buffers;
using System.Text;

namespace NopeGpt.Jobs.Queue;

/// <summary>What a run's events say about where it stands; each <see cref="Read"/> takes in only what was written since the last.</summary>
internal sealed class EventTail(RunFolder folder)
{
    private readonly ArrayBufferWriter<byte> line = new();
    private long offset;

    /// <summary>The newest start; null before the first.</summary>
    public StartedEvent? Began { get; private set; }

    /// <summary>The newest orderly end; it may belong to an earlier attempt than the newest start.</summary>
    public EndedEvent? Ended { get; private set; }

    /// <summary>The newest numbers of an optimizer step.</summary>
    public MetricsEvent? Metrics { get; private set; }

    /// <summary>The newest progress of work that is not counted in steps.</summary>
    public ProgressEvent? Progress { get; private set; }

    /// <summary>The end of the newest attempt; null where it had none, or goes on.</summary>
    public EndedEvent? LastEnd => Ended is not null && (Began is null || Ended.Sequence > Began.Sequence) ? Ended : null;

    public void Read()
    {
        if (!File.Exists(folder.EventsPath)) return;
        using FileStream stream = new(folder.EventsPath, FileMode.Open, FileAccess.Read, FileShare.ReadWrite | FileShare.Delete);
        stream.Position = offset;
        byte[] buffer = new byte[65536];
        int count;
        while ((count = stream.Read(buffer)) > 0)
        {
            offset += count;
            ReadOnlySpan<byte> rest = buffer.AsSpan(0, count);
            int end;
            while ((end = rest.IndexOf((byte)'\n')) >= 0)
            {
                line.Write(rest[..end]);
                Take(Encoding.UTF8.GetString(line.WrittenSpan));
                line.ResetWrittenCount();
                rest = rest[(end + 1)..];
            }
            line.Write(rest);
        }
    }

    /// <summary>Done and whole in the units of <see cref="RunRow.Step"/>; null while nothing is known.</summary>
    public (long Step, long MaxSteps)? Done(RunKind kind) =>
        kind == RunKind.Pretrain
            ? Metrics is { MaxSteps: > 0 } metrics ? (metrics.Step, metrics.MaxSteps) : null
            : Progress is { } progress && double.IsFinite(progress.Fraction) ? ((long)Math.Round(100 * Math.Clamp(progress.Fraction, 0, 1)), 100) : null;

    private void Take(string text)
    {
        switch (RunFolder.ParseEvent(text))
        {
            case StartedEvent began: Began = began; break;
            case EndedEvent ended: Ended = ended; break;
            case MetricsEvent metrics: Metrics = metrics; break;
            case ProgressEvent progress: Progress = progress; break;
            default: break;
        }
    }
}
