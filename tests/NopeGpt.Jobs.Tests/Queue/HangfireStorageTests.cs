using System.Diagnostics;
using System.Net;
using System.Net.Sockets;
using NopeGpt.Jobs.Queue;
using NopeGpt.Tests;

namespace NopeGpt.Jobs.Tests.Queue;

[Collection(QueueTestsGroup.Name)]
public sealed class HangfireStorageTests : IDisposable
{
    private readonly TemporaryFolder folder = new();

    public void Dispose() => folder.Dispose();

    [NeedsFact(Needs.PostgreSql)]
    public async Task A_job_that_goes_through_PostgreSQL_is_executed_once()
    {
        await using PostgreSqlServer server = await PostgreSqlServer.StartAsync();
        await using QueueHarness queue = await QueueHarness.StartAsync(folder.Path, ("Jobs:Storage", "PostgreSql"), ("Jobs:ConnectionString", server.ConnectionString));
        string id = await queue.AddAsync("steps:30 delay:20");
        RunRow row = await queue.UntilAsync(id, RunState.Completed);
        Assert.Equal(1, row.Attempt);
        Assert.Single(queue.Folder(id).Events().OfType<StartedEvent>());
        await WaitFor.TrueAsync(() => queue.Service<Hangfire.JobStorage>().GetMonitoringApi().SucceededListCount() == 1, "Hangfire's own end of the job");
        Assert.Equal(0, queue.Service<Hangfire.JobStorage>().GetMonitoringApi().GetStatistics().Processing);
    }

    [Theory]
    [InlineData("Jobs:Storage", "PostgreSql", "Jobs:Storage = PostgreSql needs Jobs:ConnectionString, for example Host=localhost;Database=nopegpt;Username=nopegpt")]
    [InlineData("Jobs:Storage", "MySql", "Jobs:Storage = MySql: use InMemory or PostgreSql or Sqlite")]
    [InlineData("Jobs:OnShutdown", "1", "Jobs:OnShutdown = 1: use StopAndSave or Detach")]
    [InlineData("Jobs:StopGraceSeconds", "-1", "Jobs:StopGraceSeconds = -1: use a number of seconds from 0 to 86400")]
#if !HANGFIRE_SQLITE
    [InlineData("Jobs:Storage", "SQLite", "Jobs:Storage = SQLite: this program was built without it; build with -p:HangfireSqlite=true, or use InMemory or PostgreSql")]
#endif
    public async Task A_setting_that_cannot_be_used_is_named(string key, string value, string message) =>
        Assert.Equal(message, (await Assert.ThrowsAsync<UserException>(() => QueueHarness.StartAsync(folder.Path, (key, value)))).Message);

    [Fact]
    public async Task A_PostgreSQL_that_is_not_there_is_named()
    {
        UserException e = await Assert.ThrowsAsync<UserException>(() =>
            QueueHarness.StartAsync(folder.Path, ("Jobs:Storage", "PostgreSql"), ("Jobs:ConnectionString", $"Host={folder.Path};Username=nobody;Timeout=2")));
        Assert.StartsWith("the PostgreSQL of Jobs:ConnectionString cannot be used (", e.Message);
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
        await RunAsync(folder.Path, "pg_ctl", "--pgdata", folder["data"], "--log", folder["log"], "--wait", "--options", $"-c listen_addresses=127.0.0.1 -p {port} -k {folder.Path} -c fsync=off", "start");
        return server;
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
