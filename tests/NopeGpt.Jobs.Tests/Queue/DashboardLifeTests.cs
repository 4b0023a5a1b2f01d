using NopeGpt.Jobs.Training;
using System.Diagnostics;
using Microsoft.Data.Sqlite;
using NopeGpt.Jobs.Queue;
using NopeGpt.Tests;

namespace NopeGpt.Jobs.Tests.Queue;

/// <summary>What a run makes of the end of its dashboard, and of the next one.</summary>
[Collection(QueueTestsGroup.Name)]
public sealed class DashboardLifeTests : IDisposable
{
    private readonly TemporaryFolder folder = new();

    public void Dispose() => folder.Dispose();

    [Fact]
    public async Task A_closing_dashboard_lets_trainers_save_and_the_next_one_goes_on_by_itself()
    {
        string id;
        await using (QueueHarness queue = await QueueHarness.StartAsync(folder.Path))
        {
            id = await queue.AddAsync("steps:200 delay:25 every:1000");
            TrainerIdentity trainer = (await queue.UntilAsync(id, r => r is { State: RunState.Running, Step: > 0 }, "progress")).Trainer!;
            await queue.StopAsync();
            Assert.False(TrainerProcess.IsAlive(trainer));
            RunRow row = (await queue.Queue.FindAsync(id))!;
            Assert.Equal((RunState.Interrupted, true), (row.State, row.ResumesItself));
            Assert.Matches(@"\Athe dashboard was closed \(stopped and saved at step \d+\); it goes on by itself when the dashboard starts again\z", row.Reason);
        }
        await using QueueHarness next = await QueueHarness.StartAsync(folder.Path);
        Assert.Equal(2, (await next.UntilAsync(id, RunState.Completed)).Attempt);
    }

    [Fact]
    public async Task A_detaching_dashboard_leaves_trainers_working_and_the_next_one_adopts_them()
    {
        string id;
        TrainerIdentity trainer;
        await using (QueueHarness queue = await QueueHarness.StartAsync(folder.Path, leaveTrainers: true, ("Jobs:OnShutdown", "Detach")))
        {
            id = await queue.AddAsync("steps:1000 delay:20");
            trainer = (await queue.UntilCheckpointAsync(id)).Trainer!;
        }
        Assert.True(TrainerProcess.IsAlive(trainer));
        await AdoptedAsync(id, trainer);
    }

    [Fact]
    public async Task A_dashboard_that_gets_SIGTERM_waits_for_a_save_that_takes_longer_than_Hangfire_would()
    {
        // A step takes longer than the second after which Hangfire cancels its jobs.
        (Process dashboard, string id, TrainerIdentity trainer) = await StartDashboardAsync("steps:1000 delay:2000");
        using (dashboard)
        {
            using Process term = Process.Start("kill", ["-TERM", dashboard.Id.ToString()]);
            await dashboard.WaitForExitAsync();
            Assert.Equal(ExitCode.Done, dashboard.ExitCode);
        }
        Assert.False(TrainerProcess.IsAlive(trainer));
        Assert.True(RunFolder.TryOpen(new Store(folder.Path), id, out RunFolder? run));
        Assert.Equal(RunState.Interrupted, run.Events().OfType<EndedEvent>().Single().State);
        await using QueueHarness next = await QueueHarness.StartAsync(folder.Path);
        Assert.Equal(2, (await next.UntilAsync(id, RunState.Running)).Attempt);
    }

    [Fact]
    public async Task A_run_outlives_the_crash_of_its_dashboard()
    {
        (Process dashboard, string id, TrainerIdentity trainer) = await StartDashboardAsync("steps:1000 delay:20");
        using (dashboard)
        {
            dashboard.Kill();
            await dashboard.WaitForExitAsync();
            Assert.True(TrainerProcess.IsAlive(trainer));
            await AdoptedAsync(id, trainer);
        }
    }

