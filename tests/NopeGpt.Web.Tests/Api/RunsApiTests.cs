using System.Diagnostics;
using System.Net;
using System.Text;
using System.Text.Json;
using NopeGpt.Jobs;
using NopeGpt.Jobs.Queue;
using NopeGpt.Web.Tests.Live;

namespace NopeGpt.Web.Tests.Api;

[Collection("dashboard")]
public sealed class RunsApiTests(DashboardFixture dashboard)
{
    private const string Prepare = """{"kind": "prepare", "name": "corpus", "prepare": {"dataset": "corpus", "corpusBytes": 20000, "vocabulary-size": 300}}""";

    [Fact]
    public async Task A_run_is_added_listed_shown_stopped_and_resumed()
    {
        (HttpResponseMessage added, JsonElement body) = await PostAsync("/api/runs", Prepare);
        Assert.Equal(HttpStatusCode.Created, added.StatusCode);
        string id = body.GetProperty("id").GetString()!;
        Assert.Equal($"/api/runs/{id}", added.Headers.Location!.OriginalString);

        (_, JsonElement shown) = await dashboard.SendAsync(HttpMethod.Get, $"/api/runs/{id}");
        Assert.Equal(("corpus", "prepare", 20_000), (shown.GetProperty("name").GetString(), shown.GetProperty("kind").GetString(), shown.GetProperty("config").GetProperty("prepare").GetProperty("corpus_bytes").GetInt32()));
        Assert.Equal(Path.Combine(dashboard.Store.RunsFolder, id), shown.GetProperty("folder").GetString());
        foreach (string name in new[] { "id", "state", "reason", "step", "maxSteps", "metrics", "checkpoints" }) Assert.True(shown.TryGetProperty(name, out _), name);
        Assert.Contains(shown.GetProperty("state").GetString(), Enum.GetNames<RunState>());

        (_, JsonElement list) = await dashboard.SendAsync(HttpMethod.Get, "/api/runs?kind=prepare");
        Assert.Contains(list.EnumerateArray(), r => r.GetProperty("id").GetString() == id);
        (_, JsonElement others) = await dashboard.SendAsync(HttpMethod.Get, "/api/runs?kind=pretrain");
        Assert.DoesNotContain(others.EnumerateArray(), r => r.GetProperty("id").GetString() == id);

        (HttpResponseMessage stopped, _) = await dashboard.SendAsync(HttpMethod.Post, $"/api/runs/{id}/stop?kill=true");
        Assert.Equal(HttpStatusCode.Accepted, stopped.StatusCode);
        string state = await UntilEndedAsync(id);
        (HttpResponseMessage twice, JsonElement why) = await dashboard.SendAsync(HttpMethod.Post, $"/api/runs/{id}/stop");
        Assert.Equal(HttpStatusCode.Conflict, twice.StatusCode);
        Assert.Contains(state.ToLowerInvariant(), why.GetProperty("detail").GetString(), StringComparison.Ordinal);
        (HttpResponseMessage resumed, _) = await dashboard.SendAsync(HttpMethod.Post, $"/api/runs/{id}/resume");
        Assert.Equal(HttpStatusCode.Accepted, resumed.StatusCode);
        (HttpResponseMessage again, _) = await dashboard.SendAsync(HttpMethod.Post, $"/api/runs/{id}/resume");
        Assert.Equal(HttpStatusCode.Conflict, again.StatusCode);
        await dashboard.SendAsync(HttpMethod.Post, $"/api/runs/{id}/stop?kill=true");
        await UntilEndedAsync(id);
    }

