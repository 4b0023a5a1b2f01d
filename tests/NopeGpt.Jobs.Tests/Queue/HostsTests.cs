using System.Diagnostics;
using NopeGpt.Jobs.Queue;
using NopeGpt.Tests;

namespace NopeGpt.Jobs.Tests.Queue;

/// <summary>Several worker processes on one queue, with what can happen to them.</summary>
[Collection(QueueTestsGroup.Name)]
public sealed class HostsTests(PostgreSqlForTests database) : IDisposable
{
    private readonly TemporaryFolder folder = new();

    public void Dispose() => folder.Dispose();

    [NeedsTheory(Needs.PostgreSql)]
    [InlineData(false)]
    [InlineData(true)]
    public async Task Of_forty_runs_each_is_executed_once_though_a_worker_is_killed(bool itsTrainerToo)
    {
        await using SharedQueue queue = await SharedQueue.OpenAsync(folder.Path, await database.NewAsync());
        string wanted = await queue.AddAsync("steps:30 delay:100");
        Process first = queue.Work("first");
        RunRow working = await queue.UntilAsync(wanted, r => r is { State: RunState.Running, Step: > 0, Host: "first" }, "progress on the first host");
        for (int i = 1; i < 40; i++) await queue.AddAsync("steps:3 delay:10", i % 2 == 0 ? RunKind.Prepare : RunKind.Evaluate);
        queue.Work("second");
        first.Kill();
        if (itsTrainerToo) TrainerProcess.Adopt(working.Trainer!).Kill();
        IReadOnlyList<RunRow> rows = await queue.UntilAllCompletedAsync();
        Assert.Equal(40, rows.Count);
        Assert.All(rows, row => Assert.Equal((row.Attempt, itsTrainerToo && row.Id == wanted ? 2 : 1), (queue.Starts(row.Id), row.Attempt)));
        Assert.All(rows, row => Assert.Equal(1, queue.Folder(row.Id).Events().Count(e => e is EndedEvent { State: RunState.Completed })));
        Assert.Equal("second", rows.Single(r => r.Id == wanted).Host);
        if (!itsTrainerToo) return;
        // It went on from its last checkpoint, and no event came twice or was lost.
        TrainingEvent[] events = [.. queue.Folder(wanted).Events()];
        Assert.True(events.OfType<StartedEvent>().Last().FromStep > 0);
        Assert.Equal(Enumerable.Range(1, events.Length).Select(n => (long)n), events.Select(e => e.Sequence));
    }

    [NeedsFact(Needs.PostgreSql)]
    public async Task Two_workers_share_the_runs()
    {
        await using SharedQueue queue = await SharedQueue.OpenAsync(folder.Path, await database.NewAsync());
        for (int i = 0; i < 12; i++) await queue.AddAsync("steps:3 delay:100");
        queue.Work("first");
        queue.Work("second");
        IReadOnlyList<RunRow> rows = await queue.UntilAllCompletedAsync();
        Assert.Equal(["first", "second"], rows.Select(r => r.Host).Distinct().Order());
        Assert.All(rows, row => Assert.Equal((1, 1), (row.Attempt, queue.Starts(row.Id))));
    }

    [NeedsFact(Needs.PostgreSql)]
    public async Task A_worker_that_is_asked_to_end_saves_and_another_goes_on()
    {
        await using SharedQueue queue = await SharedQueue.OpenAsync(folder.Path, await database.NewAsync());
        string id = await queue.AddAsync("steps:40 delay:50");
        Process first = queue.Work("first");
        await queue.UntilAsync(id, r => r is { State: RunState.Running, Step: > 1 }, "progress");
        queue.Work("second");
        SharedQueue.Signal(first.Id, "TERM");
        await first.WaitForExitAsync();
        Assert.Equal(ExitCode.Done, first.ExitCode);
        RunRow row = await queue.UntilAsync(id, r => r.State == RunState.Completed, "its end");
        Assert.Equal(("second", 2), (row.Host, row.Attempt));
        TrainingEvent[] events = [.. queue.Folder(id).Events()];
        Assert.Equal(RunState.Interrupted, events.OfType<EndedEvent>().First().State);
        Assert.True(events.OfType<StartedEvent>().Last().FromStep > 1);
    }