    [Fact]
    public async Task A_run_that_died_with_its_dashboard_goes_on_by_itself()
    {
        (Process dashboard, string id, TrainerIdentity trainer) = await StartDashboardAsync("steps:60 delay:20");
        using (dashboard)
        {
            dashboard.Kill();
            TrainerProcess.Adopt(trainer).Kill();
            await dashboard.WaitForExitAsync();
            await WaitFor.TrueAsync(() => !TrainerProcess.IsAlive(trainer), "the trainer's end");
        }
        await using QueueHarness next = await QueueHarness.StartAsync(folder.Path, ("Jobs:RetrySeconds", "0.1"));
        Assert.Equal(2, (await next.UntilAsync(id, RunState.Completed)).Attempt);
    }

    [Fact]
    public async Task A_run_that_completed_after_the_crash_of_its_dashboard_is_completed()
    {
        (Process dashboard, string id, TrainerIdentity trainer) = await StartDashboardAsync("steps:10 delay:30");
        using (dashboard)
        {
            dashboard.Kill();
            await dashboard.WaitForExitAsync();
        }
        await WaitFor.TrueAsync(() => !TrainerProcess.IsAlive(trainer), "the trainer's end");
        await using QueueHarness next = await QueueHarness.StartAsync(folder.Path);
        Assert.Equal(RunState.Completed, (await next.Queue.FindAsync(id))!.State);
    }

    [Fact]
    public async Task A_second_dashboard_on_the_same_store_is_refused_with_a_sentence()
    {
        await using QueueHarness first = await QueueHarness.StartAsync(folder.Path);
        UserException e = await Assert.ThrowsAsync<UserException>(() => QueueHarness.StartAsync(folder.Path));
        Assert.Equal($"another dashboard (process {Environment.ProcessId}) works on {folder.Path}: close it first, or name another folder with Storage:Root", e.Message);
    }

    [Fact]
    public async Task The_table_is_made_anew_from_the_folders()
    {
        List<RunRow> before;
        string path;
        await using (QueueHarness queue = await QueueHarness.StartAsync(folder.Path))
        {
            path = queue.Store.DatabasePath;
            string failed = await queue.AddAsync("exit:4");
            await queue.AddAsync("steps:2", RunKind.Prepare);
            string stopped = await queue.AddAsync("steps:1000 delay:20");
            await queue.UntilAsync(failed, RunState.Failed);
            await queue.UntilCheckpointAsync(stopped);
            await queue.Queue.StopAsync(stopped, StopRequest.Save);
            await queue.UntilAsync(stopped, RunState.Interrupted);
            before = [.. (await queue.Queue.ListAsync()).OrderBy(r => r.Id)];
        }
        SqliteConnection.ClearAllPools();
        File.Delete(path);
        RunFolder never = RunFolder.Create(new Store(folder.Path), new RunRecord(1, "99991231-000000-0000", DateTimeOffset.UnixEpoch, [], QueueHarness.Config("never begun", RunKind.Evaluate)));
        Directory.Move(RunFolder.Create(new Store(folder.Path), never.Read() with { Id = "half-made" }).Path, Path.Combine(folder.Path, "runs", "half-made.new"));
        await using QueueHarness next = await QueueHarness.StartAsync(folder.Path);
        List<RunRow> after = [.. (await next.Queue.ListAsync()).OrderBy(r => r.Id)];
        Assert.Equal(before.Select(r => (r.Id, r.Name, r.Kind, r.State, r.Reason, r.After, r.Step, r.MaxSteps, r.Attempt)),
            after.SkipLast(1).Select(r => (r.Id, r.Name, r.Kind, r.State, r.Reason, r.After, r.Step, r.MaxSteps, r.Attempt)));
        Assert.Equal((never.Id, RunState.Interrupted), (after[^1].Id, after[^1].State));
        Assert.Equal("it has not begun, and its place in the queue is not known any more; resume to queue it", after[^1].Reason);
        await next.Queue.ResumeAsync(never.Id);
        await next.UntilAsync(never.Id, RunState.Completed);
    }