    [Fact]
    public async Task Quickstart_queues_three_runs_that_wait_for_each_other()
    {
        (HttpResponseMessage answer, JsonElement body) = await dashboard.SendAsync(HttpMethod.Post, "/api/quickstart?size=tiny");
        Assert.Equal(HttpStatusCode.OK, answer.StatusCode);
        string[] ids = [.. body.GetProperty("runs").EnumerateArray().Select(r => r.GetString()!)];
        List<string> kinds = [];
        foreach (string id in ids)
        {
            (_, JsonElement run) = await dashboard.SendAsync(HttpMethod.Get, $"/api/runs/{id}");
            kinds.Add(run.GetProperty("kind").GetString()!);
        }
        Assert.Equal(["prepare", "pretrain", "evaluate"], kinds);
        foreach (string id in ids.Reverse()) await dashboard.SendAsync(HttpMethod.Post, $"/api/runs/{id}/stop?kill=true");
        foreach (string id in ids) await UntilEndedAsync(id);
    }

    [Fact]
    public async Task Everything_wrong_with_a_run_is_told_at_once()
    {
        (HttpResponseMessage answer, JsonElement body) = await PostAsync("/api/runs", """{"kind": "pretrain", "trainin": {}, "training": {"max_steps": "many", "batch_size": 0}, "data": {"dataset": "missing-set"}}""");
        Assert.Equal((HttpStatusCode.BadRequest, "application/problem+json"), (answer.StatusCode, answer.Content.Headers.ContentType!.MediaType));
        string[] fields = [.. body.GetProperty("problems").EnumerateArray().Select(p => p.GetProperty("field").GetString()!)];
        Assert.Superset(new HashSet<string> { "trainin", "training.max_steps", "training.batch_size", "data.dataset" }, fields.ToHashSet());
        Assert.Equal(fields.Distinct().Order(), body.GetProperty("errors").EnumerateObject().Select(e => e.Name).Order());
        Assert.Equal(400, body.GetProperty("status").GetInt32());
    }

    [Theory]
    [InlineData("{\"kind\":", "application/json", HttpStatusCode.BadRequest, "line 1")]
    [InlineData("", "application/json", HttpStatusCode.BadRequest, "empty")]
    [InlineData("[1]", "application/json", HttpStatusCode.BadRequest, "object")]
    [InlineData("{\"seed\": 1, \"seed\": 2}", "application/json", HttpStatusCode.BadRequest, "not JSON")]
    [InlineData("{}", "text/plain", HttpStatusCode.UnsupportedMediaType, "application/json")]
    public async Task A_body_that_is_no_configuration_is_refused(string text, string type, HttpStatusCode status, string says)
    {
        (HttpResponseMessage answer, JsonElement body) = await dashboard.SendAsync(HttpMethod.Post, "/api/runs", new StringContent(text, Encoding.UTF8, type));
        Assert.Equal((status, "application/problem+json"), (answer.StatusCode, answer.Content.Headers.ContentType!.MediaType));
        Assert.Contains(says, body.GetProperty("detail").GetString(), StringComparison.Ordinal);
    }

    [Theory]
    [InlineData("{\"name\": \"\\ud800\"}", "body")]
    [InlineData("{\"\\ud800\": 1}", "body")]
    [InlineData("{\"kind\": \"evaluate\", \"evaluate\": {\"prompts\": [\"\\udc00\"]}}", "body")]
    [InlineData("{\"kind\": \"pretrain\", \"data\": {\"dataset\": \"a\\u0000b\"}}", "data.dataset")]
    [InlineData("{\"kind\": \"prepare\", \"prepare\": {\"dataset\": \"x\", \"source\": \"a\\u0000b\"}}", "prepare.source")]
    [InlineData("{\"kind\": \"evaluate\", \"evaluate\": {\"checkpoint\": \"a\\u0000b\"}}", "evaluate.checkpoint")]
    [InlineData("{\"kind\": \"evaluate\"}", "evaluate.checkpoint")]
    public async Task A_value_that_cannot_be_is_refused_with_its_field(string text, string field)
    {
        (HttpResponseMessage answer, JsonElement body) = await PostAsync("/api/runs", text);
        Assert.Equal(HttpStatusCode.BadRequest, answer.StatusCode);
        Assert.Equal(field, Assert.Single(body.GetProperty("problems").EnumerateArray()).GetProperty("field").GetString());
    }

