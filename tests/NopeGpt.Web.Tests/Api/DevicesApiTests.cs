using System.Net.Http.Json;
using System.Text.Json;
using Microsoft.AspNetCore.Builder;
using Microsoft.Extensions.DependencyInjection;
using NopeGpt.Jobs.Queue;
using NopeGpt.Tests;
using NopeGpt.Web.Hosting;
using NopeGpt.Web.Tests.Live;

namespace NopeGpt.Web.Tests.Api;

/// <summary>A dashboard on a machine with two GPUs, as far as it can see.</summary>
[Collection("dashboard")]
public sealed class DevicesApiTests : IAsyncLifetime
{
    private readonly TemporaryFolder _folder = new();
    private WebApplication _app = null!;
    private HttpClient _http = null!;

    public async Task InitializeAsync()
    {
        await File.WriteAllTextAsync(_folder["trainer.sh"], "exec sleep 600\n");
        _app = Dashboard.Build(["--urls", "http://127.0.0.1:0", "--root", _folder["root"], "--Jobs:StopGraceSeconds=1", "--Jobs:NvidiaSmi", FakeGpus.Program(_folder)],
            services => services.AddSingleton(new TrainerProgram("/bin/sh", [_folder["trainer.sh"]])));
        await _app.StartAsync();
        _http = new HttpClient { BaseAddress = new Uri(_app.Services.GetRequiredService<DashboardFile>().Url) };
    }

    public async Task DisposeAsync()
    {
        _http.Dispose();
        await _app.StopAsync();
        await _app.DisposeAsync();
        _folder.Dispose();
    }

    [Fact]
    public async Task Devices_are_told_with_the_runs_that_have_them()
    {
        JsonElement body = await _http.GetFromJsonAsync<JsonElement>("/api/devices");
        Assert.Equal(_app.Services.GetRequiredService<DevicePool>().Host, body.GetProperty("host").GetString());
        JsonElement[] devices = [.. body.GetProperty("devices").EnumerateArray()];
        Assert.Equal(["cuda:0", "cuda:1", "cpu"], devices.Select(d => d.GetProperty("id").GetString()));
        Assert.Equal(["id", "name", "kind", "totalBytes", "freeBytes", "utilization", "temperature", "powerWatts", "runs"], devices[0].EnumerateObject().Select(p => p.Name));
        Assert.Equal(("cuda", "NVIDIA Test", 24_000L << 20, 23_000L << 20, 5.0, 41.0, 60.25), (
            devices[0].GetProperty("kind").GetString(), devices[0].GetProperty("name").GetString(), devices[0].GetProperty("totalBytes").GetInt64(), devices[0].GetProperty("freeBytes").GetInt64(),
            devices[0].GetProperty("utilization").GetDouble(), devices[0].GetProperty("temperature").GetDouble(), devices[0].GetProperty("powerWatts").GetDouble()));
        Assert.Equal(JsonValueKind.Null, devices[1].GetProperty("totalBytes").ValueKind);
        Assert.Equal("cpu", devices[2].GetProperty("kind").GetString());
        Assert.True(devices[2].GetProperty("totalBytes").GetInt64() > devices[2].GetProperty("freeBytes").GetInt64());
        Assert.All(devices, d => Assert.Empty(d.GetProperty("runs").EnumerateArray()));

        string model = Directory.CreateDirectory(_folder["model"]).FullName;
        await File.WriteAllTextAsync(Path.Combine(model, "model.safetensors"), "");
        using HttpResponseMessage added = await _http.PostAsJsonAsync("/api/runs", new { kind = "evaluate", name = "on the second", device = "cuda:1", evaluate = new { checkpoint = model } });
        string id = (await added.Content.ReadFromJsonAsync<JsonElement>()).GetProperty("id").GetString()!;
        JsonElement run = default;
        await Wait.UntilAsync(() =>
        {
            body = JsonDocument.Parse(_http.GetStringAsync("/api/devices").GetAwaiter().GetResult()).RootElement;
            run = body.GetProperty("devices")[1].GetProperty("runs").EnumerateArray().FirstOrDefault();
            return run.ValueKind != JsonValueKind.Undefined;
        }, "the run on cuda:1");
        Assert.Equal((id, "on the second"), (run.GetProperty("id").GetString(), run.GetProperty("name").GetString()));
        Assert.Contains(run.GetProperty("state").GetString(), Enum.GetNames<NopeGpt.Jobs.RunState>());
        Assert.Empty(body.GetProperty("devices")[0].GetProperty("runs").EnumerateArray());
    }
}

/// <summary>An nvidia-smi of two GPUs, of which one is known less well.</summary>
internal static class FakeGpus
{
    public static string Program(TemporaryFolder folder)
    {
        string path = folder["nvidia-smi"];
        File.WriteAllText(path, """
            #!/bin/sh
            echo '0, GPU-a, NVIDIA Test, 24000, 23000, 5, 41, 60.25'
            echo '1, GPU-b, NVIDIA Other, [N/A], [N/A], [N/A], 63, [N/A]'
            """);
        if (!OperatingSystem.IsWindows()) File.SetUnixFileMode(path, UnixFileMode.UserRead | UnixFileMode.UserWrite | UnixFileMode.UserExecute);
        return path;
    }
}