    [NeedsTheory(Needs.PostgreSql)]
    [InlineData(StopRequest.Save, "stopped and saved at step ")]
    [InlineData(StopRequest.Kill, "killed as asked")]
    public async Task A_stop_that_is_asked_for_elsewhere_reaches_the_trainer(StopRequest request, string reason)
    {
        await using SharedQueue queue = await SharedQueue.OpenAsync(folder.Path, await database.NewAsync());
        string id = await queue.AddAsync("steps:1000 delay:20");
        queue.Work("far");
        await queue.UntilAsync(id, r => r is { State: RunState.Running, Step: > 0 }, "progress");
        await queue.Queue.StopAsync(id, request);
        Assert.StartsWith(reason, (await queue.UntilAsync(id, r => r.State == RunState.Interrupted, "its end")).Reason);
    }

    [NeedsFact(Needs.PostgreSql)]
    public async Task A_worker_that_stood_still_and_lost_its_run_ends_its_own_trainer()
    {
        await using SharedQueue queue = await SharedQueue.OpenAsync(folder.Path, await database.NewAsync(), leaseSeconds: 1);
        string id = await queue.AddAsync("steps:60 delay:100");
        Process first = queue.Work("first");
        RunRow before = await queue.UntilAsync(id, r => r is { State: RunState.Running, Step: > 0 }, "progress");
        // The whole machine stands still, and its lock on the shared folder is given up for it.
        SharedQueue.Signal(first.Id, "STOP");
        SharedQueue.Signal(before.ProcessId!.Value, "STOP");
        File.Delete(Path.Combine(queue.Folder(id).Path, "lock"));
        queue.Work("second");
        RunRow after = await queue.UntilAsync(id, r => r is { State: RunState.Running, Host: "second", Attempt: 2 }, "the second host's attempt");
        SharedQueue.Signal(first.Id, "CONT");
        await WaitFor.TrueAsync(() => !TrainerProcess.IsAlive(before.Trainer!), "the end of the first host's trainer");
        Assert.True(TrainerProcess.IsAlive(after.Trainer ?? (await queue.UntilAsync(id, r => r.Trainer is not null, "its trainer")).Trainer!));
        Assert.Equal(("second", 2), (await queue.UntilAsync(id, r => r.State == RunState.Completed, "its end")) is var row ? (row.Host, row.Attempt) : default);
    }

    [NeedsFact(Needs.PostgreSql)]
    public async Task A_trainer_whose_worker_stands_still_works_on_and_keeps_its_run()
    {
        await using SharedQueue queue = await SharedQueue.OpenAsync(folder.Path, await database.NewAsync(), leaseSeconds: 1);
        string id = await queue.AddAsync("steps:80 delay:50");
        Process first = queue.Work("first");
        RunRow before = await queue.UntilAsync(id, r => r is { State: RunState.Running, Step: > 0 }, "progress");
        queue.Work("second");
        SharedQueue.Signal(first.Id, "STOP");
        await queue.UntilAsync(id, r => r.Host == "second", "the second host watches the trainer, which is on its machine");
        SharedQueue.Signal(first.Id, "CONT");
        RunRow row = await queue.UntilAsync(id, r => r.State == RunState.Completed, "its end");
        Assert.Equal((1, 1, "second"), (row.Attempt, queue.Starts(id), row.Host));
    }

    [NeedsFact(Needs.PostgreSql)]
    public async Task A_trainer_of_another_machine_that_lost_its_worker_is_left_to_work_and_hears_of_a_stop()
    {
        await using SharedQueue queue = await SharedQueue.OpenAsync(folder.Path, await database.NewAsync(), leaseSeconds: 1);
        string id = await queue.AddAsync("steps:9 delay:10");
        // As the other machine left it: its process's number means nothing here, and its trainer holds the folder.
        await queue.Ledger.MoveAsync(id, [RunState.Queued], r => r.SetProperty(x => x.State, RunState.Running).SetProperty(x => x.Host, "gone")
            .SetProperty(x => x.LeaseOwner, "gone/1/1").SetProperty(x => x.Heartbeat, DateTimeOffset.UnixEpoch).SetProperty(x => x.Attempt, 1));
        RunFolder run = queue.Folder(id);
        run.WriteIdentity(new TrainerIdentity(Environment.ProcessId, 1) { Machine = "another" });
        using (FileStream held = run.TryLock()!)
        {
            queue.Work("here");
            await queue.UntilAsync(id, r => r.Reason == "host gone does not answer, and its trainer works on by itself", "the words");
            await queue.Queue.StopAsync(id, StopRequest.Save);
            await WaitFor.TrueAsync(() => run.ReadStop() == StopRequest.Save, "the stop");
            Assert.Equal((RunState.Stopping, "gone"), ((await queue.Queue.FindAsync(id))!.State, (await queue.Queue.FindAsync(id))!.Host));
        }
        // It was asked to stop, and has ended: no other attempt is made.
        RunRow row = await queue.UntilAsync(id, r => r.State == RunState.Interrupted, "its end");
        Assert.Equal(1, row.Attempt);
    }