    [Fact]
    public async Task A_run_that_completed_before_its_trainers_number_was_written_down_is_not_begun_again()
    {
        string id;
        await using (QueueHarness queue = await QueueHarness.StartAsync(folder.Path))
        {
            queue.Queue.Change(paused: true);
            id = await queue.AddAsync("steps:3");
            await queue.Service<RunLedger>().MoveAsync(id, [RunState.Queued], row => row.SetProperty(r => r.State, RunState.Starting).SetProperty(r => r.LeaseOwner, "gone/1/1").SetProperty(r => r.Attempt, 1));
            await using EventWriter events = new(queue.Folder(id), queue.Store);
            events.Write(new StartedEvent(1, 0, 1, "dummy"));
            events.Write(new EndedEvent(RunState.Completed, null));
        }
        await using QueueHarness next = await QueueHarness.StartAsync(folder.Path);
        next.Queue.Change(paused: false);
        Assert.Equal(1, (await next.UntilAsync(id, RunState.Completed)).Attempt);
    }

    [Theory]
    [InlineData("empty", false)]
    [InlineData("damaged", true)]
    [InlineData("a newer version", true)]
    public async Task A_database_that_cannot_be_used_is_put_aside_and_made_anew(string how, bool kept)
    {
        Store store = new(folder.Path);
        await using (await QueueHarness.StartAsync(folder.Path)) Assert.True(File.Exists(store.DatabasePath));
        Spoil(store.DatabasePath, how);
        RunFolder run = RunFolder.Create(store, new RunRecord(1, "20260101-000000-0000", DateTimeOffset.UnixEpoch, [], QueueHarness.Config("a run", RunKind.Evaluate)));
        await using QueueHarness next = await QueueHarness.StartAsync(folder.Path);
        Assert.Equal(run.Id, Assert.Single(await next.Queue.ListAsync()).Id);
        Assert.Equal(kept, File.Exists(store.DatabasePath + ".old"));
    }

    private static void Spoil(string path, string how)
    {
        SqliteConnection.ClearAllPools();
        switch (how)
        {
            case "empty": File.WriteAllText(path, ""); break;
            case "damaged": File.WriteAllText(path, new string('x', 9000)); break;
            default:
                using (SqliteConnection connection = new($"Data Source={path}"))
                {
                    connection.Open();
                    using SqliteCommand command = connection.CreateCommand();
                    command.CommandText = "INSERT INTO __EFMigrationsHistory VALUES ('29990101000000_Later', '99.0')";
                    command.ExecuteNonQuery();
                }
                SqliteConnection.ClearAllPools();
                break;
        }
    }

    /// <summary>A dashboard in a process of its own whose one run works and has a checkpoint.</summary>
    private async Task<(Process Dashboard, string Id, TrainerIdentity Trainer)> StartDashboardAsync(string run)
    {
        Store store = new(folder.Path);
        Process dashboard = Process.Start(QueueHarness.DummyPath, ["dashboard", folder.Path, "Run=" + run]);
        RunFolder? found = null;
        try
        {
            await WaitFor.TrueAsync(() => Directory.EnumerateDirectories(store.RunsFolder).Any(p => !p.EndsWith(".new", StringComparison.Ordinal) && RunFolder.TryOpen(store, Path.GetFileName(p), out found)), "the run's folder");
            await WaitFor.TrueAsync(() => found!.Events().OfType<CheckpointEvent>().Any(), "a checkpoint");
        }
        catch
        {
            dashboard.Kill();
            dashboard.Dispose();
            throw;
        }
        return (dashboard, found!.Id, found.ReadIdentity()!);
    }

    private async Task AdoptedAsync(string id, TrainerIdentity trainer)
    {
        await using QueueHarness next = await QueueHarness.StartAsync(folder.Path);
        RunRow row = await next.UntilAsync(id, RunState.Running);
        Assert.Equal((trainer, next.Service<Supervisor>().Owner, 1), (row.Trainer, row.LeaseOwner, row.Attempt));
        await next.Queue.StopAsync(id, StopRequest.Save);
        Assert.StartsWith("stopped and saved at step ", (await next.UntilAsync(id, RunState.Interrupted)).Reason);
        Assert.Single(next.Folder(id).Events().OfType<StartedEvent>());
    }
}
