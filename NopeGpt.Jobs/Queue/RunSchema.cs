using Microsoft.Data.Sqlite;
using Microsoft.EntityFrameworkCore;
using Microsoft.EntityFrameworkCore.Infrastructure;
using Microsoft.EntityFrameworkCore.Migrations;
using Microsoft.Extensions.Logging;
using NopeGpt.Jobs.Queue.Hosts;
using NopeGpt.Jobs.Queue.Migrations;

namespace NopeGpt.Jobs.Queue;

/// <summary>Makes the run table's database, or brings it to this program's shape. A damaged one is put aside: the run folders make a new one
/// (docs/decisions/0002-run-table.md).</summary>
internal sealed class RunSchema(IDbContextFactory<RunTable> tables, Store store, QueueOptions options, SharedTable shared, ILogger<RunSchema> log)
{
    private const int Corrupt = 11, NotADatabase = 26;

    /// <summary>The caller is the only dashboard of the store; with PostgreSQL there may be workers, and one of them at a time changes the table.</summary>
    /// <exception cref="UserException">The shared table cannot be reached, is a newer program's, or belongs to another storage root.</exception>
    public async Task EnsureAsync(CancellationToken cancel)
    {
        if (options.IsShared)
        {
            try { await EnsureSharedAsync(cancel).ConfigureAwait(false); }
            catch (Exception e) when (SharedDatabase.IsUnusable(e)) { throw SharedDatabase.Unusable(e); }
            return;
        }
        if (await UnusableAsync(cancel).ConfigureAwait(false) is { } why)
        {
            SqliteConnection.ClearAllPools();
            string aside = store.DatabasePath + ".old";
            log.LogWarning("{Path} {Why}: it is kept as {Aside}, and the run table is made anew from the run folders", store.DatabasePath, why, aside);
            File.Move(store.DatabasePath, aside, overwrite: true);
            foreach (string part in new[] { "-wal", "-shm" }) File.Delete(store.DatabasePath + part);
        }
        await using RunTable table = await tables.CreateDbContextAsync(cancel).ConfigureAwait(false);
        // The file keeps the mode: who reads does not wait for who writes. EF Core sets it only for a file that it makes with its first statement.
        await table.Database.ExecuteSqlRawAsync("PRAGMA journal_mode=WAL", cancel).ConfigureAwait(false);
        if (!(await table.Database.GetPendingMigrationsAsync(cancel).ConfigureAwait(false)).Any()) return;
        await AdoptFirstVersionAsync(table, cancel).ConfigureAwait(false);
        // A process that was killed while it changed the table leaves EF Core's own lock behind, for which the next would wait for ever.
        await table.Database.ExecuteSqlRawAsync("DROP TABLE IF EXISTS \"__EFMigrationsLock\"", cancel).ConfigureAwait(false);
        await table.Database.MigrateAsync(cancel).ConfigureAwait(false);
    }

    private async Task EnsureSharedAsync(CancellationToken cancel)
    {
        await using (await shared.LockAsync("schema", cancel).ConfigureAwait(false))
        {
            await using RunTable table = await tables.CreateDbContextAsync(cancel).ConfigureAwait(false);
            IEnumerable<string> unknown = (await table.Database.GetAppliedMigrationsAsync(cancel).ConfigureAwait(false)).Except(table.Database.GetMigrations());
            if (unknown.FirstOrDefault() is { } newer) throw new UserException($"the run table in PostgreSQL was changed by a newer NopeGpt ({newer}): use that version here too");
            await table.Database.MigrateAsync(cancel).ConfigureAwait(false);
            await RootMark.MatchAsync(table, store, cancel).ConfigureAwait(false);
        }
    }

    /// <summary>Version 0.1 made the table without migrations: it is told to be the first one's.</summary>
    private static async Task AdoptFirstVersionAsync(RunTable table, CancellationToken cancel)
    {
        if ((await table.Database.GetAppliedMigrationsAsync(cancel).ConfigureAwait(false)).Any()) return;
        int there = await table.Database.SqlQueryRaw<int>("SELECT COUNT(*) AS Value FROM sqlite_master WHERE type = 'table' AND name = 'Runs'").SingleAsync(cancel).ConfigureAwait(false);
        if (there == 0) return;
        IHistoryRepository history = table.GetService<IHistoryRepository>();
        await table.Database.ExecuteSqlRawAsync(history.GetCreateIfNotExistsScript(), cancel).ConfigureAwait(false);
        await table.Database.ExecuteSqlRawAsync(history.GetInsertScript(new HistoryRow(RunsMigration.Id, ProductInfo.GetVersion())), cancel).ConfigureAwait(false);
    }

    /// <summary>Why the file that is there cannot be used; null where it can, or where there is none.</summary>
    private async Task<string?> UnusableAsync(CancellationToken cancel)
    {
        if (!File.Exists(store.DatabasePath) || new FileInfo(store.DatabasePath).Length == 0) return null;
        try
        {
            await using RunTable table = await tables.CreateDbContextAsync(cancel).ConfigureAwait(false);
            List<string> result = await table.Database.SqlQueryRaw<string>("SELECT quick_check AS Value FROM pragma_quick_check").ToListAsync(cancel).ConfigureAwait(false);
            if (result is not ["ok"]) return "is damaged";
            IEnumerable<string> unknown = (await table.Database.GetAppliedMigrationsAsync(cancel).ConfigureAwait(false)).Except(table.Database.GetMigrations());
            return unknown.FirstOrDefault() is { } newer ? $"was made by a newer NopeGpt ({newer})" : null;
        }
        catch (SqliteException e) when (e.SqliteErrorCode is Corrupt or NotADatabase) { return "is damaged"; }
    }
}
