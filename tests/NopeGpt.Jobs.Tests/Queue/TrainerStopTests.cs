using System.Diagnostics;
using NopeGpt.Jobs.Queue;
using NopeGpt.Tests;

namespace NopeGpt.Jobs.Tests.Queue;

[Collection(QueueTestsGroup.Name)]
public sealed class TrainerStopTests : IDisposable
{
    private readonly TemporaryFolder folder = new();

    public void Dispose() => folder.Dispose();

    [Fact]
    public async Task Stop_saves_and_resume_goes_on_from_there()
    {
        await using QueueHarness queue = await QueueHarness.StartAsync(folder.Path);
        string id = await queue.AddAsync("steps:200 delay:25 every:1000");
        await queue.UntilAsync(id, r => r is { State: RunState.Running, Step: > 0 }, "progress");
        await queue.Queue.StopAsync(id, StopRequest.Save);
        RunRow stopped = await queue.UntilAsync(id, RunState.Interrupted);
        long step = Assert.Single(queue.Folder(id).Events().OfType<CheckpointEvent>()).Step;
        Assert.Equal($"stopped and saved at step {step}", stopped.Reason);
        await queue.Queue.ResumeAsync(id);
        RunRow done = await queue.UntilAsync(id, RunState.Completed);
        Assert.Equal(2, done.Attempt);
        Assert.Null(done.Reason);
        Assert.Equal([0, step], queue.Folder(id).Events().OfType<StartedEvent>().Select(s => s.FromStep));
    }

    [Fact]
    public async Task A_trainer_that_heeds_no_stop_is_killed_after_the_grace_period()
    {
        await using QueueHarness queue = await QueueHarness.StartAsync(folder.Path, ("Jobs:StopGraceSeconds", "0.7"));
        string id = await queue.AddAsync("steps:1000 delay:20 deaf");
        TrainerIdentity trainer = (await queue.UntilCheckpointAsync(id)).Trainer!;
        long asked = Stopwatch.GetTimestamp();
        await queue.Queue.StopAsync(id, StopRequest.Save);
        Assert.Equal(RunState.Stopping, (await queue.Queue.FindAsync(id))!.State);
        RunRow row = await queue.UntilAsync(id, RunState.Interrupted);
        Assert.InRange(Stopwatch.GetElapsedTime(asked).TotalSeconds, 0.7, 15);
        Assert.StartsWith("the trainer did not save within its time and was killed; resume to go on from step ", row.Reason);
        Assert.False(TrainerProcess.IsAlive(trainer));
    }

    [Fact]
    public async Task A_kill_does_not_wait_for_the_grace_period()
    {
        await using QueueHarness queue = await QueueHarness.StartAsync(folder.Path);
        string id = await queue.AddAsync("steps:1000 delay:20 deaf");
        await queue.UntilCheckpointAsync(id);
        await queue.Queue.StopAsync(id, StopRequest.Save);
        await queue.Queue.StopAsync(id, StopRequest.Kill);
        RunRow row = await queue.UntilAsync(id, RunState.Interrupted);
        Assert.StartsWith("killed as asked; resume to go on from step ", row.Reason);
    }

    [Fact]
    public async Task A_run_whose_trainer_is_killed_shows_as_interrupted_and_goes_on_when_asked()
    {
        await using QueueHarness queue = await QueueHarness.StartAsync(folder.Path, ("Jobs:Attempts", "0"));
        string id = await queue.AddAsync("steps:200 delay:25");
        RunRow running = await queue.UntilCheckpointAsync(id, 5);
        TrainerProcess.Adopt(running.Trainer!).Kill();
        RunRow row = await queue.UntilAsync(id, RunState.Interrupted);
        long step = queue.Folder(id).Events().OfType<CheckpointEvent>().Last().Step;
        Assert.Equal($"the trainer was killed (SIGKILL); resume to go on from step {step}", row.Reason);
        await queue.Queue.ResumeAsync(id);
        await queue.UntilAsync(id, RunState.Completed);
        Assert.Equal(step, queue.Folder(id).Events().OfType<StartedEvent>().Last().FromStep);
    }

    [Fact]
    public async Task A_run_killed_before_its_first_checkpoint_is_interrupted_and_begins_anew_when_asked()
    {
        await using QueueHarness queue = await QueueHarness.StartAsync(folder.Path, ("Jobs:Attempts", "0"));
        string id = await queue.AddAsync("steps:200 delay:40 every:1000", RunKind.Prepare);
        RunRow running = await queue.UntilAsync(id, RunState.Running);
        TrainerProcess.Adopt(running.Trainer!).Kill();
        RunRow row = await queue.UntilAsync(id, RunState.Interrupted);
        Assert.Equal("the trainer was killed (SIGKILL); resume to begin anew", row.Reason);
        await queue.Queue.ResumeAsync(id);
        await queue.UntilAsync(id, RunState.Running);
        Assert.Equal(2, (await queue.Queue.FindAsync(id))!.Attempt);
    }

