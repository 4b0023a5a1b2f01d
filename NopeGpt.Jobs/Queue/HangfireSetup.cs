using Hangfire;
using Hangfire.InMemory;
using Hangfire.PostgreSql;
using Hangfire.PostgreSql.Factories;
using Microsoft.Extensions.DependencyInjection;
using NopeGpt.Jobs.Queue.Hosts;

namespace NopeGpt.Jobs.Queue;

/// <summary>Hangfire as this project uses it: it wakes supervisors, one server for each slot (<see cref="DeviceServers"/>). The run table holds all that lasts.</summary>
internal static class HangfireSetup
{
    private static readonly TimeSpan Poll = TimeSpan.FromMilliseconds(250), Between = TimeSpan.FromSeconds(1);

    public static void AddTo(IServiceCollection services)
    {
        // Ours before AddHangfire: else it falls back on the one static storage of the process.
        services.AddSingleton(provider =>
        {
            // A storage logs from the beginning, and before this is made it would log to the host before this one.
            _ = provider.GetRequiredService<IGlobalConfiguration>();
            return Storage(provider.GetRequiredService<QueueOptions>());
        });
        services.AddHangfire((_, _) => { });
        services.AddHostedService<DeviceServers>();
    }

    /// <exception cref="UserException">The storage cannot be used as it is set.</exception>
    private static JobStorage Storage(QueueOptions options) => options.Storage switch
    {
        JobStorageKind.PostgreSql => PostgreSql(options.ConnectionString, options.Invisibility),
        JobStorageKind.Sqlite => Sqlite(options.ConnectionString),
        _ => new InMemoryStorage(),
    };

    private static PostgreSqlStorage PostgreSql(string connection, TimeSpan invisibility)
    {
        // Without the sliding timeout a job that takes longer than it is started again and again.
        PostgreSqlStorageOptions storage = new()
        {
            UseSlidingInvisibilityTimeout = true,
            InvisibilityTimeout = invisibility,
            QueuePollInterval = Poll,
            // A server that is not there is said at the start, not found out by a run that never begins.
            AllowDegradedModeWithoutStorage = false,
            StartupConnectionMaxRetries = 2,
            StartupConnectionBaseDelay = Between,
        };
        try
        {
            // It makes its tables, and two processes at once would be in each other's way.
            AdvisoryLock alone = AdvisoryLock.TakeAsync(connection, "hangfire", CancellationToken.None).GetAwaiter().GetResult();
            try { return new PostgreSqlStorage(new NpgsqlConnectionFactory(connection, storage), storage); }
            finally { alone.DisposeAsync().AsTask().GetAwaiter().GetResult(); }
        }
        catch (Exception e) when (SharedDatabase.IsUnusable(e)) { throw SharedDatabase.Unusable(e); }
    }

#if HANGFIRE_SQLITE
    // This storage has no sliding timeout: a long fixed one, and the lease for what is delivered twice all the same.
    private static JobStorage Sqlite(string connection) => new Hangfire.Storage.SQLite.SQLiteStorage(
        connection.Length == 0 ? throw new UserException("Jobs:Storage = SQLite needs Jobs:ConnectionString: the path of its database file") : connection,
        new Hangfire.Storage.SQLite.SQLiteStorageOptions { InvisibilityTimeout = TimeSpan.FromDays(365), QueuePollInterval = Poll });
#else
    private static JobStorage Sqlite(string connection) =>
        throw new UserException($"Jobs:Storage = SQLite{(connection.Length == 0 ? "" : $" ({connection})")}: this program was built without it; build with -p:HangfireSqlite=true, or use InMemory or PostgreSql");
#endif
}
