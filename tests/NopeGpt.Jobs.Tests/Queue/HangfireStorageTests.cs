using NopeGpt.Jobs.Queue;
using NopeGpt.Tests;

namespace NopeGpt.Jobs.Tests.Queue;

[Collection(QueueTestsGroup.Name)]
public sealed class HangfireStorageTests(PostgreSqlForTests database) : IDisposable
{
    private readonly TemporaryFolder folder = new();

    public void Dispose() => folder.Dispose();

    [NeedsFact(Needs.PostgreSql)]
    public async Task A_job_that_goes_through_PostgreSQL_is_executed_once()
    {
        await using QueueHarness queue = await QueueHarness.StartAsync(folder.Path, ("Jobs:Storage", "PostgreSql"), ("Jobs:ConnectionString", await database.NewAsync()));
        string id = await queue.AddAsync("steps:30 delay:20");
        RunRow row = await queue.UntilAsync(id, RunState.Completed);
        Assert.Equal(1, row.Attempt);
        Assert.Single(queue.Folder(id).Events().OfType<StartedEvent>());
        await WaitFor.TrueAsync(() => queue.Service<Hangfire.JobStorage>().GetMonitoringApi().SucceededListCount() == 1, "Hangfire's own end of the job");
        Assert.Equal(0, queue.Service<Hangfire.JobStorage>().GetMonitoringApi().GetStatistics().Processing);
    }

    [NeedsFact(Needs.PostgreSql)]
    public async Task A_job_that_takes_longer_than_its_invisibility_is_delivered_once()
    {
        await using QueueHarness queue = await QueueHarness.StartAsync(folder.Path, ("Jobs:Storage", "PostgreSql"), ("Jobs:ConnectionString", await database.NewAsync()), ("Jobs:InvisibilitySeconds", "1"));
        string id = await queue.AddAsync("steps:50 delay:100");
        Assert.Equal(1, (await queue.UntilAsync(id, RunState.Completed)).Attempt);
        Assert.Single(queue.Folder(id).Events().OfType<StartedEvent>());
        Hangfire.Storage.IMonitoringApi jobs = queue.Service<Hangfire.JobStorage>().GetMonitoringApi();
        await WaitFor.TrueAsync(() => jobs.SucceededListCount() == 1, "Hangfire's own end of the job");
        string job = Assert.Single(jobs.SucceededJobs(0, 10)).Key;
        Assert.Equal(["Enqueued", "Processing", "Succeeded"], jobs.JobDetails(job).History.Select(h => h.StateName).Reverse());
    }

    [Theory]
    [InlineData("Jobs:Storage", "PostgreSql", "Jobs:Storage = PostgreSql needs Jobs:ConnectionString, for example Host=localhost;Database=nopegpt;Username=nopegpt")]
    [InlineData("Jobs:Storage", "MySql", "Jobs:Storage = MySql: use InMemory or PostgreSql or Sqlite")]
    [InlineData("Jobs:OnShutdown", "1", "Jobs:OnShutdown = 1: use StopAndSave or Detach")]
    [InlineData("Jobs:Host", "my host", "Jobs:Host = my host: use letters, digits, - and _, at most 40, beginning with a letter or digit")]
    [InlineData("Jobs:LeaseSeconds", "0", "Jobs:LeaseSeconds = 0: use a number of seconds from 1 to 3600")]
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
