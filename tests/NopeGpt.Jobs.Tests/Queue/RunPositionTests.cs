using System.Text.Json;
using NopeGpt.Jobs.Queue;
using NopeGpt.Tests;

namespace NopeGpt.Jobs.Tests.Queue;

public sealed class RunPositionTests : IDisposable
{
    private readonly TemporaryFolder folder = new();
    private readonly RunFolder run;

    public RunPositionTests() =>
        run = RunFolder.Create(new Store(folder.Path), new RunRecord(1, "20260101-000000-0000", DateTimeOffset.UnixEpoch, [], new RunConfig()));

    public void Dispose() => folder.Dispose();

    [Fact]
    public void A_line_that_is_being_written_is_read_when_it_is_whole()
    {
        RunPosition position = new(run);
        position.Read();
        Assert.Null(position.Done(RunKind.Pretrain));
        string line = Line(new MetricsEvent(3, 10, 300, null, new Dictionary<string, double>()) { Sequence = 2 });
        File.AppendAllText(run.EventsPath, Line(new StartedEvent(1, 0, 1, "dummy") { Sequence = 1 }) + line[..20]);
        position.Read();
        Assert.Equal((1, null), (position.Began?.Attempt, position.Metrics));
        File.AppendAllText(run.EventsPath, line[20..]);
        position.Read();
        Assert.Equal((3, 10), position.Done(RunKind.Pretrain));
    }

    [Fact]
    public void A_damaged_line_costs_only_itself_and_progress_counts_in_percent()
    {
        File.AppendAllText(run.EventsPath, Line(new ProgressEvent("a", 0.25) { Sequence = 1 }) + "{\"type\":\"progr\n\n" + Line(new ProgressEvent("b", 0.5) { Sequence = 2 }));
        RunPosition position = new(run);
        position.Read();
        Assert.Equal((50, 100), position.Done(RunKind.Prepare));
    }

    [Fact]
    public void The_end_of_an_attempt_counts_until_the_next_begins()
    {
        RunPosition position = new(run);
        File.AppendAllText(run.EventsPath, Line(new StartedEvent(1, 0, 1, "dummy") { Sequence = 1 }) + Line(new EndedEvent(RunState.Interrupted, "saved") { Sequence = 2 }));
        position.Read();
        Assert.Equal("saved", position.LastEnd?.Reason);
        File.AppendAllText(run.EventsPath, Line(new StartedEvent(2, 5, 1, "dummy") { Sequence = 3 }));
        position.Read();
        Assert.Null(position.LastEnd);
    }

    private static string Line(TrainingEvent e) => JsonSerializer.Serialize(e, TrainingEvent.Json) + "\n";
}
