using System.Data.Common;
using System.Diagnostics;
using Microsoft.Data.Sqlite;
using Microsoft.EntityFrameworkCore;
using Microsoft.EntityFrameworkCore.Metadata;
using NopeGpt.Jobs.Queue;
using NopeGpt.Tests;

namespace NopeGpt.Jobs.Tests.Queue;

/// <summary>The shape of the run table, in both databases, and how it comes about.</summary>
[Collection(QueueTestsGroup.Name)]
public sealed class RunSchemaTests(PostgreSqlForTests database) : IDisposable
{
    /// <summary>As version 0.1 made it, without migrations.</summary>
    private const string FirstVersion = """
        CREATE TABLE "Runs" (
            "Id" TEXT NOT NULL CONSTRAINT "PK_Runs" PRIMARY KEY, "Name" TEXT NOT NULL, "Kind" TEXT NOT NULL, "State" TEXT NOT NULL, "Reason" TEXT NULL,
            "Created" INTEGER NOT NULL, "Started" INTEGER NULL, "Ended" INTEGER NULL, "QueuePosition" INTEGER NOT NULL, "Attempt" INTEGER NOT NULL,
            "StopRequest" TEXT NOT NULL, "After" TEXT NOT NULL, "ResumesItself" INTEGER NOT NULL, "LeaseOwner" TEXT NULL, "ProcessId" INTEGER NULL,
            "ProcessStartTicks" INTEGER NULL, "Heartbeat" INTEGER NULL, "Step" INTEGER NOT NULL, "MaxSteps" INTEGER NOT NULL);
        CREATE INDEX "IX_Runs_State_QueuePosition" ON "Runs" ("State", "QueuePosition");
        PRAGMA journal_mode = 'wal';
        PRAGMA user_version = 1;
        """;

    private readonly TemporaryFolder folder = new();

    public void Dispose() => folder.Dispose();

    [Fact]
    public async Task The_migrations_make_the_models_table_in_SQLite()
    {
        await using QueueHarness queue = await QueueHarness.StartAsync(folder.Path);
        await using RunTable table = await queue.Service<IDbContextFactory<RunTable>>().CreateDbContextAsync();
        Assert.Equal(Model(table), await ColumnsAsync(table, "SELECT name, type, \"notnull\" = 0 FROM pragma_table_info('Runs')"));
        Assert.Equal(["wal"], await TextsAsync(table, "PRAGMA journal_mode"));
        Assert.Empty(await table.Database.GetPendingMigrationsAsync());
    }

    [NeedsFact(Needs.PostgreSql)]
    public async Task The_migrations_make_the_models_table_in_PostgreSQL()
    {
        await using SharedQueue queue = await SharedQueue.OpenAsync(folder.Path, await database.NewAsync());
        await using RunTable table = await queue.TableAsync();
        Assert.Equal(Model(table), await ColumnsAsync(table, "SELECT column_name, data_type, is_nullable = 'YES' FROM information_schema.columns WHERE table_name = 'Runs'"));
        Assert.Contains("IX_Runs_State_QueuePosition", await TextsAsync(table, "SELECT indexname FROM pg_indexes WHERE tablename = 'Runs'"));
    }

    [Fact]
    public async Task The_first_versions_database_keeps_its_rows()
    {
        Store store = new(folder.Path);
        RunFolder[] runs = MakeFirstVersion(store);
        await using QueueHarness queue = await QueueHarness.StartAsync(folder.Path);
        IReadOnlyList<RunRow> rows = await queue.Queue.ListAsync();
        Assert.Equal(runs.Select(r => r.Id), rows.Select(r => r.Id));
        // What only the old table knows.
        Assert.Equal((RunState.Failed, "out of luck", 7L, 9L, 3), (rows[0].State, rows[0].Reason, rows[0].Step, rows[0].MaxSteps, rows[0].Attempt));
        Assert.Equal((RunState.Completed, 4L), (rows[1].State, rows[1].QueuePosition));
        Assert.Equal((0, "auto", -1L, "", false), (rows[1].Priority, rows[1].Device, rows[1].BestStep, rows[1].Tags, rows[1].Held));
        Assert.False(File.Exists(store.DatabasePath + ".old"));
    }

    [Fact]
    public async Task A_lock_that_a_killed_process_left_in_SQLite_does_not_block_the_start()
    {
        Store store = new(folder.Path);
        MakeFirstVersion(store);
        Execute(store.DatabasePath, """
            CREATE TABLE "__EFMigrationsLock" ("Id" INTEGER NOT NULL CONSTRAINT "PK___EFMigrationsLock" PRIMARY KEY, "Timestamp" TEXT NOT NULL);
            INSERT INTO "__EFMigrationsLock" VALUES (1, '2026-01-01 00:00:00+00:00');
            """);
        await using QueueHarness queue = await QueueHarness.StartAsync(folder.Path).WaitAsync(TimeSpan.FromSeconds(20));
        Assert.Equal(2, (await queue.Queue.ListAsync()).Count);
    }