    [Fact]
    public async Task A_text_that_is_not_UTF8_is_refused()
    {
        using ByteArrayContent content = new([.. "{\"name\": \""u8, 0xFF, .. "\"}"u8]);
        content.Headers.ContentType = new("application/json");
        (HttpResponseMessage answer, JsonElement body) = await dashboard.SendAsync(HttpMethod.Post, "/api/runs", content);
        Assert.Equal(HttpStatusCode.BadRequest, answer.StatusCode);
        Assert.Contains("not valid Unicode", body.GetProperty("detail").GetString(), StringComparison.Ordinal);
    }

    [Fact]
    public async Task A_run_whose_record_is_damaged_is_shown_without_its_configuration()
    {
        RunQueue queue = dashboard.Service<RunQueue>();
        RunRow row = await queue.AddAsync(new RunConfig { Kind = RunKind.Prepare, Prepare = new PrepareConfig { Dataset = "damaged" } });
        await queue.StopAsync(row.Id, StopRequest.Kill);
        await UntilEndedAsync(row.Id);
        await File.WriteAllTextAsync(RunFolder.Open(dashboard.Store.RunFolder(row.Id)).RecordPath, "{");
        (HttpResponseMessage answer, JsonElement body) = await dashboard.SendAsync(HttpMethod.Get, $"/api/runs/{row.Id}");
        Assert.Equal((HttpStatusCode.OK, JsonValueKind.Null), (answer.StatusCode, body.GetProperty("config").ValueKind));
    }

    [Fact]
    public async Task A_body_beyond_the_limit_is_refused()
    {
        (HttpResponseMessage answer, _) = await PostAsync("/api/runs", "{\"name\": \"" + new string('x', 2_000_000) + "\"}");
        Assert.Equal(HttpStatusCode.RequestEntityTooLarge, answer.StatusCode);
    }

    [Theory]
    [InlineData("GET", "/api/runs/20260101-000000-0000", HttpStatusCode.NotFound)]
    [InlineData("GET", "/api/runs/..%2f..%2fetc/log", HttpStatusCode.NotFound)]
    [InlineData("GET", "/api/runs/%2e%2e%2fx/events", HttpStatusCode.NotFound)]
    [InlineData("GET", "/api/runs/a%0ab/series?metric=train/loss", HttpStatusCode.NotFound)]
    [InlineData("POST", "/api/runs/none/stop", HttpStatusCode.NotFound)]
    [InlineData("POST", "/api/runs/none/resume", HttpStatusCode.NotFound)]
    [InlineData("GET", "/api/nothing/here", HttpStatusCode.NotFound)]
    [InlineData("DELETE", "/api/quickstart", HttpStatusCode.NotFound)]
    [InlineData("GET", "/api/runs?state=Sleeping", HttpStatusCode.BadRequest)]
    [InlineData("GET", "/api/runs?kind=7", HttpStatusCode.BadRequest)]
    [InlineData("POST", "/api/quickstart?size=huge", HttpStatusCode.BadRequest)]
    [InlineData("POST", "/api/runs/none/stop?kill=maybe", HttpStatusCode.BadRequest)]
    [InlineData("GET", "/api/runs/none/events?after=-1", HttpStatusCode.BadRequest)]
    [InlineData("GET", "/api/runs/none/events?after=x", HttpStatusCode.BadRequest)]
    [InlineData("GET", "/api/runs/none/log?from=x", HttpStatusCode.BadRequest)]
    [InlineData("GET", "/api/runs/none/series", HttpStatusCode.BadRequest)]
    [InlineData("GET", "/api/runs/none/series?metric=a&metric=", HttpStatusCode.BadRequest)]
    [InlineData("GET", "/api/runs/none/series?metric=a&x=time", HttpStatusCode.BadRequest)]
    [InlineData("GET", "/api/runs/none/series?metric=a&from=2&to=1", HttpStatusCode.BadRequest)]
    [InlineData("GET", "/api/runs/none/series?metric=a&buckets=0", HttpStatusCode.BadRequest)]
    [InlineData("GET", "/api/runs/none/series?metric=a&smooth=1", HttpStatusCode.BadRequest)]
    [InlineData("GET", "/api/runs/none/series?metric=a&from=NaN", HttpStatusCode.BadRequest)]
    public async Task What_makes_no_sense_is_refused_with_problem_details(string method, string path, HttpStatusCode status)
    {
        (HttpResponseMessage answer, JsonElement body) = await dashboard.SendAsync(new HttpMethod(method), path);
        Assert.Equal((status, "application/problem+json"), (answer.StatusCode, answer.Content.Headers.ContentType!.MediaType));
        Assert.NotEmpty(body.GetProperty("detail").GetString()!);
    }

