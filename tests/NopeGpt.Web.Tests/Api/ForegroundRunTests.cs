using System.Diagnostics;
using System.Net.Http.Json;
using System.Text.Json;
using NopeGpt.Jobs;
using NopeGpt.Jobs.Training;
using NopeGpt.Tests;
using NopeGpt.Web.Tests.Live;

namespace NopeGpt.Web.Tests.Api;

/// <summary>`nopegpt pretrain` beside a dashboard that is its own process: what either shows of the other's runs.</summary>
public sealed class ForegroundRunTests : IAsyncLifetime, IDisposable
{
    private readonly TemporaryFolder _folder = new();
    private readonly HttpClient _http = new();
    private Process _dashboard = null!;

    private Store Store => new(_folder["root"]);

    public async Task InitializeAsync()
    {
        RunFolder prepare = RunFolder.Create(Store, new RunRecord(1, "20260101-000000-0000", DateTimeOffset.UnixEpoch, [],
            new RunConfig { Kind = RunKind.Prepare, Prepare = new PrepareConfig { CorpusBytes = 60_000, VocabularySize = 400, Dataset = "small" } }));
        Assert.Equal(ExitCode.Done, await TrainerProcessMain.RunAsync(prepare.Path, Store, false, null, default));
        _dashboard = Start("NopeGpt.Web", "--urls", "http://127.0.0.1:0", "--root", Store.Root);
        string line = await _dashboard.StandardOutput.ReadLineAsync().WaitAsync(Wait.Longest) ?? await _dashboard.StandardError.ReadToEndAsync();
        _http.BaseAddress = new Uri(line.Split(' ').First(w => w.StartsWith("http://", StringComparison.Ordinal)));
    }

    public async Task DisposeAsync()
    {
        _dashboard.Kill();
        await _dashboard.WaitForExitAsync();
        _dashboard.Dispose();
    }

    public void Dispose()
    {
        _http.Dispose();
        _folder.Dispose();
    }

    [Fact]
    public async Task A_run_in_the_foreground_is_seen_live_and_afterwards_and_one_with_queue_is_run()
    {
        using Process person = Pretrain("by hand", "--max_steps", "100000");
        JsonElement live = await UntilAsync("by hand", r => r.GetProperty("state").GetString() == "Running" && r.GetProperty("metrics").TryGetProperty("train/loss", out _));
        string path = $"api/runs/{live.GetProperty("id").GetString()}";
        long step = live.GetProperty("step").GetInt64();
        await UntilAsync("by hand", r => r.GetProperty("step").GetInt64() > step);
        using (HttpResponseMessage stop = await _http.PostAsync($"{path}/stop", null)) Assert.True(stop.IsSuccessStatusCode);
        await person.WaitForExitAsync().WaitAsync(Wait.Longest);
        Assert.Equal(ExitCode.StoppedAndSaved, person.ExitCode);
        JsonElement ended = await UntilAsync("by hand", r => r.GetProperty("state").GetString() == "Interrupted");
        Assert.StartsWith("stopped and saved at step ", ended.GetProperty("reason").GetString(), StringComparison.Ordinal);
        Assert.NotEmpty(ended.GetProperty("checkpoints").EnumerateArray());

        using Process queued = Pretrain("for the dashboard", "--max_steps", "5", "--queue");
        await queued.WaitForExitAsync().WaitAsync(Wait.Longest);
        Assert.Equal(0, queued.ExitCode);
        JsonElement done = await UntilAsync("for the dashboard", r => r.GetProperty("state").GetString() == "Completed");
        Assert.Equal(5, done.GetProperty("step").GetInt64());
    }

    private Process Pretrain(string name, params string[] more) => Start("nopegpt",
    [
        "pretrain", "--root", Store.Root, "--dataset", "small", "--name", name, "--tokens_per_sample", "32", "--num_eval_samples", "8", "--embedding_dimensions", "32", "--num_q_heads", "4", "--num_kv_heads", "2",
        "--num_decoder_layers", "1", "--batch_size", "2", "--warmup_steps", "0", "--eval_interval", "0", "--sample_tokens", "0", "--checkpoint_interval", "100000", "--threads", "1", "--device", "cpu", .. more,
    ]);

    private async Task<JsonElement> UntilAsync(string name, Func<JsonElement, bool> condition)
    {
        using CancellationTokenSource limit = new(Wait.Longest);
        while (true)
        {
            foreach (JsonElement run in (await _http.GetFromJsonAsync<JsonElement>("api/runs", limit.Token)).EnumerateArray().Where(r => r.GetProperty("name").GetString() == name))
            {
                JsonElement whole = await _http.GetFromJsonAsync<JsonElement>($"api/runs/{run.GetProperty("id").GetString()}", limit.Token);
                if (condition(whole)) return whole;
            }
            await Task.Delay(50, limit.Token);
        }
    }

    private static Process Start(string program, params string[] arguments)
    {
        ProcessStartInfo start = new(Path.Combine(AppContext.BaseDirectory, program), arguments) { RedirectStandardOutput = true, RedirectStandardError = true };
        start.Environment["DOTNET_ROOT"] = Path.GetDirectoryName(Chat.ModelFixture.Stub.FileName);
        Process process = Process.Start(start)!;
        if (program != "NopeGpt.Web") process.BeginErrorReadLine();
        return process;
    }
}
