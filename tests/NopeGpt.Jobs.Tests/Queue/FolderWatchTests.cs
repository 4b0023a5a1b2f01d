using System.Diagnostics;
using NopeGpt.Jobs.Queue;
using NopeGpt.Tests;

namespace NopeGpt.Jobs.Tests.Queue;

/// <summary>What is done to a store's runs beside a running dashboard.</summary>
[Collection(QueueTestsGroup.Name)]
public sealed class FolderWatchTests : IDisposable
{
    private readonly TemporaryFolder folder = new();

    public void Dispose() => folder.Dispose();

    [Fact]
    public async Task A_run_that_asks_to_be_queued_is_run_by_the_dashboard_that_is_there()
    {
        await using QueueHarness queue = await QueueHarness.StartAsync(folder.Path);
        RunFolder run = Create(queue.Store, "steps:3", queued: true);
        await KnownAsync(queue, run.Id);
        await queue.UntilAsync(run.Id, RunState.Completed);
        Assert.False(run.AsksForQueue);
        Assert.Single(run.Events().OfType<StartedEvent>());
    }

    [Fact]
    public async Task A_run_that_asks_to_be_queued_is_run_by_the_next_dashboard_and_so_is_one_that_has_ended_unfinished()
    {
        RunFolder run = Create(new Store(folder.Path), "steps:3", queued: true);
        await using (QueueHarness queue = await QueueHarness.StartAsync(folder.Path))
        {
            await queue.UntilAsync(run.Id, RunState.Completed);
            string stopped = await queue.AddAsync("steps:400 delay:10");
            await queue.UntilCheckpointAsync(stopped);
            await queue.Queue.StopAsync(stopped, StopRequest.Save);
            await queue.UntilAsync(stopped, RunState.Interrupted);
            run = queue.Folder(stopped);
            run.RequestQueue();
            Assert.Equal(2, (await queue.UntilAsync(stopped, r => r is { State: RunState.Running, Attempt: 2 }, "the second attempt")).Attempt);
        }
    }

    [Fact]
    public async Task A_run_on_a_terminal_appears_keeps_the_device_and_outlives_the_dashboard()
    {
        RunFolder run;
        using Process person = new() { StartInfo = new ProcessStartInfo("/bin/sh") { RedirectStandardInput = true } };
        await using (QueueHarness queue = await QueueHarness.StartAsync(folder.Path))
        {
            run = Create(queue.Store, "by hand", queued: false);
            person.Start();
            using FileStream held = run.TryLock()!;
            run.WriteIdentity(Identity(person));
            await KnownAsync(queue, run.Id);
            RunRow row = await queue.UntilAsync(run.Id, RunState.Running);
            Assert.Equal((person.Id, queue.Service<Supervisor>().Owner), (row.ProcessId, row.LeaseOwner));
            string next = await queue.AddAsync("steps:3");
            await queue.UntilAsync(next, r => r.Reason?.StartsWith("waiting:", StringComparison.Ordinal) == true, "it waits for the device");
            await queue.StopAsync();
            Assert.False(person.HasExited);
            Assert.Equal((RunState.Running, StopRequest.None), ((await queue.Queue.FindAsync(run.Id))!.State, run.ReadStop()));
        }
        person.Kill();
        await person.WaitForExitAsync();
    }

    [Fact]
    public async Task Attempts_that_came_and_went_unseen_are_in_the_table()
    {
        await using QueueHarness queue = await QueueHarness.StartAsync(folder.Path);
        string id = await queue.AddAsync("steps:200 delay:10");
        await queue.UntilCheckpointAsync(id);
        await queue.Queue.StopAsync(id, StopRequest.Save);
        RunRow row = await queue.UntilAsync(id, RunState.Interrupted);
        RunFolder run = queue.Folder(id);
        run.RequestStop(StopRequest.None);
        using (Process trainer = Process.Start(QueueHarness.DummyPath, ["train", run.Path])) await trainer.WaitForExitAsync();
        row = await queue.UntilAsync(id, RunState.Completed);
        Assert.Equal((2, 100L), (row.Attempt, row.Step));
    }

    private static RunFolder Create(Store store, string words, bool queued)
    {
        DateTimeOffset now = DateTimeOffset.UtcNow;
        return RunFolder.Create(store, new RunRecord(1, RunFolder.NewId(now), now, [], QueueHarness.Config(words, RunKind.Evaluate)), queued);
    }

    private static TrainerIdentity Identity(Process process)
    {
        string stat = File.ReadAllText($"/proc/{process.Id}/stat");
        return new(process.Id, long.Parse(stat[(stat.LastIndexOf(')') + 2)..].Split(' ')[19]), Foreground: true);
    }

    private static async Task KnownAsync(QueueHarness queue, string id)
    {
        using CancellationTokenSource limit = new(TimeSpan.FromSeconds(20));
        while (await queue.Queue.FindAsync(id) is null) await Task.Delay(20, limit.Token);
    }
}
