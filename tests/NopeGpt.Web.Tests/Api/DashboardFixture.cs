using System.Net.Http.Json;
using System.Text.Json;
using Microsoft.AspNetCore.Builder;
using Microsoft.AspNetCore.SignalR.Client;
using Microsoft.Extensions.DependencyInjection;
using NopeGpt.Jobs;
using NopeGpt.Jobs.Queue;
using NopeGpt.Jobs.Training;
using NopeGpt.Tests;
using NopeGpt.Web.Hosting;
using NopeGpt.Web.Tests.Chat;

namespace NopeGpt.Web.Tests.Api;

/// <summary>The whole dashboard on a free port and a storage root of its own. Its trainers only sleep; its model process is the stub.</summary>
public sealed class DashboardFixture : IAsyncLifetime
{
    public const int MostUploadedBytes = 1_000_000;

    private readonly TemporaryFolder _folder = new();
    private WebApplication _app = null!;

    public Store Store => _app.Services.GetRequiredService<Store>();
    public Uri Url => new(_app.Services.GetRequiredService<DashboardFile>().Url);
    public HttpClient Http { get; private set; } = null!;
    public string Key => JsonSerializer.Deserialize<DashboardAddress>(File.ReadAllText(Store.DashboardPath), TrainingEvent.Json)!.Key;
    internal T Service<T>() where T : notnull => _app.Services.GetRequiredService<T>();

    public async Task InitializeAsync()
    {
        string program = _folder["program.sh"];
        await File.WriteAllTextAsync(program, $"""
            if [ "$1" = serve ]; then exec "{ModelFixture.Stub.FileName}" "{ModelFixture.Stub.Arguments[0]}" "$@"; fi
            exec sleep 600
            """);
        _app = Dashboard.Build(["--urls", "http://127.0.0.1:0", "--root", _folder["root"], "--Jobs:StopGraceSeconds=1", $"--Uploads:MaximumBytes={MostUploadedBytes}"],
            services => services.AddSingleton(new TrainerProgram("/bin/sh", [program])));
        await _app.StartAsync();
        Http = new HttpClient { BaseAddress = Url };
    }

    public async Task DisposeAsync()
    {
        Http.Dispose();
        await _app.StopAsync();
        await _app.DisposeAsync();
        _folder.Dispose();
    }

    public HubConnection Hub(string? key = null)
    {
        HubConnection hub = new HubConnectionBuilder()
            .WithUrl(new Uri(Url, "/hubs/metrics"), o => { if (key is not null) o.AccessTokenProvider = () => Task.FromResult<string?>(key); })
            .AddJsonProtocol(o => o.PayloadSerializerOptions = new(TrainingEvent.Json)).Build();
        return hub;
    }

    public async Task<(HttpResponseMessage Answer, JsonElement Body)> SendAsync(HttpMethod method, string path, HttpContent? content = null)
    {
        using HttpRequestMessage request = new(method, path) { Content = content };
        HttpResponseMessage answer = await Http.SendAsync(request);
        return (answer, await answer.Content.ReadFromJsonAsync<JsonElement>());
    }
}

[CollectionDefinition("dashboard")]
public sealed class DashboardCollection : ICollectionFixture<DashboardFixture>;
