using System.Data;
using System.Data.Common;
using Microsoft.EntityFrameworkCore;
using Microsoft.EntityFrameworkCore.Storage;

namespace NopeGpt.Jobs.Queue;

// One writer at a time.
internal sealed partial class RunLedger
{
    /// <summary>Any number that nothing else in the database locks.</summary>
    private const long PlacesLock = 0x4E6F_7065_4770_7400;

    private readonly SemaphoreSlim writing = new(1);

    /// <summary>The table, for one who changes it. SQLite has one writer at a time, and its driver holds a thread while it waits: where another program keeps the
    /// database to itself, one thread waits for it here and the others go on.</summary>
    /// <exception cref="RunTableBusyException">Nobody could write for as long as the driver tries.</exception>
    private async Task<Writer> WriterAsync(CancellationToken cancel)
    {
        if (!await writing.WaitAsync(RunTable.Patience, cancel).ConfigureAwait(false)) throw new RunTableBusyException();
        try { return new Writer(await tables.CreateDbContextAsync(cancel).ConfigureAwait(false), writing); }
        catch
        {
            writing.Release();
            throw;
        }
    }

    /// <summary>A transaction in which nobody else, in whatever process, gives out places.</summary>
    private static async Task<IDbContextTransaction> OrderAsync(RunTable table, CancellationToken cancel)
    {
        // SQLite's serializable transaction is its one writer from the beginning. PostgreSQL's would fail where two meet: there one waits for the other.
        bool shared = table.Database.IsNpgsql();
        IDbContextTransaction transaction = await table.Database.BeginTransactionAsync(shared ? IsolationLevel.ReadCommitted : IsolationLevel.Serializable, cancel).ConfigureAwait(false);
        try
        {
            if (shared) await table.Database.ExecuteSqlAsync($"SELECT pg_advisory_xact_lock({PlacesLock})", cancel).ConfigureAwait(false);
            return transaction;
        }
        catch
        {
            await transaction.DisposeAsync().ConfigureAwait(false);
            throw;
        }
    }

    private sealed class Writer(RunTable table, SemaphoreSlim turn) : IAsyncDisposable
    {
        public RunTable Table => table;

        public async ValueTask DisposeAsync()
        {
            try { await table.DisposeAsync().ConfigureAwait(false); }
            finally { turn.Release(); }
        }
    }
}

/// <summary>The run table cannot be written just now.</summary>
internal sealed class RunTableBusyException() : DbException("another program keeps the run table's database to itself");
