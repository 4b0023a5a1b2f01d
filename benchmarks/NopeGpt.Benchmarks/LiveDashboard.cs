using System.Diagnostics;
using System.Globalization;
using System.Text.Json;
using NopeGpt.Jobs;
using NopeGpt.Jobs.Training;

namespace NopeGpt.Benchmarks;

/// <summary>The built dashboard as a process of its own, over a store of its own and on a free port.</summary>
internal sealed class LiveDashboard : IDisposable
{
    private const string Program = "NopeGpt.Web.dll";
    private static readonly TimeSpan StartLimit = TimeSpan.FromSeconds(60), EndLimit = TimeSpan.FromSeconds(30);

    // Of /proc: hundredths of a second on every Linux that .NET runs on.
    private const double TicksPerSecond = 100;

    private readonly Process _process;

    private LiveDashboard(Process process, string url) => (_process, Url) = (process, url);

    public string Url { get; }

    /// <summary>Its processor time so far, in seconds.</summary>
    public double ProcessorSeconds => File.ReadAllText($"/proc/{_process.Id}/stat").Split(") ")[^1].Split(' ')[11..13].Sum(f => double.Parse(f, CultureInfo.InvariantCulture)) / TicksPerSecond;

    /// <returns>Null where it is not built.</returns>
    public static LiveDashboard? Start(Store store)
    {
        // bin/CONFIGURATION/FRAMEWORK/RUNTIME/: the dashboard's folder ends as ours does.
        string own = AppContext.BaseDirectory.TrimEnd('/');
        string? program = Prose.Above("NopeGpt.Web/bin") is { } bin ? Path.Combine(bin, own[(own.LastIndexOf("/bin/", StringComparison.Ordinal) + "/bin/".Length)..], Program) : null;
        if (!File.Exists(program)) return null;
        Process process = Process.Start(new ProcessStartInfo("dotnet", [program, "--root", store.Root, "--urls", "http://127.0.0.1:0"]) { RedirectStandardOutput = true, RedirectStandardInput = true })!;
        process.OutputDataReceived += (_, _) => { };
        process.BeginOutputReadLine();
        long start = Stopwatch.GetTimestamp();
        while (!File.Exists(store.DashboardPath))
        {
            if (process.HasExited || Stopwatch.GetElapsedTime(start) > StartLimit) throw new InvalidOperationException("the dashboard did not start");
            Thread.Sleep(20);
        }
        return new LiveDashboard(process, JsonSerializer.Deserialize<DashboardAddress>(File.ReadAllText(store.DashboardPath), TrainingEvent.Json)!.Url);
    }

    public void Dispose()
    {
        using (Process asked = Process.Start("kill", ["-TERM", _process.Id.ToString(CultureInfo.InvariantCulture)])) asked.WaitForExit();
        if (!_process.WaitForExit(EndLimit)) _process.Kill();
        _process.Dispose();
    }
}