    [Fact]
    public async Task A_trainer_that_is_stuck_is_reported_as_stalled_until_it_goes_on()
    {
        // In a store of its own: the harness ends whatever works in the queue's, and that would be this process.
        Store other = new(folder["other"]);
        RunFolder prepare = RunFolder.Create(other, new RunRecord(RunRecord.CurrentFormat, RunFolder.NewId(DateTimeOffset.UtcNow), DateTimeOffset.UtcNow, [],
            new RunConfig { Kind = RunKind.Prepare, Prepare = new PrepareConfig { CorpusBytes = 60_000, VocabularySize = 300, Dataset = "few" } }));
        Assert.Equal(ExitCode.Done, await NopeGpt.Jobs.Training.TrainerProcessMain.RunAsync(prepare.Path, other, false, null, default));
        await using QueueHarness queue = await QueueHarness.StartAsync(folder["root"]);
        RunConfig config = NopeGpt.Tests.Training.PreparedStore.Small(10) with { Name = "steps:2000 delay:20" };
        string id = (await queue.Queue.AddAsync(config with { Data = config.Data with { Dataset = other.DatasetTokens("few") }, Training = config.Training with { StallMinutes = 0.02 } }, [])).Id;
        RunRow running = await queue.UntilAsync(id, r => r is { State: RunState.Running, Step: > 0 }, "progress");
        Assert.Null(running.Reason);
        Signal("STOP", running.ProcessId!.Value);
        RunRow stuck = await queue.UntilAsync(id, r => r.Reason is not null, "the report");
        Assert.Equal(RunState.Running, stuck.State);
        Assert.StartsWith("stalled: no news from the trainer for ", stuck.Reason);
        Signal("CONT", running.ProcessId!.Value);
        await queue.UntilAsync(id, r => r is { State: RunState.Running, Reason: null }, "its end");
        await queue.Queue.StopAsync(id, StopRequest.Kill);
        await queue.UntilAsync(id, RunState.Interrupted);
    }

    [Fact]
    public async Task Every_failure_has_words()
    {
        await using QueueHarness queue = await QueueHarness.StartAsync(folder.Path, ("Jobs:Attempts", "0"));
        (string Words, string Reason)[] cases =
        [
            ("exit:1", "told to fail with 1"),
            ("exit:6 silent", "the disk is full or cannot be written: the dummy's last words"),
            ("exit:77 silent", "the trainer ended with exit code 77: the dummy's last words"),
        ];
        List<string> ids = [];
        foreach ((string words, _) in cases) ids.Add(await queue.AddAsync(words));
        for (int i = 0; i < cases.Length; i++) Assert.Equal(cases[i].Reason, (await queue.UntilAsync(ids[i], RunState.Failed)).Reason);
    }

    [Theory]
    [InlineData(0, null, RunState.Completed, null)]
    [InlineData(3, 7L, RunState.Interrupted, "stopped and saved at step 7")]
    [InlineData(3, null, RunState.Interrupted, "stopped before its first checkpoint")]
    [InlineData(1, 7L, RunState.Failed, "the trainer met a defect of its own: last line")]
    [InlineData(2, 7L, RunState.Failed, "the trainer cannot work with this configuration: last line")]
    [InlineData(4, 7L, RunState.Failed, "the training diverged: loss or gradient is not finite: last line")]
    [InlineData(5, 7L, RunState.Failed, "the trainer ran out of memory: last line")]
    [InlineData(134, 7L, RunState.Interrupted, "the trainer crashed (SIGABRT); resume to go on from step 7")]
    [InlineData(139, null, RunState.Failed, "the trainer crashed (SIGSEGV) before its first checkpoint; start it again")]
    [InlineData(137, null, RunState.Interrupted, "the trainer was killed (SIGKILL); resume to begin anew")]
    [InlineData(null, 7L, RunState.Interrupted, "the trainer ended without a word; resume to go on from step 7")]
    public void An_exit_code_decides_the_state(int? code, long? checkpoint, RunState state, string? reason) =>
        Assert.Equal((state, reason), new TrainerEnd(code, null, checkpoint, "last line", StopRequest.None, false).Decide());

    [Fact]
    public void The_last_words_of_a_trainer_decide_where_no_exit_code_was_seen() =>
        Assert.Equal((RunState.Failed, "its words"), new TrainerEnd(null, new EndedEvent(RunState.Failed, "its words"), 7, "", StopRequest.None, false).Decide());

    private static void Signal(string name, int process)
    {
        using Process kill = Process.Start("kill", ["-" + name, process.ToString()]);
        kill.WaitForExit();
    }
}
