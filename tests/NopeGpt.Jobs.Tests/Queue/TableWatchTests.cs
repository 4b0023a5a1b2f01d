using System.Collections.Concurrent;
using Microsoft.Data.Sqlite;
using NopeGpt.Jobs.Queue;
using NopeGpt.Tests;

namespace NopeGpt.Jobs.Tests.Queue;

/// <summary>What other processes write to the run table is seen.</summary>
[Collection(QueueTestsGroup.Name)]
public sealed class TableWatchTests(PostgreSqlForTests database) : IDisposable
{
    private readonly TemporaryFolder folder = new();

    public void Dispose() => folder.Dispose();

    [Fact]
    public async Task What_another_process_writes_to_SQLite_is_told_for_the_rows_that_differ()
    {
        await using QueueHarness queue = await QueueHarness.StartAsync(folder.Path);
        string changed = await queue.AddAsync("steps:1"), same = await queue.AddAsync("steps:1"), removed = await queue.AddAsync("steps:1");
        foreach (string id in new[] { changed, same, removed }) await queue.UntilAsync(id, RunState.Completed);
        ConcurrentDictionary<string, int> told = await QuietAsync(queue);
        Write($"UPDATE Runs SET Notes = 'from elsewhere' WHERE Id = '{changed}'");
        await WaitFor.TrueAsync(() => told.ContainsKey(changed), "the changed row");
        Write($"DELETE FROM Runs WHERE Id = '{removed}'");
        await WaitFor.TrueAsync(() => told.ContainsKey(removed), "the removed row");
        Write($"INSERT INTO Runs (Id, Name, Kind, State, Created, QueuePosition, Attempt, StopRequest, \"After\", ResumesItself, Step, MaxSteps) VALUES ('new', '', 'Evaluate', 'Completed', 1, 99, 1, 'None', '', 0, 1, 1)");
        await WaitFor.TrueAsync(() => told.ContainsKey("new"), "the new row");
        Assert.DoesNotContain(same, told.Keys);
        Assert.Equal("from elsewhere", (await queue.Queue.FindAsync(changed))!.Notes);
    }

    [NeedsFact(Needs.PostgreSql)]
    public async Task What_another_process_writes_to_PostgreSQL_is_told_for_the_rows_that_differ()
    {
        string connection = await database.NewAsync();
        await using QueueHarness queue = await QueueHarness.StartAsync(folder.Path, ("Jobs:Storage", "PostgreSql"), ("Jobs:ConnectionString", connection));
        await using SharedQueue other = await SharedQueue.OpenAsync(folder.Path, connection);
        string changed = await queue.AddAsync("steps:1"), same = await queue.AddAsync("steps:1");
        foreach (string id in new[] { changed, same }) await queue.UntilAsync(id, RunState.Completed);
        ConcurrentDictionary<string, int> told = await QuietAsync(queue);
        await other.Ledger.ChangeAsync(changed, row => row.SetProperty(r => r.Notes, "from elsewhere"));
        await WaitFor.TrueAsync(() => told.ContainsKey(changed), "the changed row");
        string added = await other.AddAsync("steps:1");
        await WaitFor.TrueAsync(() => told.ContainsKey(added), "the new row");
        Assert.DoesNotContain(same, told.Keys);
    }

    [Fact]
    public async Task A_row_that_another_process_queues_is_started_and_its_card_is_written()
    {
        await using QueueHarness queue = await QueueHarness.StartAsync(folder.Path);
        string id = await queue.AddAsync("steps:1");
        await queue.UntilAsync(id, RunState.Completed);
        Write($"UPDATE Runs SET Tags = 'seen' WHERE Id = '{id}'");
        await WaitFor.TrueAsync(() => queue.Folder(id).ReadCard().Tags is ["seen"], "the card");
    }

    private void Write(string command)
    {
        using SqliteConnection connection = new($"Data Source={new Store(folder.Path).DatabasePath};Pooling=False");
        connection.Open();
        using SqliteCommand write = connection.CreateCommand();
        write.CommandText = command;
        Assert.Equal(1, write.ExecuteNonQuery());
    }

    /// <summary>The rows that are told of from now on, once those of before have been.</summary>
    private static async Task<ConcurrentDictionary<string, int>> QuietAsync(QueueHarness queue)
    {
        ConcurrentDictionary<string, int> told = [];
        long last = TimeProvider.System.GetTimestamp();
        queue.Queue.Changed += id =>
        {
            told.AddOrUpdate(id, 1, (_, n) => n + 1);
            Volatile.Write(ref last, TimeProvider.System.GetTimestamp());
        };
        await WaitFor.TrueAsync(() => TimeProvider.System.GetElapsedTime(Volatile.Read(ref last)) > TimeSpan.FromSeconds(1.5), "a moment without changes");
        told.Clear();
        return told;
    }
}