    [Fact]
    public async Task Events_come_from_a_sequence_number_on()
    {
        Scribe run = new(dashboard.Store);
        run.Write(new StartedEvent(1, 0, 42, "cpu"), Scribe.Step(1, double.PositiveInfinity));
        (_, JsonElement all) = await dashboard.SendAsync(HttpMethod.Get, $"/api/runs/{run.Id}/events");
        Assert.Equal(["started", "metrics"], all.EnumerateArray().Select(e => e.GetProperty("type").GetString()));
        (_, JsonElement later) = await dashboard.SendAsync(HttpMethod.Get, $"/api/runs/{run.Id}/events?after=1");
        Assert.Equal("Infinity", Assert.Single(later.EnumerateArray()).GetProperty("values").GetProperty("train/loss").GetString());
    }

    [Fact]
    public async Task A_series_comes_in_binary_and_is_not_sent_again_while_it_holds()
    {
        Scribe run = new(dashboard.Store);
        run.Write(Scribe.Step(1, 5), Scribe.Step(2, 4));
        string path = $"/api/runs/{run.Id}/series?metric=train/loss&x=tokens&smooth=0.5";
        using HttpResponseMessage answer = await dashboard.Http.GetAsync(path);
        byte[] bytes = await answer.Content.ReadAsByteArrayAsync();
        Assert.Equal((2, 10.0, 20.0, 5f), (BitConverter.ToInt32(bytes), BitConverter.ToDouble(bytes, 4), BitConverter.ToDouble(bytes, 28), BitConverter.ToSingle(bytes, 20)));
        Assert.Equal("2", answer.Headers.GetValues("X-Last-Sequence").Single());
        using HttpRequestMessage request = new(HttpMethod.Get, path);
        request.Headers.IfNoneMatch.Add(answer.Headers.ETag!);
        using HttpResponseMessage same = await dashboard.Http.SendAsync(request);
        Assert.Equal(HttpStatusCode.NotModified, same.StatusCode);
        run.Write(Scribe.Step(3, 3));
        using HttpRequestMessage later = new(HttpMethod.Get, path);
        later.Headers.IfNoneMatch.Add(answer.Headers.ETag!);
        using HttpResponseMessage changed = await dashboard.Http.SendAsync(later);
        Assert.Equal((HttpStatusCode.OK, 4 + 3 * 24), (changed.StatusCode, (await changed.Content.ReadAsByteArrayAsync()).Length));
        using HttpResponseMessage other = await dashboard.Http.GetAsync($"/api/runs/{run.Id}/series?metric=eval/loss");
        Assert.Equal(4, (await other.Content.ReadAsByteArrayAsync()).Length);
    }

    [Fact]
    public async Task Several_series_come_in_one_answer_one_after_the_other()
    {
        Scribe run = new(dashboard.Store);
        run.Write(Scribe.Step(1, 5), Scribe.Step(2, 4), Scribe.Step(2, 3, name: "eval/loss"));
        byte[] all = await dashboard.Http.GetByteArrayAsync($"/api/runs/{run.Id}/series?metric=train/loss&metric=none&metric=eval/loss&smooth=0.5");
        List<byte> expected = [];
        foreach (string metric in new[] { "train/loss", "none", "eval/loss" }) expected.AddRange(await dashboard.Http.GetByteArrayAsync($"/api/runs/{run.Id}/series?metric={metric}&smooth=0.5"));
        Assert.Equal((4 + (2 * 24)) + 4 + (4 + 24), all.Length);
        Assert.Equal(expected, all);
    }

