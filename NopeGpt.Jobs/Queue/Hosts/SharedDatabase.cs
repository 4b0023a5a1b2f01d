using System.Data.Common;
using Npgsql;

namespace NopeGpt.Jobs.Queue.Hosts;

/// <summary>What goes wrong with the PostgreSQL of Jobs:ConnectionString, in words. The string itself is never shown: it may hold a password.</summary>
internal static class SharedDatabase
{
    public static bool IsUnusable(Exception e) => e is DbException or ArgumentException or InvalidOperationException or TimeoutException;

    public static UserException Unusable(Exception e) =>
        new($"the PostgreSQL of Jobs:ConnectionString cannot be used ({e.GetBaseException().Message.TrimEnd('.')}): start it, correct the connection string, or set Jobs:Storage to InMemory");

    /// <exception cref="UserException">It is missing or no connection string.</exception>
    public static void Check(string connectionString)
    {
        if (string.IsNullOrWhiteSpace(connectionString)) throw new UserException("Jobs:Storage = PostgreSql needs Jobs:ConnectionString, for example Host=localhost;Database=nopegpt;Username=nopegpt");
        try { _ = new NpgsqlConnectionStringBuilder(connectionString); }
        catch (ArgumentException e)
        {
            throw new UserException($"Jobs:ConnectionString is no connection string of PostgreSQL ({e.Message.TrimEnd('.')}): write it as Host=localhost;Database=nopegpt;Username=nopegpt");
        }
    }
}
