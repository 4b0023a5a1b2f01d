using Microsoft.Data.Sqlite;
using Microsoft.EntityFrameworkCore;
using Microsoft.Extensions.Logging;

namespace NopeGpt.Jobs.Queue;

/// <summary>Makes the run table's database. One of another version, or a damaged one, is put aside: the run folders make a new one
/// (docs/decisions/0002-run-table.md).</summary>
internal sealed class RunSchema(IDbContextFactory<RunTable> tables, Store store, ILogger<RunSchema> log)
{
    private const int Corrupt = 11, NotADatabase = 26;

    public async Task EnsureAsync(CancellationToken cancel)
    {
        if (await UnusableAsync(cancel).ConfigureAwait(false) is { } why)
        {
            SqliteConnection.ClearAllPools();
            string aside = store.DatabasePath + ".old";
            log.LogWarning("{Path} {Why}: it is kept as {Aside}, and the run table is made anew from the run folders", store.DatabasePath, why, aside);
            File.Move(store.DatabasePath, aside, overwrite: true);
            foreach (string part in new[] { "-wal", "-shm" }) File.Delete(store.DatabasePath + part);
        }
        await using RunTable table = await tables.CreateDbContextAsync(cancel).ConfigureAwait(false);
        await table.Database.EnsureCreatedAsync(cancel).ConfigureAwait(false);
        await table.Database.ExecuteSqlRawAsync($"PRAGMA user_version = {RunTable.SchemaVersion}", cancel).ConfigureAwait(false);
    }

    /// <summary>Why the file that is there cannot be used; null where it can, or where there is none.</summary>
    private async Task<string?> UnusableAsync(CancellationToken cancel)
    {
        if (!File.Exists(store.DatabasePath) || new FileInfo(store.DatabasePath).Length == 0) return null;
        try
        {
            await using RunTable table = await tables.CreateDbContextAsync(cancel).ConfigureAwait(false);
            int version = await table.Database.SqlQueryRaw<int>("SELECT user_version AS Value FROM pragma_user_version").SingleAsync(cancel).ConfigureAwait(false);
            if (version != RunTable.SchemaVersion) return $"has version {version}, and this program uses {RunTable.SchemaVersion}";
            _ = await table.Runs.AsNoTracking().OrderBy(r => r.Id).FirstOrDefaultAsync(cancel).ConfigureAwait(false);
            return null;
        }
        catch (SqliteException e) when (e.SqliteErrorCode is Corrupt or NotADatabase) { return "is damaged"; }
    }
}
