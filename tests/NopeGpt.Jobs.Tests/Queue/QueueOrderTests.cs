using Microsoft.Data.Sqlite;
using NopeGpt.Jobs.Queue;
using NopeGpt.Tests;

namespace NopeGpt.Jobs.Tests.Queue;

[Collection(QueueTestsGroup.Name)]
public sealed class QueueOrderTests : IDisposable
{
    private readonly TemporaryFolder folder = new();

    public void Dispose() => folder.Dispose();

    [Fact]
    public async Task Runs_start_by_priority_and_then_by_place()
    {
        await using QueueHarness queue = await QueueHarness.StartAsync(folder.Path);
        queue.Queue.Change(paused: true);
        string[] ids = await AddAsync(queue, 6);
        await queue.Queue.MoveAsync(ids[4], QueueMove.Top);
        await queue.Queue.MoveAsync(ids[0], QueueMove.Bottom);
        await queue.Queue.MoveAsync(ids[2], QueueMove.Up);
        await queue.Queue.MoveAsync(ids[1], QueueMove.Down);
        await queue.Queue.ChangeAsync(ids[5], new RunChange(Priority: 3));
        await queue.Queue.ChangeAsync(ids[3], new RunChange(Priority: -3));
        string[] wanted = [ids[5], ids[4], ids[2], ids[1], ids[0], ids[3]];
        Assert.Equal(wanted, (await queue.Queue.ListAsync()).Select(r => r.Id));
        queue.Queue.Change(paused: false);
        foreach (string id in ids) await queue.UntilAsync(id, RunState.Completed);
        Assert.Equal(wanted, Started(queue, ids));
    }

    [Fact]
    public async Task Moving_is_as_moving_in_a_list()
    {
        int seed = Random.Shared.Next();
        Random random = new(seed);
        await using QueueHarness queue = await QueueHarness.StartAsync(folder.Path);
        queue.Queue.Change(paused: true);
        List<string> list = [.. await AddAsync(queue, 7)];
        for (int i = 0; i < 60; i++)
        {
            string id = list[random.Next(list.Count)];
            QueueMove move = (QueueMove)random.Next(4);
            int at = list.IndexOf(id);
            list.RemoveAt(at);
            list.Insert(move switch { QueueMove.Up => Math.Max(0, at - 1), QueueMove.Down => Math.Min(list.Count, at + 1), QueueMove.Top => 0, _ => list.Count }, id);
            await queue.Queue.MoveAsync(id, move);
            Assert.True(list.SequenceEqual((await queue.Queue.ListAsync()).Select(r => r.Id)), $"seed {seed}, move {i}");
        }
        Assert.Equal(7, (await queue.Queue.ListAsync()).Select(r => r.QueuePosition).Distinct().Count());
    }

    [Fact]
    public async Task A_held_run_keeps_its_place_and_lets_others_go_first()
    {
        await using QueueHarness queue = await QueueHarness.StartAsync(folder.Path);
        queue.Queue.Change(paused: true);
        string[] ids = await AddAsync(queue, 2);
        await queue.Queue.ChangeAsync(ids[0], new RunChange(Held: true));
        queue.Queue.Change(paused: false);
        await queue.UntilAsync(ids[1], RunState.Completed);
        Assert.Equal((RunState.Queued, "it is held; release it to let it start"), State(await queue.UntilAsync(ids[0], r => r.Reason?.Contains("held", StringComparison.Ordinal) == true, "the reason")));
        await queue.Queue.ChangeAsync(ids[0], new RunChange(Held: false));
        await queue.UntilAsync(ids[0], RunState.Completed);
    }

    [Fact]
    public async Task A_paused_queue_starts_nothing_lets_what_works_go_on_and_stays_paused_over_a_restart()
    {
        string first, second;
        await using (QueueHarness queue = await QueueHarness.StartAsync(folder.Path))
        {
            first = await queue.AddAsync("steps:40 delay:20");
            await queue.UntilAsync(first, RunState.Running);
            queue.Queue.Change(paused: true);
            second = await queue.AddAsync("steps:1");
            await queue.UntilAsync(first, RunState.Completed);
            Assert.Equal((RunState.Queued, "the queue is paused"), State(await queue.UntilAsync(second, r => r.Reason == "the queue is paused", "the reason")));
        }
        await using QueueHarness next = await QueueHarness.StartAsync(folder.Path);
        Assert.True(next.Queue.Settings.Paused);
        Assert.Equal(RunState.Queued, (await next.Queue.FindAsync(second))!.State);
        next.Queue.Change(paused: false);
        await next.UntilAsync(second, RunState.Completed);
    }

    [Fact]
    public async Task A_failure_pauses_the_queue_only_where_that_is_wanted()
    {
        await using QueueHarness queue = await QueueHarness.StartAsync(folder.Path);
        await queue.UntilAsync(await queue.AddAsync("exit:4"), RunState.Failed);
        await queue.UntilAsync(await queue.AddAsync("steps:1"), RunState.Completed);
        queue.Queue.Change(stopAtFailure: true);
        string failing = await queue.AddAsync("exit:4 steps:3"), next = await queue.AddAsync("steps:1");
        await queue.UntilAsync(failing, RunState.Failed);
        RunRow row = await queue.UntilAsync(next, r => r.Reason is not null && r.Reason.StartsWith("the queue is paused", StringComparison.Ordinal), "the reason");
        Assert.Equal((RunState.Queued, "the queue is paused: run exit:4 steps:3 has failed"), State(row));
        queue.Queue.Change(paused: false);
        await queue.UntilAsync(next, RunState.Completed);
    }

