using System.Data.Common;
using Microsoft.EntityFrameworkCore;

namespace NopeGpt.Jobs.Queue;

// One writer at a time.
internal sealed partial class RunLedger
{
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
