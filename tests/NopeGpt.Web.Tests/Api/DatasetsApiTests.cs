using System.Net;
using System.Text;
using System.Text.Json;
using NopeGpt.Jobs.Datasets;
using NopeGpt.Jobs.Queue;
using NopeGpt.Web.Tests.Live;
using NopeGpt.Web.Tests.Pages;

namespace NopeGpt.Web.Tests.Api;

[Collection("dashboard")]
public sealed class DatasetsApiTests(DashboardFixture dashboard) : IDisposable
{
    public void Dispose()
    {
        foreach (string folder in Directory.EnumerateDirectories(dashboard.Store.DatasetsFolder)) Directory.Delete(folder, recursive: true);
    }

    [Fact]
    public async Task Data_sets_are_listed_and_shown_with_their_statistics_and_recipe()
    {
        Dataset.MakeText(dashboard.Store, "tales", ["one fox", "two hens and a fox", "one fox"]);
        Dataset.MakeChat(dashboard.Store, "talks", ["""{"messages":[{"role":"user","content":"hello"},{"role":"assistant","content":"good day"}]}""", """{"messages":[]}"""]);
        (_, JsonElement list) = await dashboard.SendAsync(HttpMethod.Get, "/api/datasets");
        Assert.Equal(["tales", "talks"], list.EnumerateArray().Select(d => d.GetProperty("name").GetString()));
        Assert.All(list.EnumerateArray(), d => Assert.Equal(JsonValueKind.Null, d.GetProperty("statistics").ValueKind));

        (HttpResponseMessage answer, JsonElement tales) = await dashboard.SendAsync(HttpMethod.Get, "/api/datasets/tales");
        Assert.Equal(HttpStatusCode.OK, answer.StatusCode);
        DatasetInfo info = new DatasetCatalog(dashboard.Store).Dataset("tales")!.Info!;
        Assert.Equal(("text", 3, info.Tokens, 300), (tales.GetProperty("kind").GetString(), tales.GetProperty("documents").GetInt32(), tales.GetProperty("tokens").GetInt64(), tales.GetProperty("recipe").GetProperty("vocabulary_size").GetInt32()));
        Assert.Equal(1 / 3.0, tales.GetProperty("statistics").GetProperty("duplicateShare").GetDouble(), 9);
        Assert.Equal(JsonValueKind.Null, tales.GetProperty("problem").ValueKind);

        (_, JsonElement talks) = await dashboard.SendAsync(HttpMethod.Get, "/api/datasets/talks");
        Assert.Equal(("chat", "apache-2.0", 1), (talks.GetProperty("kind").GetString(), talks.GetProperty("licence").GetString(), talks.GetProperty("chat").GetProperty("dropped").GetProperty("empty").GetInt32()));
    }

    [Fact]
    public async Task A_damaged_one_is_listed_with_the_reason()
    {
        Dataset.MakeText(dashboard.Store, "cut", ["some text"]);
        using (FileStream file = File.OpenWrite(dashboard.Store.DatasetTokens("cut"))) file.SetLength(file.Length - 3);
        Dataset.Make(dashboard.Store, "without-info", documents: 3);
        Dataset.MakeChat(dashboard.Store, "no-messages", ["""{"messages":[{"role":"user","content":"hello"},{"role":"assistant","content":"good day"}]}"""]);
        File.Delete(Path.ChangeExtension(dashboard.Store.DatasetTokens("no-messages"), ".messages"));
        (_, JsonElement list) = await dashboard.SendAsync(HttpMethod.Get, "/api/datasets");
        Dictionary<string, string?> problems = list.EnumerateArray().ToDictionary(d => d.GetProperty("name").GetString()!, d => d.GetProperty("problem").GetString());
        Assert.Contains("tokens.bin", problems["cut"], StringComparison.Ordinal);
        Assert.Contains("dataset.json", problems["without-info"], StringComparison.Ordinal);
        Assert.Contains("tokens.messages", problems["no-messages"], StringComparison.Ordinal);
    }

    [Theory]
    [InlineData("nothing")]
    [InlineData("..")]
    [InlineData("..%2Fruns")]
    [InlineData(".tales.x.new")]
    public async Task What_is_no_data_set_is_not_found(string name)
    {
        foreach (HttpMethod method in new[] { HttpMethod.Get, HttpMethod.Delete })
        {
            using HttpRequestMessage request = new(method, new Uri(dashboard.Url + "api/datasets/" + name, new UriCreationOptions { DangerousDisablePathAndQueryCanonicalization = true }));
            using HttpResponseMessage answer = await dashboard.Http.SendAsync(request);
            Assert.Equal((HttpStatusCode.NotFound, "application/problem+json"), (answer.StatusCode, answer.Content.Headers.ContentType!.MediaType));
        }
        Assert.True(Directory.Exists(dashboard.Store.RunsFolder));
    }

    [Fact]
    public async Task One_is_deleted_unless_a_run_needs_it()
    {
        Dataset.MakeText(dashboard.Store, "tales", [.. Enumerable.Range(0, 400).Select(i => $"the {i}th fox met a hen beside the well and they talked until the moon rose")]);
        using StringContent run = new("""{"kind": "pretrain", "data": {"dataset": "tales", "tokens_per_sample": 16, "num_eval_samples": 4}, "model": {"vocabulary_size": 0}}""", Encoding.UTF8, "application/json");
        (HttpResponseMessage queued, JsonElement added) = await dashboard.SendAsync(HttpMethod.Post, "/api/runs", run);
        Assert.True(queued.StatusCode == HttpStatusCode.Created, added.ToString());
        string id = added.GetProperty("id").GetString()!;
        (HttpResponseMessage refused, JsonElement why) = await dashboard.SendAsync(HttpMethod.Delete, "/api/datasets/tales");
        Assert.Equal(HttpStatusCode.Conflict, refused.StatusCode);
        Assert.Contains(id, why.GetProperty("detail").GetString(), StringComparison.Ordinal);

        await dashboard.SendAsync(HttpMethod.Post, $"/api/runs/{id}/stop?kill=true");
        await Wait.UntilAsync(() => dashboard.Service<RunQueue>().FindAsync(id).GetAwaiter().GetResult()!.Ended is not null, "the end of the run");
        using HttpResponseMessage again = await dashboard.Http.DeleteAsync("/api/datasets/tales");
        Assert.Equal(HttpStatusCode.NoContent, again.StatusCode);
        Assert.False(Directory.Exists(dashboard.Store.DatasetFolder("tales")));
    }
}
