using System.Net;
using System.Text;
using System.Text.Json;
using NopeGpt.Jobs;
using NopeGpt.Jobs.Queue;
using NopeGpt.Web.Tests.Live;

namespace NopeGpt.Web.Tests.Api;

/// <summary>The queue over HTTP: order, people's words, copies, the trash.</summary>
[Collection("dashboard")]
public sealed class QueueApiTests(DashboardFixture dashboard) : IAsyncLifetime
{
    private readonly List<string> _added = [];

    private RunQueue Queue => dashboard.Service<RunQueue>();

    public Task InitializeAsync()
    {
        Queue.Change(paused: true);
        return Task.CompletedTask;
    }

    public async Task DisposeAsync()
    {
        foreach (string id in _added.Where(id => Queue.FindAsync(id).Result is not null)) await Queue.DeleteAsync(id, evenIfNeeded: true);
        Queue.Change(paused: false, stopAtFailure: false);
    }

    [Fact]
    public async Task Waiting_runs_are_moved_and_say_their_place()
    {
        string[] ids = [await AddAsync(), await AddAsync(), await AddAsync()];
        Assert.Equal((HttpStatusCode.OK, 1), await MoveAsync(ids[2], """{"to": "top"}"""));
        Assert.Equal((HttpStatusCode.OK, 2), await MoveAsync(ids[2], """{"to": "down"}"""));
        Assert.Equal((HttpStatusCode.OK, 3), await MoveAsync(ids[0], """{"to": "bottom"}"""));
        Assert.Equal((HttpStatusCode.OK, 2), await MoveAsync(ids[0], """{"to": "up"}"""));
        (_, JsonElement list) = await dashboard.SendAsync(HttpMethod.Get, "/api/runs?state=queued");
        Assert.Equal([ids[2], ids[0], ids[1]], list.EnumerateArray().Select(r => r.GetProperty("id").GetString()).Where(ids.Contains));
        (HttpResponseMessage started, JsonElement first) = await PostAsync($"/api/runs/{ids[1]}/start", "");
        Assert.Equal((HttpStatusCode.OK, 1), (started.StatusCode, first.GetProperty("queuePlace").GetInt32()));
    }

    [Fact]
    public async Task What_people_say_of_a_run_is_changed_and_shown()
    {
        string id = await AddAsync();
        (HttpResponseMessage answer, JsonElement run) = await PatchAsync(id, """{"priority": -3, "held": true, "not_before": "2100-01-02T03:04:05+01:00", "tags": ["a", " b ", "A"], "notes": "<b>\n"}""");
        Assert.Equal(HttpStatusCode.OK, answer.StatusCode);
        Assert.Equal((-3, true, "2100-01-02T02:04:05+00:00", "<b>\n"), (run.GetProperty("priority").GetInt32(), run.GetProperty("held").GetBoolean(), run.GetProperty("notBefore").GetString(), run.GetProperty("notes").GetString()));
        Assert.Equal(["a", "b"], run.GetProperty("tags").EnumerateArray().Select(t => t.GetString()));
        Assert.True(run.GetProperty("sizeBytes").GetInt64() > 0);
        foreach (string name in new[] { "group", "parent", "parentStep", "attempt", "retryAt", "device", "devices" }) Assert.True(run.TryGetProperty(name, out _), name);
        // null takes the time back, what is left out stays.
        (_, run) = await PatchAsync(id, """{"notBefore": null, "held": false}""");
        Assert.Equal((JsonValueKind.Null, false, -3), (run.GetProperty("notBefore").ValueKind, run.GetProperty("held").GetBoolean(), run.GetProperty("priority").GetInt32()));
    }

