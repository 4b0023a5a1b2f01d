using System.Net;
using System.Text;
using System.Text.Json;
using NopeGpt.Jobs;
using NopeGpt.Jobs.Queue;

namespace NopeGpt.Web.Tests.Api;

[Collection("dashboard")]
public sealed class ChainsApiTests(DashboardFixture dashboard)
{
    [Fact]
    public async Task A_chain_is_added_and_its_steps_take_what_they_leave_open_from_each_other()
    {
        (HttpResponseMessage answer, JsonElement body) = await PostAsync("/api/chains", """
            {"priority": -5, "tags": ["night"], "runs": [
                {"kind": "tokenizer", "tokenizer": {"name": "chain-words", "source": "stories", "vocabulary_size": 300}},
                {"kind": "prepare", "prepare": {"dataset": "chain-text", "corpus_bytes": 20000}},
                {"kind": "pretrain", "data": {"tokens_per_sample": 32, "num_eval_samples": 4}},
                {"kind": "evaluate"},
                {"kind": "export", "export": {"layout": "nope-gpt"}}]}
            """);
        Assert.True(answer.StatusCode == HttpStatusCode.Created, body.ToString());
        string[] ids = [.. body.GetProperty("runs").EnumerateArray().Select(r => r.GetString()!)];
        RunConfig[] configs = [.. ids.Select(id => RunFolder.Open(dashboard.Store.RunFolder(id)).Read().Config)];
        Assert.Equal(("chain-words", "chain-text", ids[2], ids[2]), (configs[1].Prepare.Tokenizer, configs[2].Data.Dataset, configs[3].Evaluate.Checkpoint, configs[4].Export.Checkpoint));
        (_, JsonElement last) = await dashboard.SendAsync(HttpMethod.Get, $"/api/runs/{ids[4]}");
        Assert.Equal(("export", ids[3]), (last.GetProperty("kind").GetString(), Assert.Single(last.GetProperty("after").EnumerateArray()).GetString()));
        await StopAsync(ids[0]);
    }

    [Fact]
    public async Task Everything_wrong_with_a_chain_is_told_at_once_with_its_step()
    {
        int before = Directory.GetDirectories(dashboard.Store.RunsFolder).Length;
        (HttpResponseMessage answer, JsonElement body) = await PostAsync("/api/chains", """
            {"priority": 1000, "tags": "night", "wait": true, "runs": [{"kind": "prepare", "threads": "many", "prepare": {"dataset": "../up"}}, {"kind": "evaluate"}, 7]}
            """);
        Assert.Equal(HttpStatusCode.BadRequest, answer.StatusCode);
        string[] fields = [.. body.GetProperty("problems").EnumerateArray().Select(p => p.GetProperty("field").GetString()!)];
        foreach (string field in new[] { "wait", "tags", "priority", "step 1 (prepare): threads", "step 1 (prepare): prepare.dataset", "step 2 (evaluate): evaluate.checkpoint", "step 3 (pretrain): " }) Assert.Contains(field, fields);
        (answer, body) = await PostAsync("/api/chains", "{}");
        Assert.Equal((HttpStatusCode.BadRequest, "runs"), (answer.StatusCode, Assert.Single(body.GetProperty("problems").EnumerateArray()).GetProperty("field").GetString()));
        Assert.Equal(before, Directory.GetDirectories(dashboard.Store.RunsFolder).Length);
    }