    [Theory]
    [InlineData("0", "h\u00e9llo \u20ac", 0, 10)]
    [InlineData("2", "llo \u20ac", 3, 10)]
    [InlineData("-3", "\u20ac", 7, 10)]
    [InlineData("-2", "", 10, 10)]
    [InlineData("99", "", 10, 10)]
    public async Task A_log_comes_in_parts_of_whole_characters(string from, string expected, long start, long next)
    {
        Scribe run = new(dashboard.Store);
        await File.WriteAllTextAsync(run.Folder.LogPath, "h\u00e9llo \u20ac");
        using HttpResponseMessage answer = await dashboard.Http.GetAsync($"/api/runs/{run.Id}/log?from={from}");
        Assert.Equal(expected, await answer.Content.ReadAsStringAsync());
        Assert.Equal((start, next), (long.Parse(answer.Headers.GetValues("X-Log-From").Single()), long.Parse(answer.Headers.GetValues("X-Log-Next").Single())));
    }

    [Fact]
    public async Task A_log_of_several_megabytes_comes_whole_when_asked_for()
    {
        Scribe run = new(dashboard.Store);
        string text = new('x', 3 << 20);
        await File.WriteAllTextAsync(run.Folder.LogPath, text);
        Assert.Equal(text.Length, (await dashboard.Http.GetStringAsync($"/api/runs/{run.Id}/log?whole=1")).Length);
        Assert.Equal(1 << 20, (await dashboard.Http.GetStringAsync($"/api/runs/{run.Id}/log")).Length);
    }

    [Theory]
    [InlineData("/api/quickstart", "{\"size\": \"huge\"}", "size")]
    [InlineData("/api/quickstart", "{\"size\": 3}", "size")]
    [InlineData("/api/quickstart", "{\"sise\": \"tiny\"}", "sise")]
    [InlineData("/api/quickstart?size=tiny", "{\"size\": \"default\"}", "size")]
    [InlineData("/api/quickstart", "[]", "body")]
    [InlineData("/api/runs/none/stop", "{\"kill\": \"yes\"}", "kill")]
    [InlineData("/api/runs/none/stop", "{\"force\": true}", "force")]
    public async Task A_command_whose_body_is_wrong_is_refused_with_the_field(string path, string text, string field)
    {
        (HttpResponseMessage answer, JsonElement body) = await PostAsync(path, text);
        Assert.Equal(HttpStatusCode.BadRequest, answer.StatusCode);
        Assert.Equal(field, Assert.Single(body.GetProperty("problems").EnumerateArray()).GetProperty("field").GetString());
    }

    [Fact]
    public async Task A_command_takes_its_option_from_the_body()
    {
        (_, JsonElement body) = await PostAsync("/api/quickstart", """{"size": "tiny"}""");
        string[] ids = [.. body.GetProperty("runs").EnumerateArray().Select(r => r.GetString()!)];
        Assert.Equal(300_000, RunFolder.Open(dashboard.Store.RunFolder(ids[0])).Read().Config.Prepare.CorpusBytes);
        foreach (string id in ids.Reverse())
        {
            (HttpResponseMessage stopped, _) = await PostAsync($"/api/runs/{id}/stop", """{"kill": true}""");
            Assert.Equal(HttpStatusCode.Accepted, stopped.StatusCode);
        }
        foreach (string id in ids) await UntilEndedAsync(id);
    }