    [Fact]
    public async Task A_copy_has_the_settings_of_the_first_but_for_the_changes()
    {
        string id = await AddAsync();
        (HttpResponseMessage answer, JsonElement made) = await PostAsync($"/api/runs/{id}/duplicate", """{"changes": {"name": "again", "prepare": {"corpus_bytes": 30000}}}""");
        Assert.Equal(HttpStatusCode.Created, answer.StatusCode);
        string copy = made.GetProperty("id").GetString()!;
        _added.Add(copy);
        Assert.Equal($"/api/runs/{copy}", answer.Headers.Location!.OriginalString);
        (_, JsonElement run) = await dashboard.SendAsync(HttpMethod.Get, $"/api/runs/{copy}");
        Assert.Equal((id, "again", 30_000), (run.GetProperty("parent").GetString(), run.GetProperty("name").GetString(), run.GetProperty("config").GetProperty("prepare").GetProperty("corpus_bytes").GetInt32()));
        (answer, made) = await PostAsync($"/api/runs/{id}/duplicate", """{"changes": {"prepare": {"corpus_bites": 1}, "seed": "x"}}""");
        Assert.Equal((HttpStatusCode.BadRequest, 2), (answer.StatusCode, made.GetProperty("problems").GetArrayLength()));
        (answer, _) = await PostAsync($"/api/runs/{id}/fork", "");
        Assert.Equal(HttpStatusCode.Conflict, answer.StatusCode);
    }

    [Fact]
    public async Task A_checkpoint_is_pinned_and_forked_from()
    {
        Scribe scribe = new(dashboard.Store, new RunConfig { Kind = RunKind.Pretrain, Name = "trained", Data = new DataConfig { Dataset = "stories" }, Training = new TrainingConfig { MaxSteps = 100 } });
        scribe.Write(new StartedEvent(1, 0, 1, "cpu"), Scribe.Step(50, 2), scribe.Checkpoint(50));
        string folder = Path.Combine(scribe.Folder.CheckpointsPath, "step-000000050");
        await File.WriteAllTextAsync(Path.Combine(folder, "model.safetensors"), new string('w', 1000));
        RunRow row = await KnownAsync(scribe.Id);
        (HttpResponseMessage answer, JsonElement run) = await PostAsync($"/api/runs/{row.Id}/pin", """{"step": 50, "pinned": true}""");
        Assert.Equal(HttpStatusCode.OK, answer.StatusCode);
        JsonElement checkpoint = Assert.Single(run.GetProperty("checkpoints").EnumerateArray());
        Assert.Equal((50, true, "checkpoints/step-000000050"), (checkpoint.GetProperty("step").GetInt64(), checkpoint.GetProperty("pinned").GetBoolean(), checkpoint.GetProperty("path").GetString()));
        Assert.InRange(checkpoint.GetProperty("bytes").GetInt64(), 1000, 2000);
        (_, run) = await PostAsync($"/api/runs/{row.Id}/pin", """{"step": 50, "pinned": false}""");
        Assert.False(run.GetProperty("checkpoints")[0].GetProperty("pinned").GetBoolean());
        (answer, _) = await PostAsync($"/api/runs/{row.Id}/pin", """{"step": 51}""");
        Assert.Equal(HttpStatusCode.Conflict, answer.StatusCode);
        (answer, JsonElement wrong) = await PostAsync($"/api/runs/{row.Id}/fork", """{"step": 50, "changes": {"training": {"max_steps": 40}, "seed": 5}}""");
        Assert.Equal(HttpStatusCode.BadRequest, answer.StatusCode);
        Assert.Equal(["seed", "training.max_steps"], wrong.GetProperty("problems").EnumerateArray().Select(p => p.GetProperty("field").GetString()).Order());
    }

    [Fact]
    public async Task A_deleted_run_lies_in_the_trash_and_comes_back()
    {
        string id = await AddAsync();
        using (HttpResponseMessage deleted = await dashboard.Http.DeleteAsync($"/api/runs/{id}")) Assert.Equal(HttpStatusCode.NoContent, deleted.StatusCode);
        Assert.False(Directory.Exists(dashboard.Store.RunFolder(id)));
        (HttpResponseMessage gone, _) = await dashboard.SendAsync(HttpMethod.Get, $"/api/runs/{id}");
        Assert.Equal(HttpStatusCode.NotFound, gone.StatusCode);
        (_, JsonElement trash) = await dashboard.SendAsync(HttpMethod.Get, "/api/trash");
        Assert.Contains(trash.EnumerateArray(), t => t.GetProperty("id").GetString() == id && t.GetProperty("sizeBytes").GetInt64() > 0);
        (HttpResponseMessage back, JsonElement run) = await PostAsync($"/api/runs/{id}/restore", "");
        Assert.Equal((HttpStatusCode.OK, id), (back.StatusCode, run.GetProperty("id").GetString()));
        (back, _) = await PostAsync($"/api/runs/{id}/restore", "");
        Assert.Equal(HttpStatusCode.NotFound, back.StatusCode);
    }