    [Fact]
    public async Task A_sweep_takes_lists_and_ranges_and_must_be_confirmed_where_it_is_large()
    {
        const string Config = """{"kind": "tokenizer", "name": "sizes", "tokenizer": {"name": "swept", "source": "stories"}}""";
        string first = await AddAsync("""{"kind": "prepare", "prepare": {"dataset": "sweep-first", "corpus_bytes": 20000}}""");
        (HttpResponseMessage answer, JsonElement body) = await PostAsync("/api/sweeps", $$$"""{"config": {{{Config}}}, "after": ["{{{first}}}"], "axes": {"tokenizer.vocabulary_size": [300, 400], "seed": "1..2"}}""");
        Assert.True(answer.StatusCode == HttpStatusCode.Created, body.ToString());
        string[] ids = [.. body.GetProperty("runs").EnumerateArray().Select(r => r.GetString()!)];
        Assert.EndsWith(" sizes", body.GetProperty("group").GetString(), StringComparison.Ordinal);
        Assert.Equal([(300, 1UL), (300, 2UL), (400, 1UL), (400, 2UL)], ids.Select(id => RunFolder.Open(dashboard.Store.RunFolder(id)).Read().Config).Select(c => (c.Tokenizer.VocabularySize, c.Seed)));
        (answer, body) = await PostAsync("/api/sweeps", $$$"""{"config": {{{Config}}}, "axes": {"seed": "1..21"}}""");
        Assert.Equal(HttpStatusCode.BadRequest, answer.StatusCode);
        Assert.Contains("the sweep makes 21 runs, and more than 20", body.GetProperty("detail").GetString(), StringComparison.Ordinal);
        (answer, body) = await PostAsync("/api/sweeps", $$$"""{"config": {"kind": "tokenizer", "threads": "x"}, "axes": {"nothing": [1], "seed": {"from": 1} }, "confirm": "yes", "after": "{{{first}}}"}""");
        Assert.Equal(["config.threads", "confirm", "after", "nothing", "seed"], body.GetProperty("problems").EnumerateArray().Select(p => p.GetProperty("field").GetString()));
        Assert.Equal(HttpStatusCode.BadRequest, answer.StatusCode);
        await StopAsync(first);
    }

    [Fact]
    public async Task A_run_may_wait_for_others_that_are_there()
    {
        string first = await AddAsync("""{"kind": "prepare", "prepare": {"dataset": "awaited", "corpus_bytes": 20000}}""");
        string second = await AddAsync($$$"""{"kind": "pretrain", "after": ["{{{first}}}"], "data": {"tokens_per_sample": 32}}""");
        RunRecord record = RunFolder.Open(dashboard.Store.RunFolder(second)).Read();
        Assert.Equal((first, "awaited"), (Assert.Single(record.After), record.Config.Data.Dataset));
        (HttpResponseMessage answer, JsonElement body) = await PostAsync("/api/runs", """{"kind": "pretrain", "after": ["nobody"], "threads": -1}""");
        Assert.Equal(HttpStatusCode.BadRequest, answer.StatusCode);
        Assert.Equal(["after", "data.dataset", "threads"], body.GetProperty("problems").EnumerateArray().Select(p => p.GetProperty("field").GetString()!).Order(StringComparer.Ordinal));
        (answer, body) = await PostAsync("/api/runs", """{"kind": "prepare", "after": "nobody", "prepare": {"dataset": "x"}}""");
        Assert.Equal((HttpStatusCode.BadRequest, "after"), (answer.StatusCode, Assert.Single(body.GetProperty("problems").EnumerateArray()).GetProperty("field").GetString()));
        await StopAsync(first);
    }

    private async Task<string> AddAsync(string config)
    {
        (HttpResponseMessage answer, JsonElement body) = await PostAsync("/api/runs", config);
        Assert.True(answer.StatusCode == HttpStatusCode.Created, body.ToString());
        return body.GetProperty("id").GetString()!;
    }

    /// <summary>Leaves the dashboard's trainers free for other tests; what waits for the run is cancelled with it.</summary>
    private Task StopAsync(string id) => dashboard.Service<RunQueue>().StopAsync(id, StopRequest.Kill);

    private async Task<(HttpResponseMessage Answer, JsonElement Body)> PostAsync(string path, string json)
    {
        using StringContent content = new(json, Encoding.UTF8, "application/json");
        return await dashboard.SendAsync(HttpMethod.Post, path, content);
    }
}
