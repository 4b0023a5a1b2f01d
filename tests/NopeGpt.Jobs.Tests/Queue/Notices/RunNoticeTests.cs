using System.Text.Json;
using NopeGpt.Jobs.Queue;
using NopeGpt.Tests;

namespace NopeGpt.Jobs.Tests.Queue;

/// <summary>What of the queue is told, by whole runs of the dummy.</summary>
[Collection(QueueTestsGroup.Name)]
public sealed class RunNoticeTests : IDisposable
{
    private readonly TemporaryFolder folder = new();
    private readonly Receiver receiver = Receiver.Answering(200);

    public void Dispose()
    {
        receiver.Dispose();
        folder.Dispose();
    }

    [Fact]
    public async Task Ends_are_told_each_by_its_name_and_once()
    {
        await using QueueHarness queue = await StartAsync(("urls", "http://127.0.0.1:5080"));
        string good = await queue.AddAsync("steps:3"), bad = await queue.AddAsync($"exit:{ExitCode.BadConfiguration}"), infinite = await queue.AddAsync($"exit:{ExitCode.Diverged}");
        await queue.UntilAsync(infinite, RunState.Failed);
        await receiver.UntilAsync(3);
        JsonElement finished = Of("finished").Json, run = finished.GetProperty("run");
        Assert.Equal((good, "steps:3", "evaluate", "completed", 100L, 100L),
            (run.GetProperty("id").GetString(), run.GetProperty("name").GetString(), run.GetProperty("kind").GetString(), run.GetProperty("state").GetString(), run.GetProperty("step").GetInt64(), run.GetProperty("max_steps").GetInt64()));
        Assert.Equal(JsonValueKind.Null, run.GetProperty("reason").ValueKind);
        Assert.Equal(1.0 / 3, run.GetProperty("metrics").GetProperty("train/loss").GetDouble());
        Assert.Equal(($"http://127.0.0.1:5080/runs/{good}", Environment.MachineName, "Run steps:3 has finished"),
            (finished.GetProperty("url").GetString(), finished.GetProperty("host").GetString(), finished.GetProperty("text").GetString()));
        Assert.True(finished.GetProperty("time").GetDateTimeOffset() > DateTimeOffset.UtcNow.AddMinutes(-5));
        Assert.Equal((bad, "told to fail with 2"), (Run(Of("failed")), Of("failed").Json.GetProperty("run").GetProperty("reason").GetString()));
        Assert.Equal(infinite, Run(Of("diverged")));
        Assert.Equal(3, receiver.Taken.Count);
    }

    [Fact]
    public async Task A_failure_that_pauses_the_queue_is_told_with_that_and_a_stop_by_a_person_is_not()
    {
        await using QueueHarness queue = await StartAsync();
        string stopped = await queue.AddAsync("steps:1000 delay:20");
        await queue.UntilCheckpointAsync(stopped);
        await queue.Queue.StopAsync(stopped, StopRequest.Save);
        await queue.UntilAsync(stopped, RunState.Interrupted);
        queue.Queue.Change(stopAtFailure: true);
        string bad = await queue.AddAsync($"exit:{ExitCode.BadConfiguration}");
        await receiver.UntilAsync(2);
        Assert.Equal((bad, bad), (Run(Of("failed")), Run(Of("queue_paused"))));
        Assert.Equal(2, receiver.Taken.Count);
    }

    [Fact]
    public async Task A_crash_is_told_when_the_run_does_not_go_on_by_itself_any_more()
    {
        await using QueueHarness queue = await StartAsync(("Jobs:RetrySeconds", "0.05"), ("Jobs:Attempts", "2"));
        string id = await queue.AddAsync("steps:9 die:2 every:100");
        await queue.UntilAsync(id, RunState.Failed);
        Received one = await receiver.UntilAsync(1);
        Assert.Equal(("failed", $"{id}.2"), (one.Event, one.Id));
        // The next end of the same run is another notice.
        await queue.Queue.ResumeAsync(id);
        Assert.Equal(("failed", $"{id}.4"), ((await receiver.UntilAsync(2)).Event, receiver.Taken.ElementAt(1).Id));
    }

    [Fact]
    public async Task An_end_that_nobody_saw_is_told_at_the_next_start()
    {
        string id;
        await using (QueueHarness before = await QueueHarness.StartAsync(folder.Path, leaveTrainers: true, ("Jobs:OnShutdown", "Detach")))
        {
            id = await before.AddAsync("steps:15 delay:50");
            await before.UntilCheckpointAsync(id);
        }
        RunFolder run = RunFolder.Open(new Store(folder.Path).RunFolder(id));
        await WaitFor.TrueAsync(() => run.ReadIdentity() is { } identity && !TrainerProcess.IsAlive(identity), "the end of the trainer");
        Assert.Empty(receiver.Taken);
        await using QueueHarness after = await StartAsync();
        Received one = await receiver.UntilAsync(1);
        Assert.Equal(("finished", id), (one.Event, Run(one)));
    }

    [Fact]
    public async Task A_silent_trainer_is_told_once_as_stalled()
    {
        await using QueueHarness queue = await StartAsync();
        string first = await queue.AddAsync("steps:1", RunKind.Prepare);
        RunConfig config = QueueHarness.Config("steps:2 delay:60000 deaf", RunKind.Pretrain);
        // The run before it makes the data set, or so it says.
        string id = (await queue.Queue.AddAsync(config with { Training = config.Training with { StallMinutes = 0.01 } }, [first])).Id;
        await queue.UntilAsync(id, r => r.Reason?.StartsWith("stalled", StringComparison.Ordinal) == true, "the stall");
        Received stalled = await receiver.UntilAsync(2);
        Assert.Equal(("stalled", id, "running"), (stalled.Event, Run(stalled), stalled.Json.GetProperty("run").GetProperty("state").GetString()));
        await queue.Queue.StopAsync(id, StopRequest.Kill);
        await queue.UntilAsync(id, RunState.Interrupted);
        Assert.Equal(2, receiver.Taken.Count);
    }

    private Task<QueueHarness> StartAsync(params (string Key, string Value)[] settings) => QueueHarness.StartAsync(folder.Path, [("Notices:Webhook", receiver.Address), .. settings]);

    private Received Of(string what) => receiver.Taken.Single(t => t.Event == what);

    private static string Run(Received notice) => notice.Json.GetProperty("run").GetProperty("id").GetString()!;
}