    [Fact]
    public async Task A_run_that_others_need_is_deleted_by_force_only()
    {
        string id = await AddAsync();
        RunRow waits = await Queue.AddAsync(new RunConfig { Kind = RunKind.Prepare, Name = "waits", Prepare = new PrepareConfig { Dataset = "waits" } }, [id]);
        _added.Add(waits.Id);
        (HttpResponseMessage answer, JsonElement why) = await dashboard.SendAsync(HttpMethod.Delete, $"/api/runs/{id}");
        Assert.Equal(HttpStatusCode.Conflict, answer.StatusCode);
        Assert.Contains("run waits waits for it", why.GetProperty("detail").GetString(), StringComparison.Ordinal);
        using HttpResponseMessage forced = await dashboard.Http.DeleteAsync($"/api/runs/{id}?force=true");
        Assert.Equal(HttpStatusCode.NoContent, forced.StatusCode);
    }

    [Fact]
    public async Task The_whole_queue_is_paused_and_goes_on()
    {
        (HttpResponseMessage answer, JsonElement queue) = await PutAsync("""{"paused": true, "stop_at_failure": true}""");
        Assert.Equal((HttpStatusCode.OK, true, true), (answer.StatusCode, queue.GetProperty("paused").GetBoolean(), queue.GetProperty("stop_at_failure").GetBoolean()));
        (_, queue) = await PutAsync(queue.GetRawText().Replace("\"paused\":true", "\"paused\":false", StringComparison.Ordinal));
        Assert.Equal((false, true), (queue.GetProperty("paused").GetBoolean(), queue.GetProperty("stop_at_failure").GetBoolean()));
        (_, JsonElement read) = await dashboard.SendAsync(HttpMethod.Get, "/api/queue");
        Assert.Equal(queue.GetRawText(), read.GetRawText());
    }

    [Theory]
    [InlineData("PATCH", "", """{"priority": 1000, "held": "yes", "not_before": "soon", "tags": "a", "notes": 3, "colour": 1}""", "colour,priority,held,not_before,tags,notes")]
    [InlineData("PATCH", "", """{"priority": 1.5}""", "priority")]
    [InlineData("PATCH", "", """{"priority": 1e99}""", "priority")]
    [InlineData("PATCH", "", """{"tags": [1]}""", "tags")]
    [InlineData("PATCH", "", """{"tags": ["a,b"], "notes": "a\u0000"}""", "tags,notes")]
    [InlineData("PATCH", "", """{"notBefore": null, "not_before": null}""", "not_before")]
    [InlineData("PATCH", "", "[]", "body")]
    [InlineData("PATCH", "", "", "body")]
    [InlineData("POST", "/move", """{"to": "left"}""", "to")]
    [InlineData("POST", "/move", """{"to": 1}""", "to")]
    [InlineData("POST", "/move", "", "to")]
    [InlineData("POST", "/move", """{"too": "up"}""", "too")]
    [InlineData("POST", "/pin", """{"pinned": "x"}""", "pinned,step")]
    [InlineData("POST", "/pin", """{"step": -1}""", "step")]
    [InlineData("POST", "/pin", """{"step": null}""", "step")]
    [InlineData("POST", "/fork", """{"step": "5", "changes": []}""", "step,changes")]
    [InlineData("POST", "/duplicate", """{"step": 5}""", "step")]
    public async Task Everything_wrong_with_a_request_is_told_at_once(string method, string command, string text, string fields)
    {
        string id = await AddAsync();
        (HttpResponseMessage answer, JsonElement body) = await dashboard.SendAsync(new HttpMethod(method), $"/api/runs/{id}{command}", new StringContent(text, Encoding.UTF8, "application/json"));
        Assert.Equal((HttpStatusCode.BadRequest, "application/problem+json"), (answer.StatusCode, answer.Content.Headers.ContentType!.MediaType));
        Assert.Equal(fields.Split(','), body.GetProperty("problems").EnumerateArray().Select(p => p.GetProperty("field").GetString()));
    }

