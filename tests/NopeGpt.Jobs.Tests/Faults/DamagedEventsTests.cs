using NopeGpt.Jobs.Training;
using NopeGpt.Tests;

namespace NopeGpt.Jobs.Tests.Faults;

/// <summary>A trainer goes on with an events.jsonl that was damaged.</summary>
public sealed class DamagedEventsTests : IDisposable
{
    private readonly TemporaryFolder folder = new();
    private readonly Store store;
    private readonly RunFolder run;

    public DamagedEventsTests()
    {
        store = new Store(folder.Path);
        run = RunFolder.Create(store, new RunRecord(RunRecord.CurrentFormat, "20260101-000000-0000", DateTimeOffset.UnixEpoch, [], new RunConfig()));
    }

    public void Dispose() => folder.Dispose();

    [Theory]
    [InlineData("{\"type\":\"metrics\",\"st", 2)]
    [InlineData("{\"type\":\"warning\",\"message\":\"whole\",\"sequence\":3}", 3)]
    [InlineData("\0\0\0\0", 2)]
    public async Task A_torn_last_line_loses_itself_only_and_its_number_is_used_again(string torn, int kept)
    {
        await WriteAsync(new StartedEvent(1, 0, 1, "cpu"), new ProgressEvent("working", 0.5));
        await File.AppendAllTextAsync(run.EventsPath, torn);
        await WriteAsync(new StartedEvent(2, 0, 1, "cpu"));
        Assert.Equal(Enumerable.Range(1, kept + 1).Select(n => (long)n), run.Events(0, _ => Assert.Fail("nothing is damaged any more")).Select(e => e.Sequence));
    }

    [Fact]
    public async Task A_line_of_garbage_is_told_once_and_the_numbers_go_on()
    {
        await WriteAsync(new StartedEvent(1, 0, 1, "cpu"));
        await File.AppendAllTextAsync(run.EventsPath, "garbage\n{\"type\":\"metrics\",\"sequence\":2}\n");
        for (int attempt = 2; attempt < 4; attempt++) await WriteAsync(new StartedEvent(attempt, 0, 1, "cpu"));
        Assert.Equal([1L, 2, 3, 4, 5], run.Events().Select(e => e.Sequence));
        Assert.Equal([$"{run.EventsPath} line 2 is damaged and left out", $"{run.EventsPath} line 3 is damaged and left out"], run.Events().OfType<WarningEvent>().Select(w => w.Message));
    }

    [Fact]
    public async Task An_empty_file_begins_with_the_first_number()
    {
        await File.WriteAllTextAsync(run.EventsPath, "");
        await WriteAsync(new StartedEvent(1, 0, 1, "cpu"));
        Assert.Equal(1, Assert.Single(run.Events()).Sequence);
    }

    private async Task WriteAsync(params TrainingEvent[] events)
    {
        await using EventWriter writer = new(run, store);
        foreach (TrainingEvent one in events) writer.Write(one);
    }
}
