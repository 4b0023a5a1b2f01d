using NopeGpt.Data;
using NopeGpt.Data.Chat;
using NopeGpt.Data.Documents.Hub;
using NopeGpt.Jobs;
using NopeGpt.Jobs.Datasets;

namespace NopeGpt.Tests.Datasets;

public sealed class StageMeterTests
{
    private readonly ManualTime _time = new();
    private readonly List<ProgressEvent> _told = [];
    private readonly List<string> _log = [];
    private readonly StageMeter _meter;

    public StageMeterTests() => _meter = new(new MakerReports(_log.Add, _ => { }, _told.Add), _time);

    [Fact]
    public void Progress_is_told_four_times_a_second_at_most_and_every_stage_at_once()
    {
        Action<double, long> first = _meter.Timed("first", 0, 0.5), second;
        for (int i = 0; i <= 10_000; i++)
        {
            _time.Pass(0.001);
            first(i / 10_000.0, i * 1000L);
        }
        Assert.InRange(_told.Count, 38, 42);
        second = _meter.Timed("second", 0.5, 1);
        Assert.Equal(("second", 0.5), (_told[^1].Stage, _told[^1].Fraction));
        second(0, 0);
        Assert.Equal(["first", "second"], _log);
        Assert.Equal(_told.Select(p => p.Fraction).Order(), _told.Select(p => p.Fraction));
    }

    [Fact]
    public void Speed_and_end_are_those_of_an_even_pace()
    {
        Action<double, long> work = _meter.Timed("work", 0.2, 1);
        for (int i = 1; i <= 10; i++)
        {
            _time.Pass(2);
            work(i / 10.0, i * 50_000_000L);
            Assert.Equal((0.2 + (0.08 * i), 25e6, 20 - (2.0 * i)), (_told[^1].Fraction, _told[^1].BytesPerSecond!.Value, _told[^1].EtaSeconds!.Value), Close);
        }
    }

    [Fact]
    public void The_speed_of_conversations_is_of_their_text_and_without_what_was_done_before()
    {
        IProgress<ChatProgress> chat = _meter.Chat(0, _ => { });
        _time.Pass(1);
        chat.Report(new(0, 0, 0, 3, 0.5));
        _time.Pass(9);
        chat.Report(new(100, 1000, 30_000_000, 4, 0.75));
        Assert.Equal((0.75, 3e6, 10), (_told[^1].Fraction, _told[^1].BytesPerSecond!.Value, _told[^1].EtaSeconds!.Value), Close);
    }

    [Fact]
    public void Downloads_are_told_while_the_work_waits_for_them_with_the_speed_of_the_last_seconds()
    {
        const long Megabyte = 1_000_000;
        _meter.ExpectDownloads(0, 0.2, 100 * Megabyte);
        // 20 MB are here from an earlier attempt.
        _meter.Download(new("a", 20 * Megabyte, 60 * Megabyte));
        Assert.Empty(_told);
        for (long i = 21; i <= 60; i++)
        {
            _time.Pass(0.1);
            _meter.Download(new("a", i * Megabyte, 60 * Megabyte));
        }
        Assert.Equal("downloading: 60 of 100 MB", _told[^1].Stage);
        Assert.Equal((0.12, 10e6, 4), (_told[^1].Fraction, _told[^1].BytesPerSecond!.Value, _told[^1].EtaSeconds!.Value), Close);
        Assert.Empty(_log);

        Action<PreparationProgress> encoding = _meter.Encoding(0.2);
        int before = _told.Count;
        _meter.Download(new("b", 0, 40 * Megabyte));
        for (long i = 1; i <= 20; i++)
        {
            _time.Pass(0.3);
            encoding(new PreparationProgress(i / 100.0, 1, 1, 1, 1e6, TimeSpan.FromSeconds(5)));
            _meter.Download(new("b", i * Megabyte, 40 * Megabyte));
        }
        Assert.All(_told[before..], p => Assert.Equal("encoding", p.Stage));
        // The work stands still.
        _time.Pass(2);
        _meter.Download(new("b", 21 * Megabyte, 40 * Megabyte));
        Assert.StartsWith("downloading: 81 of 100", _told[^1].Stage, StringComparison.Ordinal);
        Assert.InRange(_told[^1].BytesPerSecond!.Value, 1e6, 5e6);
        Assert.Equal(_told.Select(p => p.Fraction).Order(), _told.Select(p => p.Fraction));
    }

    [Fact]
    public void A_download_that_begins_anew_and_one_of_unknown_extent_make_no_nonsense()
    {
        _meter.Download(new("a", 0, 1000));
        foreach (long bytes in (long[])[400, 900, 100, 500, 1000])
        {
            _time.Pass(0.5);
            _meter.Download(new("a", bytes, 1000));
            Assert.All(_told, p => Assert.True(p is { Fraction: 0, BytesPerSecond: >= 0, EtaSeconds: null }, p.ToString()));
        }
        Assert.Equal("downloading: 0.0 MB", _told[^1].Stage);
        // Files that are here already are no downloads.
        int before = _told.Count;
        for (int i = 0; i < 1000; i++) _meter.Download(new($"{i}", 5, 5));
        Assert.Equal(before, _told.Count);
        _meter.Close();
        _time.Pass(10);
        _meter.Download(new("a", 1000, 1000));
        Assert.Equal(before, _told.Count);
    }

    private static bool Close((double, double, double) one, (double, double, double) other) =>
        Math.Abs(one.Item1 - other.Item1) < 1e-9 && Math.Abs((one.Item2 / other.Item2) - 1) < 0.05 && Math.Abs(one.Item3 - other.Item3) < 0.3;

    private sealed class ManualTime : TimeProvider
    {
        private long _now = 1;

        public override long TimestampFrequency => 1_000_000;

        public override long GetTimestamp() => _now;

        public void Pass(double seconds) => _now += (long)(seconds * TimestampFrequency);
    }
}
