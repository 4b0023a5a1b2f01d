using NopeGpt.Data;
using NopeGpt.Data.Chat;
using NopeGpt.Data.Documents.Hub;

namespace NopeGpt.Jobs.Datasets;

/// <summary>Progress of the stages of making a data set: four times a second at most, with speed and expected end where they are known.</summary>
internal sealed class StageMeter(MakerReports reports, TimeProvider time)
{
    private static readonly TimeSpan Every = TimeSpan.FromMilliseconds(250);
    private readonly Lock _lock = new();
    private readonly Dictionary<string, long> _downloads = [];
    private long _last, _downloadStart, _downloaded;
    private string? _stage;
    private double _fraction;

    /// <summary>Reports of a stage that takes a part of the whole.</summary>
    /// <returns>To be told the done part of the stage, 0 to 1.</returns>
    public Action<double> Stage(string stage, double from, double to) => done => Report(stage, from + ((to - from) * Math.Clamp(done, 0, 1)), null, null);

    /// <summary>As <see cref="Stage"/>, with the expected end and, where there are bytes, the speed.</summary>
    /// <returns>To be told the done part of the stage, 0 to 1, and the bytes worked through; it begins now.</returns>
    public Action<double, long> Timed(string stage, double from, double to)
    {
        long start = time.GetTimestamp();
        Report(stage, from, null, null);
        return (done, bytes) =>
        {
            double seconds = time.GetElapsedTime(start).TotalSeconds, part = Math.Clamp(done, 0, 1);
            Report(stage, from + ((to - from) * part), bytes > 0 && seconds > 0 ? bytes / seconds : null, part > 0 ? seconds * (1 - part) / part : null);
        };
    }

    /// <summary>Reports of encoding documents, the last stage.</summary>
    public Action<PreparationProgress> Encoding(double from)
    {
        const string Name = "encoding";
        Report(Name, from, null, null);
        return p => Report(Name, from + ((1 - from) * Math.Clamp(p.Fraction, 0, 1)), p.BytesPerSecond, p.Remaining?.TotalSeconds);
    }

    /// <summary>Reports of encoding conversations, the last stage; the speed is that of the source's bytes as stored.</summary>
    public IProgress<ChatProgress> Chat(double from, long sourceBytes)
    {
        long start = time.GetTimestamp();
        double? before = null;
        Report("encoding conversations", from, null, null);
        return new Listener(p =>
        {
            before ??= p.Fraction;
            double seconds = time.GetElapsedTime(start).TotalSeconds, done = p.Fraction - before.Value;
            bool known = done > 0 && seconds > 0;
            Report("encoding conversations", from + ((1 - from) * Math.Clamp(p.Fraction, 0, 1)), known ? done * sourceBytes / seconds : null, known ? seconds * (1 - p.Fraction) / done : null);
        });
    }

    /// <summary>Reports of a download. It goes on beside the other stages, so the fraction stays where they are.</summary>
    public void Download(DownloadProgress progress)
    {
        lock (_lock)
        {
            if (_downloadStart == 0) _downloadStart = time.GetTimestamp();
            // What an earlier attempt had got is not of this one's speed.
            if (!_downloads.TryGetValue(progress.File, out long known)) known = progress.Bytes;
            _downloaded += progress.Bytes - known;
            _downloads[progress.File] = progress.Bytes;
            double seconds = time.GetElapsedTime(_downloadStart).TotalSeconds;
            bool whole = progress.Bytes == progress.Total;
            Report($"getting {progress.File} ({progress.Bytes / 1e6:N0} of {progress.Total / 1e6:N0} MB)", _fraction, seconds > 0.5 ? _downloaded / seconds : null, null, quiet: true, always: whole);
        }
    }

    private void Report(string stage, double fraction, double? bytesPerSecond, double? eta, bool quiet = false, bool always = false)
    {
        lock (_lock)
        {
            _fraction = Math.Max(_fraction, fraction);
            bool begins = !quiet && stage != _stage;
            if (begins)
            {
                _stage = stage;
                reports.Log(stage);
            }
            long now = time.GetTimestamp();
            if (!begins && !always && _last != 0 && time.GetElapsedTime(_last, now) < Every) return;
            _last = now;
            reports.Progress(new ProgressEvent(stage, _fraction, bytesPerSecond, eta));
        }
    }

    private sealed class Listener(Action<ChatProgress> report) : IProgress<ChatProgress>
    {
        public void Report(ChatProgress value) => report(value);
    }
}
