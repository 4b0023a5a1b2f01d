using System.Diagnostics;
using System.Net.Http.Json;
using System.Text;
using System.Text.Json;
using NopeGpt.Jobs;
using NopeGpt.Jobs.Configuration;
using NopeGpt.Jobs.Queue;
using NopeGpt.Tests;
using NopeGpt.Web.Tests.Live;

namespace NopeGpt.Web.Tests.Faults;

/// <summary>The built dashboard as a process of its own, with real trainers. What it leaves working is ended with it.</summary>
internal sealed class DashboardProcess : IAsyncDisposable
{
    private static readonly TimeSpan Patience = TimeSpan.FromSeconds(60);
    private readonly StringBuilder _output = new();
    private readonly TaskCompletionSource<Uri> _listening = new(TaskCreationOptions.RunContinuationsAsynchronously);
    private readonly Process _process;

    private DashboardProcess(ProcessStartInfo start, string root)
    {
        Root = root;
        (start.RedirectStandardOutput, start.RedirectStandardError) = (true, true);
        start.Environment["DOTNET_ROOT"] = Path.GetDirectoryName(Chat.ModelFixture.Stub.FileName);
        _process = Process.Start(start)!;
        _process.OutputDataReceived += (_, e) => Take(e.Data);
        _process.ErrorDataReceived += (_, e) => Take(e.Data);
        _process.BeginOutputReadLine();
        _process.BeginErrorReadLine();
        _ = _process.WaitForExitAsync().ContinueWith(_ => _listening.TrySetException(new InvalidOperationException("the dashboard ended at its start:\n" + Output)), TaskScheduler.Default);
    }

    public static string Program => Path.Combine(AppContext.BaseDirectory, "NopeGpt.Web");

    /// <summary>As this process sees it.</summary>
    public string Root { get; set; }

    public int Id => _process.Id;

    /// <summary>Leaves trainers alone at the end, for the next dashboard.</summary>
    public bool LeaveTrainers { get; set; }

    public HttpClient Http { get; private set; } = null!;

    /// <summary>What it has printed.</summary>
    public string Output
    {
        get { lock (_output) return _output.ToString(); }
    }

    public static Task<DashboardProcess> StartAsync(string root, params string[] options) =>
        StartAsync(new ProcessStartInfo(Program, ["--root", root, "--urls", "http://127.0.0.1:0", .. options]), root);

    /// <param name="start">What ends in the dashboard's process.</param>
    public static async Task<DashboardProcess> StartAsync(ProcessStartInfo start, string root)
    {
        DashboardProcess dashboard = new(start, root);
        try
        {
            dashboard.Http = new HttpClient { BaseAddress = await dashboard._listening.Task.WaitAsync(Patience) };
            return dashboard;
        }
        catch
        {
            await dashboard.DisposeAsync();
            throw;
        }
    }

    /// <summary>Queues a run.</summary>
    /// <returns>Its id.</returns>
    public async Task<string> AddAsync(RunConfig config)
    {
        using HttpResponseMessage answer = await Http.PostAsJsonAsync("/api/runs", config, Settings.Json);
        JsonElement body = await answer.Content.ReadFromJsonAsync<JsonElement>();
        Assert.True(answer.IsSuccessStatusCode, body.ToString());
        return body.GetProperty("id").GetString()!;
    }

    public Task<JsonElement> RunAsync(string id) => Http.GetFromJsonAsync<JsonElement>($"/api/runs/{id}");

    public Task<JsonElement> UntilAsync(string id, RunState state) => UntilAsync(id, run => run.GetProperty("state").GetString() == state.ToString(), state.ToString());

    public async Task<JsonElement> UntilAsync(string id, Func<JsonElement, bool> condition, string what)
    {
        Stopwatch waited = Stopwatch.StartNew();
        while (true)
        {
            JsonElement run = await RunAsync(id);
            if (condition(run)) return run;
            if (waited.Elapsed > Patience) throw new TimeoutException($"never came: {what}; the run: {run}\n{Output}");
            await Task.Delay(50);
        }
    }

    public RunFolder Folder(string id) => RunFolder.Open(Path.Combine(Root, "runs", id));

    public void Kill() => ProcessSignals.Kill(_process.Id);

    public void Terminate() => ProcessSignals.Terminate(_process.Id);

    public async Task<int> EndAsync()
    {
        await _process.WaitForExitAsync().WaitAsync(Patience);
        return _process.ExitCode;
    }

    public async ValueTask DisposeAsync()
    {
        Http?.Dispose();
        if (!_process.HasExited)
        {
            Terminate();
            try { await _process.WaitForExitAsync().WaitAsync(Patience); }
            catch (TimeoutException) { _process.Kill(); }
        }
        foreach (TrainerIdentity trainer in LeaveTrainers ? [] : Trainers()) ProcessSignals.Kill(trainer.ProcessId);
        _process.Dispose();
    }

    /// <summary>Those that still work in the root.</summary>
    private IEnumerable<TrainerIdentity> Trainers()
    {
        string runs = Path.Combine(Root, "runs");
        if (!Directory.Exists(runs)) yield break;
        foreach (string path in Directory.EnumerateDirectories(runs).Where(p => File.Exists(Path.Combine(p, "run.json"))))
            if (RunFolder.Open(path).ReadIdentity() is { } identity && identity.ProcessId != Environment.ProcessId && Works(identity, path)) yield return identity;
    }

    private static bool Works(TrainerIdentity identity, string path)
    {
        try { return File.ReadAllText($"/proc/{identity.ProcessId}/cmdline").Contains(Path.GetFileName(path), StringComparison.Ordinal); }
        catch (IOException) { return false; }
    }

    // It says where it listens: "NopeGpt's dashboard: http://127.0.0.1:41234 (storage root ...)".
    private void Take(string? line)
    {
        if (line is null) return;
        lock (_output) _output.AppendLine(line);
        if (line.StartsWith("NopeGpt's dashboard: ", StringComparison.Ordinal)) _listening.TrySetResult(new Uri(line.Split(' ')[2]));
    }
}
