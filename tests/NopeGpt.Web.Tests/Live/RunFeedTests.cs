using NopeGpt.Jobs;
using NopeGpt.Tests;
using NopeGpt.Web.Live;
using NopeGpt.Web.Series;

namespace NopeGpt.Web.Tests.Live;

public sealed class RunFeedTests : IDisposable
{
    private readonly TemporaryFolder _folder = new();
    private readonly Store _store;
    private readonly RunFeed _feed;
    private readonly Scribe _run;

    public RunFeedTests()
    {
        _store = new Store(_folder.Path);
        _feed = new RunFeed(_store);
        _run = new Scribe(_store);
    }

    public void Dispose()
    {
        _feed.Dispose();
        _folder.Dispose();
    }

    [Theory]
    [InlineData("20260101-000000-0000")]
    [InlineData("../runs")]
    [InlineData("")]
    public void A_run_that_does_not_exist_has_said_nothing(string id)
    {
        Assert.Same(RunSnapshot.Empty, _feed.Snapshot(id));
        Assert.Empty(_feed.Events(id, 0));
        _feed.Subscribe(id, () => { }).Dispose();
    }

    [Fact]
    public void A_snapshot_tells_what_the_file_says()
    {
        _run.Write(
            new StartedEvent(1, 0, 42, "cpu"), new ProgressEvent("reading data", 0.1), Scribe.Step(1, 5), new MetricsEvent(25, 100, 250, 12.5, new Dictionary<string, double> { ["train/loss"] = 4, ["eval/loss"] = 4.5 }),
            new SampleEvent(25, "Once", " upon"), new WarningEvent("slow disk"), _run.Checkpoint(25));
        RunSnapshot told = _feed.Snapshot(_run.Id);
        Assert.Equal((7, 25, 100, 250, 12.5, 0.25, 1), (told.Sequence, told.Step, told.MaxSteps, told.Tokens, told.EtaSeconds, told.Fraction, told.Attempts));
        Assert.Null(told.Stage);
        Assert.Equal(4, told.Metrics["train/loss"]);
        Assert.Equal(4.5, told.Metrics["eval/loss"]);
        Assert.Equal(" upon", Assert.Single(told.Samples).Text);
        Assert.Equal("slow disk", Assert.Single(told.Warnings).Message);
        Assert.Equal("checkpoints/step-000000025", Assert.Single(told.Checkpoints).Path);
        Assert.Equal(DateTimeOffset.UnixEpoch.AddSeconds(1007), told.LastEvent);
    }

    [Fact]
    public void Work_without_steps_is_told_by_stage_and_part()
    {
        _run.Write(new StartedEvent(1, 0, 42, "cpu"), new ProgressEvent("writing stories", 0.4));
        Assert.Equal(("writing stories", 0.4, 0), (_feed.Snapshot(_run.Id).Stage, _feed.Snapshot(_run.Id).Fraction, _feed.Snapshot(_run.Id).MaxSteps));
        _run.Write(new EndedEvent(RunState.Completed, null));
        Assert.Equal((null, 1.0), (_feed.Snapshot(_run.Id).Stage, _feed.Snapshot(_run.Id).Fraction));
    }

    [Fact]
    public void A_resume_goes_back_to_the_step_of_its_checkpoint()
    {
        _run.Write(new StartedEvent(1, 0, 42, "cpu"), Scribe.Step(30, 3), new StartedEvent(2, 20, 43, "cpu"));
        RunSnapshot told = _feed.Snapshot(_run.Id);
        Assert.Equal((20, 0.2, 2), (told.Step, told.Fraction, told.Attempts));
    }

    [Fact]
    public void A_line_counts_once_it_is_whole_and_a_damaged_one_never()
    {
        _run.Write(Scribe.Step(1, 5));
        string whole = System.Text.Json.JsonSerializer.Serialize(_run.Number(Scribe.Step(2, 4))[0], TrainingEvent.Json);
        _run.Append("{damaged\n" + whole[..20]);
        Assert.Equal(1, _feed.Snapshot(_run.Id).Sequence);
        _run.Append(whole[20..]);
        Assert.Equal(1, _feed.Snapshot(_run.Id).Sequence);
        _run.Append("\n");
        Assert.Equal((2, 4.0), (_feed.Snapshot(_run.Id).Sequence, _feed.Snapshot(_run.Id).Metrics["train/loss"]));
    }

    [Fact]
    public void A_line_longer_than_the_buffer_is_read()
    {
        string text = new('x', 200_000);
        _run.Write(Scribe.Step(1, 5), new SampleEvent(1, "p", text), Scribe.Step(2, 4));
        Assert.Equal((3, text), (_feed.Snapshot(_run.Id).Sequence, _feed.Snapshot(_run.Id).Samples[0].Text));
    }

    [Fact]
    public void What_was_published_and_what_was_known_is_taken_once()
    {
        TrainingEvent[] first = _run.Write(Scribe.Step(1, 5), Scribe.Step(2, 4));
        _feed.Snapshot(_run.Id);
        TrainingEvent[] next = _run.Number(Scribe.Step(3, 3));
        Assert.Equal(3, _feed.Publish(_run.Id, [.. first, .. next]));
        _run.Append(next);
        Assert.Equal(3, _feed.Publish(_run.Id, next));
        Assert.Equal([1.0, 2, 3], Xs());
    }

