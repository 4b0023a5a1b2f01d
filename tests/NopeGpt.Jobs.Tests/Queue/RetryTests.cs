using NopeGpt.Jobs.Queue;
using NopeGpt.Tests;

namespace NopeGpt.Jobs.Tests.Queue;

[Collection(QueueTestsGroup.Name)]
public sealed class RetryTests : IDisposable
{
    private readonly TemporaryFolder folder = new();

    public void Dispose() => folder.Dispose();

    [Fact]
    public async Task A_trainer_that_dies_again_and_again_but_gets_further_goes_on_to_the_end()
    {
        await using QueueHarness queue = await QueueHarness.StartAsync(folder.Path, ("Jobs:RetrySeconds", "0.05"), ("Jobs:Attempts", "2"));
        string id = await queue.AddAsync("steps:9 die:2");
        RunRow row = await queue.UntilAsync(id, RunState.Completed);
        Assert.Equal((5, 9L), (row.Attempt, row.BestStep + 1));
        Assert.Equal([0L, 2, 4, 6, 8], queue.Folder(id).Events().OfType<StartedEvent>().Select(s => s.FromStep));
    }

    [Fact]
    public async Task A_trainer_that_dies_without_getting_further_fails_after_the_attempts_that_are_set()
    {
        await using QueueHarness queue = await QueueHarness.StartAsync(folder.Path, ("Jobs:RetrySeconds", "0.05"));
        string id = await queue.AddAsync("steps:9 die:2 every:100");
        RunRow row = await queue.UntilAsync(id, RunState.Failed);
        Assert.Equal((3, "the trainer was killed (SIGKILL); 3 attempts got no further (from the beginning), so it is not tried again by itself; resume to try again"), (row.Attempt, row.Reason));
        // A person's word gives it as many again.
        await queue.Queue.ResumeAsync(id);
        Assert.Equal(6, (await queue.UntilAsync(id, r => r.State == RunState.Failed && r.Attempt > 3, "failed again")).Attempt);
    }

    [Fact]
    public async Task A_run_that_goes_on_by_itself_says_so_while_it_pauses_and_can_be_stopped_or_started_at_once()
    {
        await using QueueHarness queue = await QueueHarness.StartAsync(folder.Path, ("Jobs:RetrySeconds", "3600"));
        string id = await queue.AddAsync("steps:5 die:2");
        RunRow row = await queue.UntilAsync(id, r => r.RetryAt is not null, "a pause");
        Assert.Equal((RunState.Queued, "the trainer was killed (SIGKILL); it goes on from step 2 by itself after a pause of 10 min"), (row.State, row.Reason));
        await queue.Queue.StopAsync(id, StopRequest.Save);
        await queue.UntilAsync(id, RunState.Cancelled);
        await queue.Queue.StartAsync(id);
        await queue.UntilAsync(id, r => r.RetryAt is not null && r.Attempt == 2, "another pause");
        await queue.Queue.StartAsync(id);
        await queue.UntilAsync(id, RunState.Completed);
    }

    [Theory]
    [InlineData(ExitCode.BadConfiguration)]
    [InlineData(ExitCode.Diverged)]
    [InlineData(ExitCode.OutOfMemory)]
    [InlineData(ExitCode.DiskFull)]
    public async Task What_a_person_has_to_mend_is_not_tried_again(int code)
    {
        await using QueueHarness queue = await QueueHarness.StartAsync(folder.Path, ("Jobs:RetrySeconds", "0"));
        string id = await queue.AddAsync($"exit:{code}"), next = await queue.AddAsync("steps:1");
        await queue.UntilAsync(next, RunState.Completed);
        RunRow row = (await queue.Queue.FindAsync(id))!;
        Assert.Equal((RunState.Failed, 1), (row.State, row.Attempt));
    }

    [Fact]
    public async Task A_defect_is_tried_again()
    {
        await using QueueHarness queue = await QueueHarness.StartAsync(folder.Path, ("Jobs:RetrySeconds", "0"));
        Assert.Equal(3, (await queue.UntilAsync(await queue.AddAsync("exit:1 steps:2"), RunState.Failed)).Attempt);
    }

    [Fact]
    public void Pauses_grow_threefold_up_to_ten_minutes_and_progress_begins_them_anew()
    {
        RetryPolicy policy = new(100, TimeSpan.FromSeconds(5));
        double[] pauses = [.. Enumerable.Range(0, 7).Select(n => policy.After(n, 40, 40).Pause!.Value.TotalSeconds)];
        Assert.Equal([5, 15, 45, 135, 405, 600, 600], pauses);
        Assert.Equal(new Retry(TimeSpan.FromSeconds(5), 1, 41), policy.After(50, 40, 41));
        Assert.Equal(new Retry(TimeSpan.FromSeconds(15), 2, 40), policy.After(1, 40, null));
        Assert.Null(policy.After(99, 40, 40).Pause);
    }

    [Fact]
    public async Task A_clock_that_was_set_back_lengthens_no_pause()
    {
        string id;
        await using (QueueHarness queue = await QueueHarness.StartAsync(folder.Path, ("Jobs:RetrySeconds", "600")))
        {
            id = await queue.AddAsync("steps:4 die:2");
            await queue.UntilAsync(id, r => r.RetryAt is not null, "a pause");
            await queue.Service<RunLedger>().ChangeAsync(id, row => row.SetProperty(r => r.RetryAt, DateTimeOffset.UtcNow + TimeSpan.FromHours(1)));
            await queue.UntilAsync(id, RunState.Completed);
        }
    }
}
