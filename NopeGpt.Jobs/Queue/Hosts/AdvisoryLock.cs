using System.Buffers.Binary;
using System.Data.Common;
using System.Security.Cryptography;
using System.Text;
using Npgsql;

namespace NopeGpt.Jobs.Queue.Hosts;

/// <summary>A right that one process of all that use a PostgreSQL database has at a time. It lasts as long as its connection, which the system ends
/// with the process, and the server soon after a machine is gone.</summary>
internal sealed class AdvisoryLock : IAsyncDisposable
{
    // A machine that lost its power does not say goodbye: its connection is given up after 10 + 3 * 5 s.
    private const string Keepalive = "SET tcp_keepalives_idle = 10; SET tcp_keepalives_interval = 5; SET tcp_keepalives_count = 3";
    private const int AnswerSeconds = 10;
    private readonly NpgsqlConnection connection;

    private AdvisoryLock(NpgsqlConnection connection) => this.connection = connection;

    /// <summary>Takes the right, or gives null where another process has it.</summary>
    /// <exception cref="DbException">The server does not answer.</exception>
    public static Task<AdvisoryLock?> TryTakeAsync(string connectionString, string what, CancellationToken cancel) =>
        TakeAsync(connectionString, "SELECT pg_try_advisory_lock(@key)", what, AnswerSeconds, cancel);

    /// <summary>Waits for the right.</summary>
    /// <exception cref="DbException">The server does not answer.</exception>
    public static async Task<AdvisoryLock> TakeAsync(string connectionString, string what, CancellationToken cancel) =>
        (await TakeAsync(connectionString, "SELECT pg_advisory_lock(@key) IS NOT NULL", what, 0, cancel).ConfigureAwait(false))!;

    /// <summary>True while the connection stands, and so the right.</summary>
    public async Task<bool> StandsAsync(CancellationToken cancel)
    {
        try
        {
            await using NpgsqlCommand ask = new("SELECT 1", connection) { CommandTimeout = AnswerSeconds };
            await ask.ExecuteScalarAsync(cancel).ConfigureAwait(false);
            return true;
        }
        catch (Exception e) when (e is DbException or InvalidOperationException or IOException) { return false; }
    }

    public ValueTask DisposeAsync() => connection.DisposeAsync();

    private static async Task<AdvisoryLock?> TakeAsync(string connectionString, string question, string what, int seconds, CancellationToken cancel)
    {
        NpgsqlConnectionStringBuilder alone = new(connectionString) { Pooling = false };
        NpgsqlConnection connection = new(alone.ConnectionString);
        bool taken = false;
        try
        {
            await connection.OpenAsync(cancel).ConfigureAwait(false);
            await using (NpgsqlCommand keep = new(Keepalive, connection)) await keep.ExecuteNonQueryAsync(cancel).ConfigureAwait(false);
            await using NpgsqlCommand ask = new(question, connection) { CommandTimeout = seconds };
            ask.Parameters.AddWithValue("key", Key(what));
            taken = await ask.ExecuteScalarAsync(cancel).ConfigureAwait(false) is true;
            return taken ? new AdvisoryLock(connection) : null;
        }
        finally
        {
            if (!taken) await connection.DisposeAsync().ConfigureAwait(false);
        }
    }

    private static long Key(string what) => BinaryPrimitives.ReadInt64LittleEndian(SHA256.HashData(Encoding.UTF8.GetBytes("nopegpt " + what)));
}
