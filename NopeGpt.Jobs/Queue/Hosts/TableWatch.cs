using System.Data.Common;
using Microsoft.Data.Sqlite;
using Microsoft.Extensions.Hosting;
using Microsoft.Extensions.Logging;
using Npgsql;

namespace NopeGpt.Jobs.Queue.Hosts;

/// <summary>Sees what other processes write to the run table, and tells this one's listeners. SQLite says by a number whether anything changed; PostgreSQL
/// gives each row a new number with each change.</summary>
internal sealed class TableWatch(RunLedger ledger, Store store, QueueOptions options, TimeProvider time, ILogger<TableWatch> log) : BackgroundService
{
    private static readonly TimeSpan LookEvery = TimeSpan.FromMilliseconds(500), LookEveryShared = TimeSpan.FromSeconds(1);

    /// <summary>Each row of SQLite's table as one text, put together by SQLite itself: a third of the time that reading the columns takes.</summary>
    private static readonly string Whole = $"SELECT Id, concat_ws(char(31), {string.Join(", ", RunTable.Columns.Select(c => $"ifnull(\"{c}\", char(30))"))}) FROM Runs";

    private Dictionary<string, long>? known;
    private DbConnection? connection;
    private long version = -1;
    private bool told;

    public override void Dispose()
    {
        connection?.Dispose();
        base.Dispose();
    }

    protected override async Task ExecuteAsync(CancellationToken stoppingToken)
    {
        using PeriodicTimer timer = new(options.IsShared ? LookEveryShared : LookEvery, time);
        do
        {
            try
            {
                await LookAsync(stoppingToken).ConfigureAwait(false);
                told = false;
            }
            catch (Exception e) when (e is DbException or IOException or InvalidOperationException or TimeoutException)
            {
                if (!told) log.LogWarning("The run table could not be looked at for changes of others: {Message}", e.Message);
                told = true;
                if (connection is not null) await connection.DisposeAsync().ConfigureAwait(false);
                (connection, version) = (null, -1);
            }
        }
        while (await timer.WaitForNextTickAsync(stoppingToken).ConfigureAwait(false));
    }

    /// <summary>Tells of the rows that differ from the last look.</summary>
    internal async Task LookAsync(CancellationToken cancel)
    {
        if (connection is null)
        {
            connection = options.IsShared
                ? new NpgsqlConnection(options.ConnectionString)
                : new SqliteConnection(new SqliteConnectionStringBuilder(RunTable.ConnectionString(store)) { Pooling = false, Mode = SqliteOpenMode.ReadOnly }.ConnectionString);
            await connection.OpenAsync(cancel).ConfigureAwait(false);
        }
        if (!options.IsShared && !await IsNewAsync(cancel).ConfigureAwait(false)) return;
        Dictionary<string, long> now = await ReadAsync(cancel).ConfigureAwait(false);
        if (known is { } before)
        {
            foreach ((string id, long mark) in now)
            {
                if (!before.Remove(id, out long old) || old != mark) ledger.Notice(id);
            }
            foreach (string gone in before.Keys) ledger.Notice(gone);
        }
        known = now;
    }

    /// <summary>The number changes with what other connections write.</summary>
    private async Task<bool> IsNewAsync(CancellationToken cancel)
    {
        await using DbCommand ask = connection!.CreateCommand();
        ask.CommandText = "PRAGMA data_version";
        long now = (long)(await ask.ExecuteScalarAsync(cancel).ConfigureAwait(false))!;
        bool isNew = now != version;
        version = now;
        return isNew;
    }

    /// <summary>A number for each row that differs where the row does.</summary>
    private async Task<Dictionary<string, long>> ReadAsync(CancellationToken cancel)
    {
        Dictionary<string, long> rows = new(known?.Count ?? 0, StringComparer.Ordinal);
        await using DbCommand read = connection!.CreateCommand();
        read.CommandText = options.IsShared ? "SELECT \"Id\", xmin::text::bigint FROM \"Runs\"" : Whole;
        await using DbDataReader reader = await read.ExecuteReaderAsync(cancel).ConfigureAwait(false);
        while (await reader.ReadAsync(cancel).ConfigureAwait(false)) rows[reader.GetString(0)] = options.IsShared ? reader.GetInt64(1) : string.GetHashCode(reader.GetString(1), StringComparison.Ordinal);
        return rows;
    }
}
