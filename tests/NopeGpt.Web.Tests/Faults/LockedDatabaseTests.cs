using System.Diagnostics;
using System.Net;
using System.Net.Http.Json;
using System.Text.Json;
using Microsoft.Data.Sqlite;
using NopeGpt.Jobs;
using NopeGpt.Tests;
using NopeGpt.Web.Tests.Live;
using Xunit.Abstractions;

namespace NopeGpt.Web.Tests.Faults;

/// <summary>Another process (this one) keeps the run table's database to itself while a real dashboard works.</summary>
public sealed class LockedDatabaseTests(TrainedStore store, ITestOutputHelper output) : IClassFixture<TrainedStore>, IDisposable
{
    private static readonly TimeSpan Locked = TimeSpan.FromSeconds(31);
    private readonly TemporaryFolder _root = new();

    public void Dispose() => _root.Dispose();

    [Fact]
    public async Task Locked_for_half_a_minute_it_holds_up_no_training_and_no_page_and_nothing_is_lost()
    {
        await using DashboardProcess dashboard = await DashboardProcess.StartAsync(_root.Path);
        string long_ = await dashboard.AddAsync(store.Config with { Training = store.Config.Training with { MaxSteps = 100_000 } });
        string short_ = await dashboard.AddAsync(new RunConfig { Kind = RunKind.Prepare, Name = "ends", Prepare = new PrepareConfig { CorpusBytes = 40_000, VocabularySize = 300, Dataset = "few" } });
        (RunFolder works, RunFolder ends) = (dashboard.Folder(long_), dashboard.Folder(short_));
        await Wait.UntilAsync(() => ends.ReadIdentity() is not null, "the preparing trainer");
        ProcessSignals.Freeze(ends.ReadIdentity()!.ProcessId);
        Assert.DoesNotContain(ends.Events(), e => e is EndedEvent);
        await Wait.UntilAsync(() => works.Events().OfType<CheckpointEvent>().Any(), "a checkpoint");

        Stopwatch watch = Stopwatch.StartNew();
        long stepsBefore = works.LastSequence();
        double slowest = 0;
        Task<HttpResponseMessage> stop, add;
        using (SqliteConnection other = new($"Data Source={Path.Combine(_root.Path, "nopegpt.db")};Pooling=False"))
        {
            other.Open();
            Execute(other, "BEGIN EXCLUSIVE");
            ProcessSignals.Continue(ends.ReadIdentity()!.ProcessId);
            stop = dashboard.Http.PostAsync($"/api/runs/{long_}/stop", null);
            add = dashboard.Http.PostAsJsonAsync("/api/runs", new { kind = "prepare", name = "added meanwhile", prepare = new { dataset = "more", corpusBytes = 40_000, vocabularySize = 300 } });
            while (watch.Elapsed < Locked)
            {
                foreach (string address in (string[])["/api/runs", $"/api/runs/{long_}", "/", $"/runs/{long_}"])
                {
                    Stopwatch one = Stopwatch.StartNew();
                    using HttpResponseMessage answer = await dashboard.Http.GetAsync(address);
                    Assert.True(answer.StatusCode == HttpStatusCode.OK, $"{address} after {watch.Elapsed.TotalSeconds:0.0} s: {answer.StatusCode} {await answer.Content.ReadAsStringAsync()}\n{dashboard.Output}");
                    slowest = Math.Max(slowest, one.Elapsed.TotalSeconds);
                }
                await Task.Delay(200);
            }
            Assert.Contains(ends.Events(), e => e is EndedEvent { State: RunState.Completed });
            Assert.True(works.LastSequence() > stepsBefore + 50, "it did not train on");
            Execute(other, "ROLLBACK");
        }
        output.WriteLine($"slowest page {slowest:0.00} s; {works.LastSequence() - stepsBefore} events in {watch.Elapsed.TotalSeconds:0} s");
        Assert.True(slowest < 5, $"a page took {slowest:0.0} s");

        // Both waited until it was free again.
        using HttpResponseMessage stopped = await stop, added = await add;
        Assert.Equal((HttpStatusCode.Accepted, HttpStatusCode.Created), (stopped.StatusCode, added.StatusCode));
        await dashboard.UntilAsync(short_, RunState.Completed);
        await dashboard.UntilAsync(long_, RunState.Interrupted);
        Assert.Equal(RunState.Interrupted, works.Events().OfType<EndedEvent>().Single().State);
        await dashboard.UntilAsync((await added.Content.ReadFromJsonAsync<JsonElement>()).GetProperty("id").GetString()!, RunState.Completed);
        Assert.DoesNotContain("   at ", dashboard.Output, StringComparison.Ordinal);
    }

    [Fact]
    public async Task A_table_that_cannot_be_used_ends_the_start_with_a_sentence()
    {
        Directory.CreateDirectory(Path.Combine(_root.Path, "nopegpt.db"));
        InvalidOperationException e = await Assert.ThrowsAsync<InvalidOperationException>(() => DashboardProcess.StartAsync(_root.Path));
        Assert.Contains($"the run table {Path.Combine(_root.Path, "nopegpt.db")} cannot be used (SQLite Error 14", e.Message, StringComparison.Ordinal);
        Assert.DoesNotContain("   at ", e.Message, StringComparison.Ordinal);
    }

    [Fact]
    public async Task A_table_that_does_not_answer_is_503_with_the_reason()
    {
        await using DashboardProcess dashboard = await DashboardProcess.StartAsync(_root.Path);
        using SqliteConnection other = new($"Data Source={Path.Combine(_root.Path, "nopegpt.db")};Pooling=False");
        other.Open();
        Execute(other, "ALTER TABLE Runs RENAME TO Away");
        using HttpResponseMessage answer = await dashboard.Http.GetAsync("/api/runs");
        Execute(other, "ALTER TABLE Away RENAME TO Runs");
        JsonElement body = await answer.Content.ReadFromJsonAsync<JsonElement>();
        Assert.Equal((HttpStatusCode.ServiceUnavailable, 503), (answer.StatusCode, body.GetProperty("status").GetInt32()));
        Assert.Contains("no such table: Runs", body.GetProperty("detail").GetString(), StringComparison.Ordinal);
        Assert.DoesNotContain("   at ", dashboard.Output, StringComparison.Ordinal);
    }

    private static void Execute(SqliteConnection connection, string sql)
    {
        using SqliteCommand command = connection.CreateCommand();
        command.CommandText = sql;
        command.ExecuteNonQuery();
    }
}
