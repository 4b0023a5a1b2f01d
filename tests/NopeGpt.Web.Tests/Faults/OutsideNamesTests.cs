using System.Net;
using System.Text;
using Microsoft.AspNetCore.Routing;
using Microsoft.Extensions.DependencyInjection;
using NopeGpt.Jobs;
using NopeGpt.Tests;
using NopeGpt.Web.Tests.Api;
using NopeGpt.Web.Tests.Live;

namespace NopeGpt.Web.Tests.Faults;

/// <summary>Names from outside at every address of the HTTP interface that takes one.</summary>
[Collection("dashboard")]
public sealed class OutsideNamesTests(DashboardFixture dashboard)
{
    private static readonly string[] Names =
    [
        "..", "%2e%2e", "..%2f..%2fetc%2fpasswd", "%2e%2e%2fx", "..%5cx", "%252e%252e%252fx", "a%00b", ".hidden", "-x", "CON", "x.new", "%20", "%e2%80%ae", new('a', 3000), "%c0%ae%c0%ae", "~", "a%2fb", "%",
    ];

    [Fact]
    public async Task A_name_that_is_none_is_refused_at_every_address()
    {
        (string Method, string Pattern)[] addresses = [.. dashboard.Service<EndpointDataSource>().Endpoints.OfType<RouteEndpoint>()
            .Where(e => e.RoutePattern.RawText is { } text && text.StartsWith("/api/", StringComparison.Ordinal) && text.Contains('{') && !text.Contains("**", StringComparison.Ordinal))
            .SelectMany(e => (e.Metadata.GetMetadata<HttpMethodMetadata>()?.HttpMethods ?? ["GET"]).Select(m => (m, e.RoutePattern.RawText!)))];
        Assert.Contains(("GET", "/api/runs/{id}/log"), addresses);
        string[] before = Everything();
        using HttpClient http = new() { BaseAddress = dashboard.Url };
        foreach ((string method, string pattern) in addresses)
        {
            foreach (string name in Names)
            {
                string path = System.Text.RegularExpressions.Regex.Replace(pattern, @"\{[^}]*\}", name);
                // As it is written, with what a browser would take out of it.
                Uri address = new($"{dashboard.Url.GetLeftPart(UriPartial.Authority)}{path}", new UriCreationOptions { DangerousDisablePathAndQueryCanonicalization = true });
                using HttpRequestMessage request = new(new HttpMethod(method), address);
                if (method is "POST" or "PUT" or "PATCH") request.Content = new StringContent("{}", Encoding.UTF8, "application/json");
                using HttpResponseMessage answer = await http.SendAsync(request);
                Assert.True((int)answer.StatusCode is >= 400 and < 500, $"{method} {path}: {answer.StatusCode} {await answer.Content.ReadAsStringAsync()}");
            }
        }
        Assert.Equal(before, Everything());
    }

    [Fact]
    public async Task A_link_out_of_the_store_is_no_run()
    {
        using TemporaryFolder elsewhere = new();
        Store other = new(elsewhere.Path);
        Scribe run = new(other);
        run.Append(run.Number(Scribe.Step(1, 5)));
        await File.WriteAllTextAsync(run.Folder.LogPath, "secret");
        string link = dashboard.Store.RunFolder("a-link");
        Directory.CreateSymbolicLink(link, run.Folder.Path);
        try
        {
            foreach (string what in (string[])["", "/events", "/log", "/series?metric=train/loss"])
            {
                using HttpResponseMessage answer = await dashboard.Http.GetAsync($"/api/runs/a-link{what}");
                Assert.True(answer.StatusCode == HttpStatusCode.NotFound, $"{what}: {answer.StatusCode} {await answer.Content.ReadAsStringAsync()}");
            }
        }
        finally { Directory.Delete(link); }
    }

    [Fact]
    public async Task A_log_that_is_a_link_out_of_the_run_is_not_shown()
    {
        Scribe run = new(dashboard.Store);
        string secret = Path.Combine(dashboard.Store.Root, "secret");
        await File.WriteAllTextAsync(secret, "secret");
        File.CreateSymbolicLink(run.Folder.LogPath, secret);
        foreach (string what in (string[])["", "?whole=1", "?from=-10"])
            Assert.Equal("", await dashboard.Http.GetStringAsync($"/api/runs/{run.Id}/log{what}"));
    }

    // What the tests beside this one write comes and goes; names from here would stay.
    private string[] Everything() => [.. Directory.EnumerateFileSystemEntries(Path.GetDirectoryName(dashboard.Store.Root)!).Order()];
}