    [Fact]
    public async Task Other_sites_and_other_names_are_kept_out()
    {
        using HttpRequestMessage rebound = new(HttpMethod.Get, "/api/runs");
        rebound.Headers.Host = "evil.example";
        using HttpResponseMessage refused = await dashboard.Http.SendAsync(rebound);
        Assert.Equal(HttpStatusCode.BadRequest, refused.StatusCode);
        foreach (string path in new[] { "/api/quickstart", "/v1/chat/completions", "/hubs/metrics/negotiate" })
        {
            foreach (string origin in new[] { "http://evil.example", "null", "http://127.0.0.1:1" })
            {
                using HttpRequestMessage foreign = new(HttpMethod.Post, path);
                foreign.Headers.Add("Origin", origin);
                using HttpResponseMessage answer = await dashboard.Http.SendAsync(foreign);
                Assert.Equal((HttpStatusCode.Forbidden, "application/problem+json"), (answer.StatusCode, answer.Content.Headers.ContentType!.MediaType));
            }
        }
        using HttpRequestMessage own = new(HttpMethod.Post, "/api/quickstart?size=none");
        own.Headers.Add("Origin", dashboard.Url.GetLeftPart(UriPartial.Authority));
        using HttpResponseMessage let = await dashboard.Http.SendAsync(own);
        Assert.Equal(HttpStatusCode.BadRequest, let.StatusCode);
    }

    [Fact]
    public async Task The_model_interface_is_forwarded_whole_and_streamed()
    {
        Assert.Contains("stub", await dashboard.Http.GetStringAsync("/v1/models"), StringComparison.Ordinal);
        using StringContent question = new("""{"model": "stub", "messages": [{"role": "user", "content": "one two"}], "stream": true}""", Encoding.UTF8, "application/json");
        using HttpResponseMessage answer = await dashboard.Http.PostAsync("/v1/chat/completions", question);
        string text = await answer.Content.ReadAsStringAsync();
        Assert.Equal("text/event-stream", answer.Content.Headers.ContentType!.MediaType);
        Assert.Contains("one ", text, StringComparison.Ordinal);
        Assert.EndsWith("data: [DONE]\n\n", text, StringComparison.Ordinal);
        using StringContent wrong = new("""{"model": "missing", "messages": [{"role": "user", "content": "x"}]}""", Encoding.UTF8, "application/json");
        using HttpResponseMessage refused = await dashboard.Http.PostAsync("/v1/chat/completions", wrong);
        Assert.Equal(HttpStatusCode.NotFound, refused.StatusCode);
        Assert.Contains("no model 'missing'", await refused.Content.ReadAsStringAsync(), StringComparison.Ordinal);
    }

    [Fact]
    public async Task A_forwarded_stream_whose_process_dies_says_why()
    {
        using HttpRequestMessage request = new(HttpMethod.Post, "/v1/chat/completions")
        {
            Content = new StringContent("""{"model": "slow", "messages": [{"role": "user", "content": "la"}], "stream": true}""", Encoding.UTF8, "application/json"),
        };
        using HttpResponseMessage answer = await dashboard.Http.SendAsync(request, HttpCompletionOption.ResponseHeadersRead);
        using (Process stub = Process.GetProcessById(int.Parse(File.ReadLines(Path.Combine(dashboard.Store.Root, "starts.txt")).Last()))) stub.Kill();
        string text = await answer.Content.ReadAsStringAsync().WaitAsync(Wait.Longest);
        Assert.Contains("killed, signal 9", text.Split("data: ").Last(), StringComparison.Ordinal);
        Assert.Contains("stub", await dashboard.Http.GetStringAsync("/v1/models"), StringComparison.Ordinal);
    }

    [Fact]
    public async Task Health_names_the_version()
    {
        (_, JsonElement body) = await dashboard.SendAsync(HttpMethod.Get, "/health");
        Assert.Equal("ok", body.GetProperty("status").GetString());
        Assert.NotEmpty(body.GetProperty("version").GetString()!);
    }

    private Task<(HttpResponseMessage Answer, JsonElement Body)> PostAsync(string path, string json) =>
        dashboard.SendAsync(HttpMethod.Post, path, new StringContent(json, Encoding.UTF8, "application/json"));

    private async Task<string> UntilEndedAsync(string id)
    {
        RunQueue queue = dashboard.Service<RunQueue>();
        RunRow? row = null;
        await Wait.UntilAsync(() => (row = queue.FindAsync(id).GetAwaiter().GetResult())!.State is RunState.Cancelled or RunState.Failed or RunState.Interrupted, $"the end of {id} ({row?.State})");
        return row!.State.ToString();
    }
}