    [Theory]
    [InlineData("none")]
    [InlineData("CON")]
    [InlineData("..%2f..%2fetc")]
    [InlineData("%2e%2e%2fx")]
    [InlineData("a%0ab")]
    [InlineData("nopegpt.db")]
    public async Task What_is_no_run_stays_as_it_is(string id)
    {
        foreach ((string method, string command, string body) in new[]
        {
            ("PATCH", "", """{"held": true}"""), ("DELETE", "?force=true", ""), ("POST", "/move", """{"to": "up"}"""), ("POST", "/start", ""), ("POST", "/fork", ""), ("POST", "/duplicate", ""),
            ("POST", "/pin", """{"step": 1}"""), ("POST", "/restore", ""),
        })
        {
            (HttpResponseMessage answer, JsonElement problem) = await dashboard.SendAsync(new HttpMethod(method), $"/api/runs/{id}{command}", body.Length == 0 ? null : new StringContent(body, Encoding.UTF8, "application/json"));
            Assert.Equal((HttpStatusCode.NotFound, "application/problem+json"), (answer.StatusCode, answer.Content.Headers.ContentType!.MediaType));
            Assert.NotEmpty(problem.GetProperty("detail").GetString()!);
        }
        Assert.True(File.Exists(dashboard.Store.DatabasePath));
    }

    [Fact]
    public async Task An_id_of_300_characters_or_with_NUL_is_refused()
    {
        using HttpResponseMessage zero = await dashboard.Http.DeleteAsync("/api/runs/a%00b");
        Assert.True(zero.StatusCode is HttpStatusCode.BadRequest or HttpStatusCode.NotFound);
        (HttpResponseMessage answer, JsonElement problem) = await dashboard.SendAsync(HttpMethod.Delete, $"/api/runs/{new string('x', 300)}");
        Assert.Equal(HttpStatusCode.NotFound, answer.StatusCode);
        Assert.True(problem.GetProperty("detail").GetString()!.Length < 200);
    }

    private async Task<string> AddAsync()
    {
        RunRow row = await Queue.AddAsync(new RunConfig { Kind = RunKind.Prepare, Name = "corpus", Prepare = new PrepareConfig { Dataset = "corpus", CorpusBytes = 20_000 } });
        _added.Add(row.Id);
        return row.Id;
    }

    /// <summary>Waits until the dashboard has found a run's folder.</summary>
    private async Task<RunRow> KnownAsync(string id)
    {
        RunFolder.Open(dashboard.Store.RunFolder(id)).RequestQueue();
        RunRow? row = null;
        await Wait.UntilAsync(() => (row = Queue.FindAsync(id).Result) is not null, "the run in the table");
        _added.Add(id);
        return row!;
    }

    private async Task<(HttpStatusCode, int)> MoveAsync(string id, string body)
    {
        (HttpResponseMessage answer, JsonElement run) = await PostAsync($"/api/runs/{id}/move", body);
        return (answer.StatusCode, run.GetProperty("queuePlace").GetInt32());
    }

    private Task<(HttpResponseMessage Answer, JsonElement Body)> PostAsync(string path, string text) =>
        dashboard.SendAsync(HttpMethod.Post, path, text.Length == 0 ? null : new StringContent(text, Encoding.UTF8, "application/json"));

    private Task<(HttpResponseMessage Answer, JsonElement Body)> PatchAsync(string id, string text) => dashboard.SendAsync(HttpMethod.Patch, $"/api/runs/{id}", new StringContent(text, Encoding.UTF8, "application/json"));

    private Task<(HttpResponseMessage Answer, JsonElement Body)> PutAsync(string text) => dashboard.SendAsync(HttpMethod.Put, "/api/queue", new StringContent(text, Encoding.UTF8, "application/json"));
}
