using System.Diagnostics;
using System.Runtime.InteropServices;
using NopeGpt.Tests;

namespace NopeGpt.Browser.Tests;

/// <summary>The built dashboard as a process of its own, on a free port of this machine and a storage root of its own.</summary>
internal sealed class RunningDashboard : IAsyncDisposable
{
    private static readonly TimeSpan StartLimit = TimeSpan.FromSeconds(60);
    private static readonly TimeSpan EndLimit = TimeSpan.FromSeconds(90);

    private readonly TemporaryFolder _root = new();
    private readonly List<string> _output = [];
    private Process? _process;

    /// <summary>For example http://127.0.0.1:41234.</summary>
    public string Address { get; private set; } = "";

    /// <summary>Its storage root.</summary>
    public string Root => _root.Path;

    /// <summary>What the dashboard has printed: for the message of a test that fails.</summary>
    public string Output
    {
        get { lock (_output) return string.Join('\n', _output); }
    }

    public static async Task<RunningDashboard> StartAsync()
    {
        RunningDashboard dashboard = new();
        try
        {
            await dashboard.RunAsync();
            return dashboard;
        }
        catch
        {
            await dashboard.DisposeAsync();
            throw;
        }
    }

    private async Task RunAsync()
    {
        string dotnet = Path.GetFullPath(Path.Combine(RuntimeEnvironment.GetRuntimeDirectory(), "../../../dotnet"));
        string program = Path.Combine(AppContext.BaseDirectory, "NopeGpt.Web.dll");
        ProcessStartInfo start = new(dotnet, [program, "--root", _root.Path, "--urls", "http://127.0.0.1:0"]) { RedirectStandardOutput = true, RedirectStandardError = true, RedirectStandardInput = true };
        TaskCompletionSource<string> listening = new(TaskCreationOptions.RunContinuationsAsynchronously);
        _process = Process.Start(start)!;
        _process.OutputDataReceived += (_, e) => Read(e.Data, listening);
        _process.ErrorDataReceived += (_, e) => Read(e.Data, listening);
        _process.BeginOutputReadLine();
        _process.BeginErrorReadLine();
        _ = _process.WaitForExitAsync().ContinueWith(_ => listening.TrySetException(new InvalidOperationException("the dashboard ended at its start:\n" + Output)), TaskScheduler.Default);
        Address = await listening.Task.WaitAsync(StartLimit);
    }

    // It says where it listens: "NopeGpt's dashboard: http://127.0.0.1:41234 (storage root ...)".
    private void Read(string? line, TaskCompletionSource<string> listening)
    {
        if (line is null) return;
        lock (_output) _output.Add(line);
        int at = line.IndexOf("http://127.0.0.1:", StringComparison.Ordinal);
        if (line.Contains("dashboard", StringComparison.OrdinalIgnoreCase) && at >= 0) listening.TrySetResult(line[at..].Split(' ')[0].TrimEnd('/'));
    }

    public async ValueTask DisposeAsync()
    {
        if (_process is { HasExited: false } running)
        {
            // SIGTERM, as a service manager would: trainers save and end, the model process ends.
            using Process kill = Process.Start("kill", ["-TERM", running.Id.ToString()]);
            await kill.WaitForExitAsync();
            using CancellationTokenSource limit = new(EndLimit);
            try { await running.WaitForExitAsync(limit.Token); }
            catch (OperationCanceledException) { running.Kill(entireProcessTree: true); }
        }
        _process?.Dispose();
        _root.Dispose();
    }
}