    [Fact]
    public async Task A_run_starts_no_earlier_than_it_is_told_to()
    {
        await using QueueHarness queue = await QueueHarness.StartAsync(folder.Path);
        queue.Queue.Change(paused: true);
        string[] ids = await AddAsync(queue, 2);
        DateTimeOffset earliest = DateTimeOffset.UtcNow + TimeSpan.FromSeconds(3);
        await queue.Queue.ChangeAsync(ids[0], new RunChange(NotBefore: earliest));
        await queue.Queue.ChangeAsync(ids[1], new RunChange(NotBefore: DateTimeOffset.UtcNow + TimeSpan.FromDays(1)));
        queue.Queue.Change(paused: false);
        Assert.StartsWith("it starts no earlier than ", (await queue.UntilAsync(ids[0], r => r.Reason?.Contains("earlier", StringComparison.Ordinal) == true, "the reason")).Reason, StringComparison.Ordinal);
        RunRow row = await queue.UntilAsync(ids[0], RunState.Completed);
        Assert.True(row.Started >= earliest, $"{row.Started:O} is before {earliest:O}");
        await queue.Queue.ChangeAsync(ids[1], new RunChange(AtAnyTime: true));
        await queue.UntilAsync(ids[1], RunState.Completed);
    }

    [Fact]
    public async Task Everything_that_is_wrong_with_a_change_is_told_at_once()
    {
        await using QueueHarness queue = await QueueHarness.StartAsync(folder.Path);
        string id = await queue.AddAsync("steps:1");
        ProblemsException e = await Assert.ThrowsAsync<ProblemsException>(() => queue.Queue.ChangeAsync(id, new RunChange(Priority: 101, Tags: ["a,b", new string('x', 41)], Notes: new string('n', 10_001))));
        Assert.Equal(["priority", "tags", "tags", "notes"], e.Problems.Select(p => p.Field));
        await Assert.ThrowsAsync<UserException>(() => queue.Queue.ChangeAsync("../x", new RunChange(Held: true)));
        await Assert.ThrowsAsync<UserException>(() => queue.Queue.ChangeAsync("none", new RunChange()));
        await queue.UntilAsync(id, RunState.Completed);
        Assert.Contains("only a run that waits in the queue can be moved", (await Assert.ThrowsAsync<UserException>(() => queue.Queue.MoveAsync(id, QueueMove.Top))).Message, StringComparison.Ordinal);
    }

    [Fact]
    public async Task A_lost_database_is_made_anew_with_order_states_and_peoples_words()
    {
        string[] before;
        List<(string, RunState, int, bool, DateTimeOffset?, string, string, string)> rows;
        await using (QueueHarness queue = await QueueHarness.StartAsync(folder.Path))
        {
            string done = await queue.AddAsync("steps:1"), failed = await queue.AddAsync("exit:4");
            await queue.UntilAsync(done, RunState.Completed);
            await queue.UntilAsync(failed, RunState.Failed);
            queue.Queue.Change(paused: true);
            string[] ids = await AddAsync(queue, 5);
            await queue.Queue.StopAsync(ids[4], StopRequest.Save);
            await queue.Queue.MoveAsync(ids[3], QueueMove.Top);
            await queue.Queue.ChangeAsync(ids[1], new RunChange(Priority: 7, Tags: ["small", "first try"], Notes: "<b>not</b> bold\nsecond line"));
            await queue.Queue.ChangeAsync(ids[2], new RunChange(Held: true, NotBefore: DateTimeOffset.UnixEpoch));
            await queue.Queue.DuplicateAsync(ids[2]);
            rows = Said(await queue.Queue.ListAsync());
            before = [.. (await queue.Queue.ListAsync(RunState.Queued)).Select(r => r.Id)];
        }
        SqliteConnection.ClearAllPools();
        foreach (string file in Directory.EnumerateFiles(folder.Path, "nopegpt.db*")) File.Delete(file);
        await using QueueHarness next = await QueueHarness.StartAsync(folder.Path);
        Assert.Equal(before, (await next.Queue.ListAsync(RunState.Queued)).Select(r => r.Id));
        Assert.Equal(rows, Said(await next.Queue.ListAsync()));
        next.Queue.Change(paused: false);
        foreach (string id in before) if (!(await next.Queue.FindAsync(id))!.Held) await next.UntilAsync(id, RunState.Completed);
    }

    private static List<(string, RunState, int, bool, DateTimeOffset?, string, string, string)> Said(IReadOnlyList<RunRow> rows) =>
        [.. rows.OrderBy(r => r.Id, StringComparer.Ordinal).Select(r => (r.Id, r.State, r.Priority, r.Held, r.NotBefore, r.Tags, r.Notes, r.Parent))];

    private static (RunState, string?) State(RunRow row) => (row.State, row.Reason);

    private static async Task<string[]> AddAsync(QueueHarness queue, int count)
    {
        List<string> ids = [];
        for (int i = 0; i < count; i++) ids.Add(await queue.AddAsync("steps:1 delay:1"));
        return [.. ids];
    }

    private static IEnumerable<string> Started(QueueHarness queue, string[] ids) =>
        ids.OrderBy(id => queue.Folder(id).Events().OfType<StartedEvent>().Single().Time);
}
