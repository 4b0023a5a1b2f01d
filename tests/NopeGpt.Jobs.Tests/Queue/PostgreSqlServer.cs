using System.Diagnostics;
using System.Net;
using System.Net.Sockets;
using Npgsql;
using NopeGpt.Tests;

namespace NopeGpt.Jobs.Tests.Queue;

/// <summary>One server for all tests of a collection, started for the first that asks, with a database for each.</summary>
public sealed class PostgreSqlForTests : IAsyncLifetime
{
    private Task<PostgreSqlServer>? server;

    public Task InitializeAsync() => Task.CompletedTask;

    /// <summary>The connection string of an empty database.</summary>
    public async Task<string> NewAsync() => await (await (server ??= PostgreSqlServer.StartAsync())).NewDatabaseAsync();

    public async Task DisposeAsync()
    {
        if (server is not null) await (await server).DisposeAsync();
    }
}

/// <summary>A PostgreSQL of a test's own: in a temporary folder, reached over a free port of the loopback, gone at the end.</summary>
internal sealed class PostgreSqlServer : IAsyncDisposable
{
    private readonly TemporaryFolder folder;
    private readonly string connection;

    private PostgreSqlServer(TemporaryFolder folder, string connection) => (this.folder, this.connection) = (folder, connection);

    public string ConnectionString => connection;

    public static async Task<PostgreSqlServer> StartAsync()
    {
        TemporaryFolder folder = new();
        // The server refuses to run as root, so its own user must be able to write here.
        if (OperatingSystem.IsLinux()) File.SetUnixFileMode(folder.Path, (UnixFileMode)0x1FF /* rwxrwxrwx */);
        int port = FreePort();
        PostgreSqlServer server = new(folder, $"Host=127.0.0.1;Port={port};Database=postgres;Username=postgres");
        await RunAsync(folder.Path, "initdb", "--pgdata", folder["data"], "--username", "postgres", "--auth", "trust", "--no-sync", "--no-instructions");
        await RunAsync(folder.Path, "pg_ctl", "--pgdata", folder["data"], "--log", folder["log"], "--wait", "--options", $"-c listen_addresses=127.0.0.1 -p {port} -k {folder.Path} -c fsync=off -c max_connections=300", "start");
        return server;
    }

    /// <summary>An empty database.</summary>
    /// <returns>Its connection string.</returns>
    public async Task<string> NewDatabaseAsync()
    {
        string name = $"test_{Guid.NewGuid():n}";
        await using NpgsqlConnection main = new(connection);
        await main.OpenAsync();
        await using NpgsqlCommand create = new($"CREATE DATABASE {name}", main);
        await create.ExecuteNonQueryAsync();
        return new NpgsqlConnectionStringBuilder(connection) { Database = name, Pooling = true, MaxPoolSize = 20 }.ConnectionString;
    }

    public async ValueTask DisposeAsync()
    {
        await RunAsync(folder.Path, "pg_ctl", "--pgdata", folder["data"], "--mode", "immediate", "--wait", "stop");
        folder.Dispose();
    }

    private static async Task RunAsync(string workingFolder, string program, params string[] arguments)
    {
        string path = Path.Combine(Needs.PostgreSqlFolder!, program);
        ProcessStartInfo info = Environment.UserName == "root" ? new("runuser", ["-u", "postgres", "--", path, .. arguments]) : new(path, arguments);
        info.WorkingDirectory = workingFolder;
        info.RedirectStandardError = true;
        using Process process = Process.Start(info)!;
        await process.WaitForExitAsync();
        if (process.ExitCode != 0) throw new InvalidOperationException($"{program} ended with {process.ExitCode}: {await process.StandardError.ReadToEndAsync()}");
    }

    private static int FreePort()
    {
        using TcpListener listener = new(IPAddress.Loopback, 0);
        listener.Start();
        return ((IPEndPoint)listener.LocalEndpoint).Port;
    }
}