    [Fact]
    public void A_gap_is_filled_from_the_file()
    {
        _run.Write(Scribe.Step(1, 5));
        _feed.Snapshot(_run.Id);
        _run.Write(Scribe.Step(2, 4), Scribe.Step(3, 3));
        Assert.Equal(4, _feed.Publish(_run.Id, _run.Number(Scribe.Step(4, 2))));
        Assert.Equal([1.0, 2, 3, 4], Xs());
    }

    [Fact]
    public void A_batch_that_does_not_follow_is_left_to_the_file()
    {
        _run.Write(Scribe.Step(1, 5));
        _feed.Snapshot(_run.Id);
        TrainingEvent[] lost = _run.Number(Scribe.Step(2, 4));
        TrainingEvent[] early = _run.Number(Scribe.Step(3, 3));
        Assert.Equal(1, _feed.Publish(_run.Id, early));
        _run.Append([.. lost, .. early]);
        Assert.Equal([1.0, 2, 3], Xs());
    }

    [Fact]
    public void A_file_that_was_replaced_is_read_anew()
    {
        _run.Write(Scribe.Step(1, 5), Scribe.Step(2, 4), Scribe.Step(3, 3));
        Assert.Equal(3, _feed.Snapshot(_run.Id).Sequence);
        File.Delete(_run.Folder.EventsPath);
        _run.Append([Scribe.Step(9, 1) with { Sequence = 1 }]);
        Assert.Equal((1, 9), (_feed.Snapshot(_run.Id).Sequence, _feed.Snapshot(_run.Id).Step));
    }

    [Fact]
    public void Events_come_from_memory_or_from_the_file_alike()
    {
        _run.Write([.. Enumerable.Range(1, 600).Select(i => Scribe.Step(i, i))]);
        Assert.Equal(Enumerable.Range(1, 600).Select(i => (long)i), _feed.Events(_run.Id, 0).Select(e => e.Sequence));
        Assert.Equal([599L, 600], _feed.Events(_run.Id, 598).Select(e => e.Sequence));
        Assert.Empty(_feed.Events(_run.Id, 600));
        Assert.Equal(512, _feed.Latest(_run.Id, 0).Length);
    }

    [Fact]
    public async Task A_trainer_that_cannot_reach_the_hub_is_seen_all_the_same()
    {
        int told = 0;
        using IDisposable watch = _feed.Subscribe(_run.Id, () => Interlocked.Increment(ref told));
        _run.Write(Scribe.Step(1, 5));
        await Wait.UntilAsync(() => Volatile.Read(ref told) > 0, "a call after the file grew");
        Assert.Equal(1, _feed.Snapshot(_run.Id).Sequence);
    }

    [Fact]
    public async Task Many_batches_are_told_in_few_calls_and_all_events_reach_the_hub()
    {
        int told = 0;
        List<long> fresh = [];
        _feed.Fresh += (id, events) => { lock (fresh) fresh.AddRange(events.Select(e => e.Sequence)); };
        _run.Write(Scribe.Step(1, 5));
        using IDisposable watch = _feed.Subscribe(_run.Id, () => Interlocked.Increment(ref told));
        for (int i = 2; i <= 300; i++) _feed.Publish(_run.Id, _run.Write(Scribe.Step(i, i)));
        await Wait.UntilAsync(() => { lock (fresh) return fresh.Contains(300); }, "the last event");
        Assert.InRange(told, 1, 30);
        lock (fresh) Assert.Equal(Enumerable.Range(2, 299).Select(i => (long)i), fresh);
    }

    [Fact]
    public async Task One_listener_that_fails_does_not_silence_the_others()
    {
        int told = 0;
        using IDisposable bad = _feed.Subscribe(_run.Id, () => throw new InvalidOperationException("page gone"));
        using IDisposable good = _feed.Subscribe(_run.Id, () => Interlocked.Increment(ref told));
        _run.Write(Scribe.Step(1, 5));
        await Wait.UntilAsync(() => Volatile.Read(ref told) > 0, "the second listener's call");
    }

    [Fact]
    public void A_checkpoint_that_was_deleted_is_not_shown()
    {
        _run.Write(_run.Checkpoint(10), _run.Checkpoint(20));
        Directory.Delete(Path.Combine(_run.Folder.Path, "checkpoints/step-000000010"));
        Assert.Equal([20L], _feed.Snapshot(_run.Id).Checkpoints.Select(c => c.Step));
    }

    [Fact]
    public async Task Runs_that_nobody_watches_are_forgotten_and_read_again()
    {
        using RunFeed small = new(_store) { MostRuns = 1 };
        Scribe other = new(_store), watched = new(_store);
        using IDisposable watch = small.Subscribe(watched.Id, () => { });
        foreach (Scribe scribe in new[] { _run, other })
        {
            scribe.Write(Scribe.Step(1, 5));
            Assert.Equal(1, small.Snapshot(scribe.Id).Sequence);
        }
        await Wait.UntilAsync(() => small.Held == 1, "only the watched run is held");
        Assert.Equal(1, small.Snapshot(_run.Id).Sequence);
    }

    private double[] Xs()
    {
        double[]? xs = null;
        _feed.Ask(_run.Id, (columns, _) => { xs = [.. columns.Points("train/loss", SeriesAxis.Step).Select(p => p.X)]; return 0; });
        return xs!;
    }
}