    [NeedsFact(Needs.PostgreSql)]
    public async Task A_run_that_was_claimed_by_a_host_that_is_gone_waits_again()
    {
        await using SharedQueue queue = await SharedQueue.OpenAsync(folder.Path, await database.NewAsync(), leaseSeconds: 1);
        string id = await queue.AddAsync("steps:3 delay:10");
        await queue.Ledger.MoveAsync(id, [RunState.Queued], r => r.SetProperty(x => x.State, RunState.Starting).SetProperty(x => x.Host, "gone"));
        queue.Work("here");
        RunRow row = await queue.UntilAsync(id, r => r.State == RunState.Completed, "its end");
        Assert.Equal(("here", 1), (row.Host, row.Attempt));
    }

    [NeedsFact(Needs.PostgreSql)]
    public async Task Only_the_host_that_claimed_a_run_gets_its_lease()
    {
        await using SharedQueue queue = await SharedQueue.OpenAsync(folder.Path, await database.NewAsync());
        await queue.Ledger.AddAsync(new RunRow { Id = "claimed", State = RunState.Starting, Host = "mine" });
        Assert.False(await queue.Ledger.TakeLeaseAsync("claimed", "yours/1/1", DateTimeOffset.UnixEpoch));
        Assert.True(await queue.Ledger.TakeLeaseAsync("claimed", "mine/1/1", DateTimeOffset.UnixEpoch));
        Assert.False(await queue.Ledger.TakeLeaseAsync("claimed", "mine/1/1", DateTimeOffset.UnixEpoch));
    }

    [NeedsFact(Needs.PostgreSql)]
    public async Task A_storage_root_that_is_not_the_queues_is_refused_and_loses_no_run()
    {
        string connection = await database.NewAsync();
        await using SharedQueue queue = await SharedQueue.OpenAsync(folder["root"], connection);
        string id = await queue.AddAsync("steps:3");
        UserException e = await Assert.ThrowsAsync<UserException>(() => SharedQueue.OpenAsync(folder["not mounted"], connection));
        Assert.Equal($"the storage root {folder["not mounted"]} is not the one of the queue in Jobs:ConnectionString (its queue.id is missing): "
            + "mount the shared folder there, name it with --root or Storage:Root, or use another database", e.Message);
        Assert.NotNull(await queue.Queue.FindAsync(id));
        await using SharedQueue again = await SharedQueue.OpenAsync(folder["root"], connection);
    }

    [NeedsFact(Needs.PostgreSql)]
    public async Task Runs_that_are_added_and_moved_by_several_at_once_all_have_places_of_their_own()
    {
        string connection = await database.NewAsync();
        SharedQueue[] queues = [await SharedQueue.OpenAsync(folder.Path, connection), await SharedQueue.OpenAsync(folder.Path, connection)];
        string[] ids = (await Task.WhenAll(queues.SelectMany(q => Enumerable.Range(0, 20).Select(_ => Task.Run(() => q.AddAsync("steps:3")))))).ToArray();
        Random random = new(20261123);
        (string Id, QueueMove Move, int By)[] moves = [.. Enumerable.Range(0, 200).Select(n => (ids[random.Next(ids.Length)], (QueueMove)random.Next(4), n % 2))];
        bool[] done = await Task.WhenAll(moves.Select(m => Task.Run(() => queues[m.By].Ledger.ReorderAsync(m.Id, m.Move))));
        Assert.All(done, Assert.True);
        IReadOnlyList<RunRow> rows = await queues[0].Queue.ListAsync();
        Assert.Equal(ids.Order(), rows.Select(r => r.Id).Order());
        Assert.Equal(rows.Count, rows.Select(r => r.QueuePosition).Distinct().Count());
        foreach (SharedQueue queue in queues) await queue.DisposeAsync();
    }
}