    [Fact]
    public async Task A_process_that_is_killed_while_it_changes_the_table_harms_nothing()
    {
        Random random = new(20261123);
        for (int round = 0; round < 4; round++)
        {
            using TemporaryFolder one = new();
            Store store = new(one.Path);
            MakeFirstVersion(store);
            using Process dashboard = Process.Start(QueueHarness.DummyPath, ["dashboard", one.Path]);
            // Its first write opens the log; then it is in the midst of it.
            await WaitFor.TrueAsync(() => File.Exists(store.DatabasePath + "-wal"), "the first write");
            int delay = random.Next(0, 60);
            await Task.Delay(delay);
            dashboard.Kill();
            await dashboard.WaitForExitAsync();
            await using QueueHarness queue = await QueueHarness.StartAsync(one.Path).WaitAsync(TimeSpan.FromSeconds(20));
            Assert.True((await queue.Queue.ListAsync()).Count == 2, $"round {round}: killed {delay} ms after the first write");
            Assert.False(File.Exists(store.DatabasePath + ".old"));
        }
    }

    [NeedsFact(Needs.PostgreSql)]
    public async Task Processes_that_are_killed_while_they_make_the_shared_table_harm_nothing()
    {
        Random random = new(20261123);
        string connection = await database.NewAsync();
        for (int round = 0; round < 3; round++)
        {
            using Process worker = Process.Start(QueueHarness.DummyPath, ["worker", folder.Path, "Jobs:Storage=PostgreSql", "Jobs:ConnectionString=" + connection]);
            await Task.Delay(random.Next(150, 900));
            worker.Kill();
            await worker.WaitForExitAsync();
        }
        await using SharedQueue queue = await SharedQueue.OpenAsync(folder.Path, connection).WaitAsync(TimeSpan.FromSeconds(20));
        await using RunTable table = await queue.TableAsync();
        Assert.Empty(await table.Database.GetPendingMigrationsAsync());
    }

    [NeedsFact(Needs.PostgreSql)]
    public async Task Several_that_make_the_shared_table_at_once_are_not_in_each_others_way()
    {
        string connection = await database.NewAsync();
        SharedQueue[] queues = await Task.WhenAll(Enumerable.Range(0, 4).Select(_ => Task.Run(() => SharedQueue.OpenAsync(folder.Path, connection))));
        string id = await queues[0].AddAsync("steps:3");
        Assert.NotNull(await queues[3].Queue.FindAsync(id));
        foreach (SharedQueue queue in queues) await queue.DisposeAsync();
    }

    [NeedsFact(Needs.PostgreSql)]
    public async Task A_shared_table_of_a_newer_program_is_refused()
    {
        string connection = await database.NewAsync();
        await using SharedQueue queue = await SharedQueue.OpenAsync(folder.Path, connection);
        await using (RunTable table = await queue.TableAsync()) await table.Database.ExecuteSqlRawAsync("INSERT INTO \"__EFMigrationsHistory\" VALUES ('29990101000000_Later', '99.0')");
        UserException e = await Assert.ThrowsAsync<UserException>(() => SharedQueue.OpenAsync(folder.Path, connection));
        Assert.Equal("the run table in PostgreSQL was changed by a newer NopeGpt (29990101000000_Later): use that version here too", e.Message);
    }

    private static RunFolder[] MakeFirstVersion(Store store)
    {
        RunFolder[] runs = [.. Enumerable.Range(1, 2).Select(n => RunFolder.Create(store, new RunRecord(1, $"20260101-00000{n}-0000", DateTimeOffset.UnixEpoch, [], QueueHarness.Config($"run {n}", RunKind.Evaluate))))];
        Execute(store.DatabasePath, FirstVersion + $"""
            INSERT INTO "Runs" VALUES ('{runs[0].Id}', 'run 1', 'Evaluate', 'Failed', 'out of luck', 1, 2, 3, 2, 3, 'None', '', 0, NULL, NULL, NULL, NULL, 7, 9);
            INSERT INTO "Runs" VALUES ('{runs[1].Id}', 'run 2', 'Evaluate', 'Completed', NULL, 1, 2, 3, 4, 1, 'None', '', 0, NULL, NULL, NULL, NULL, 9, 9);
            """);
        return runs;
    }

    private static void Execute(string path, string commands)
    {
        using SqliteConnection connection = new($"Data Source={path};Pooling=False");
        connection.Open();
        using SqliteCommand command = connection.CreateCommand();
        command.CommandText = commands;
        command.ExecuteNonQuery();
    }

    private static List<string> Model(RunTable table) =>
        [.. table.Model.FindEntityType(typeof(RunRow))!.GetProperties().Select(p => $"{p.GetColumnName()} {p.GetColumnType()} {(p.IsNullable ? "null" : "not null")}").Order(StringComparer.Ordinal)];

    private static async Task<List<string>> ColumnsAsync(RunTable table, string question)
    {
        List<string> columns = [];
        await using DbDataReader reader = await ReadAsync(table, question);
        while (await reader.ReadAsync()) columns.Add($"{reader.GetString(0)} {reader.GetString(1)} {(reader.GetBoolean(2) ? "null" : "not null")}");
        return [.. columns.Order(StringComparer.Ordinal)];
    }

    private static async Task<List<string>> TextsAsync(RunTable table, string question)
    {
        List<string> texts = [];
        await using DbDataReader reader = await ReadAsync(table, question);
        while (await reader.ReadAsync()) texts.Add(reader.GetString(0));
        return texts;
    }

    private static async Task<DbDataReader> ReadAsync(RunTable table, string question)
    {
        await table.Database.OpenConnectionAsync();
        DbCommand command = table.Database.GetDbConnection().CreateCommand();
        command.CommandText = question;
        return await command.ExecuteReaderAsync();
    }
}
