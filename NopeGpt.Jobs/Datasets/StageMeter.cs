using System.Globalization;
using NopeGpt.Data;
using NopeGpt.Data.Chat;
using NopeGpt.Data.Documents.Hub;

namespace NopeGpt.Jobs.Datasets;

/// <summary>Progress of the stages of making a data set: four times a second at most, with speed and expected end where they are known. Downloads go on
/// beside the other stages and are told of only while those wait for them. Safe for concurrent use.</summary>
internal sealed class StageMeter(MakerReports reports, TimeProvider time)
{
    private const string Downloading = "downloading";
    private static readonly TimeSpan Every = TimeSpan.FromMilliseconds(250), Waiting = TimeSpan.FromSeconds(1);
    private readonly Lock _lock = new();
    private readonly DownloadMeter _downloads = new(time);
    private (double From, double To, long Bytes) _expected;
    private long _last, _lastWork;
    private string? _stage;
    private double _fraction;
    private bool _closed;

    /// <summary>Reports of a stage that takes a part of the whole.</summary>
    /// <returns>To be told the done part of the stage, 0 to 1.</returns>
    public Action<double> Stage(string stage, double from, double to) => done => Work(stage, Part(from, to, done), null, null);

    /// <summary>As <see cref="Stage"/>, with the expected end and, where there are bytes, the speed.</summary>
    /// <returns>To be told the done part of the stage, 0 to 1, and the bytes worked through; it begins now.</returns>
    public Action<double, long> Timed(string stage, double from, double to)
    {
        long start = time.GetTimestamp();
        Work(stage, from, null, null);
        return (done, bytes) =>
        {
            double seconds = time.GetElapsedTime(start).TotalSeconds, part = Math.Clamp(done, 0, 1);
            Work(stage, Part(from, to, part), bytes > 0 && seconds > 0 ? bytes / seconds : null, part > 0 ? seconds * (1 - part) / part : null);
        };
    }

    /// <summary>Reports of encoding documents, the last stage.</summary>
    public Action<PreparationProgress> Encoding(double from)
    {
        const string Name = "encoding";
        Work(Name, from, null, null);
        return p => Work(Name, Part(from, 1, p.Fraction), p.BytesPerSecond, p.Remaining?.TotalSeconds);
    }

    /// <summary>Reports of encoding conversations, the last stage.</summary>
    /// <param name="watch">Told of each too.</param>
    public IProgress<ChatProgress> Chat(double from, Action<ChatProgress> watch)
    {
        const string Name = "encoding conversations";
        long start = time.GetTimestamp();
        double before = 0;
        Work(Name, from, null, null);
        return new Listener(p =>
        {
            watch(p);
            // What an earlier attempt had finished is not of this one's speed.
            if (p.TextBytes == 0) before = p.Fraction;
            double seconds = time.GetElapsedTime(start).TotalSeconds, done = p.Fraction - before;
            Work(Name, Part(from, 1, p.Fraction), p.TextBytes > 0 && seconds > 0 ? p.TextBytes / seconds : null, done > 0 ? seconds * (1 - p.Fraction) / done : null);
        });
    }

    /// <summary>How much of the whole the downloads take that the work waits for at its beginning, and how many bytes they have.</summary>
    /// <param name="bytes">0 where it is not known how many of the files will be needed.</param>
    public void ExpectDownloads(double from, double to, long bytes)
    {
        lock (_lock) _expected = (from, to, bytes);
    }

    /// <summary>Reports of downloads, from the threads that make them.</summary>
    public void Download(DownloadProgress progress)
    {
        lock (_lock)
        {
            _downloads.Add(progress);
            // A file that is here already is no download.
            if (_downloads.BytesPerSecond is not { } speed || (_lastWork != 0 && time.GetElapsedTime(_lastWork) < Waiting)) return;
            long here = _downloads.Bytes, all = _expected.Bytes;
            string stage = all > 0 ? $"{Downloading}: {Megabytes(here)} of {Megabytes(all)} MB" : $"{Downloading}: {Megabytes(here)} MB";
            double fraction = all > 0 ? Part(_expected.From, _expected.To, (double)here / all) : _expected.From;
            Report(stage, Downloading, fraction, speed, all > 0 && speed > 0 ? Math.Max(0, all - here) / speed : null);
        }
    }

    /// <summary>Nothing is reported any more: what the last downloads tell comes too late.</summary>
    public void Close()
    {
        lock (_lock) _closed = true;
    }

    private void Work(string stage, double fraction, double? bytesPerSecond, double? eta)
    {
        lock (_lock)
        {
            _lastWork = time.GetTimestamp();
            Report(stage, stage, fraction, bytesPerSecond, eta);
        }
    }

    private void Report(string words, string stage, double fraction, double? bytesPerSecond, double? eta)
    {
        if (_closed) return;
        _fraction = Math.Max(_fraction, fraction);
        bool begins = stage != _stage;
        if (begins && reports.Stages && stage != Downloading) reports.Log(stage);
        _stage = stage;
        long now = time.GetTimestamp();
        if (!begins && _last != 0 && time.GetElapsedTime(_last, now) < Every) return;
        _last = now;
        reports.Progress(new ProgressEvent(words, _fraction, bytesPerSecond, eta));
    }

    private static double Part(double from, double to, double done) => from + ((to - from) * Math.Clamp(done, 0, 1));

    private static string Megabytes(long bytes) => (bytes / 1e6).ToString(bytes < 10_000_000 ? "0.0" : "#,0", CultureInfo.InvariantCulture);

    private sealed class Listener(Action<ChatProgress> report) : IProgress<ChatProgress>
    {
        public void Report(ChatProgress value) => report(value);
    }

    /// <summary>Bytes that are here, and the speed of the last seconds: downloads pause while enough is got ahead.</summary>
    private sealed class DownloadMeter(TimeProvider time)
    {
        private static readonly TimeSpan Window = TimeSpan.FromSeconds(5), Step = TimeSpan.FromMilliseconds(100), Least = TimeSpan.FromMilliseconds(200);
        private readonly Dictionary<string, long> _files = [];
        private readonly Queue<(long Time, long Received)> _past = [];
        private long _received, _newest;

        /// <summary>Of all files together, those of earlier attempts included.</summary>
        public long Bytes { get; private set; }

        /// <summary>Null as long as nothing was received; 0 where that is too little to tell.</summary>
        public double? BytesPerSecond
        {
            get
            {
                if (_past.Count == 0) return null;
                (long from, long received) = _past.Peek();
                TimeSpan span = time.GetElapsedTime(from);
                return span < Least ? 0 : (_received - received) / span.TotalSeconds;
            }
        }

        public void Add(DownloadProgress progress)
        {
            long known = _files.GetValueOrDefault(progress.File, -1);
            Bytes += progress.Bytes - Math.Max(0, known);
            _files[progress.File] = progress.Bytes;
            // The first report of a file tells what was here before.
            if (known < 0 || progress.Bytes <= known) return;
            long now = time.GetTimestamp();
            if (_past.Count == 0 || time.GetElapsedTime(_newest, now) >= Step)
            {
                _past.Enqueue((now, _received));
                _newest = now;
            }
            _received += progress.Bytes - known;
            while (_past.Count > 1 && time.GetElapsedTime(_past.Peek().Time, now) > Window) _past.Dequeue();
        }
    }
}
