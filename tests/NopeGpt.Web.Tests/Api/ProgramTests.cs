using System.Diagnostics;
using System.Runtime.Versioning;
using NopeGpt.Jobs;
using NopeGpt.Tests;
using NopeGpt.Web.Tests.Live;

namespace NopeGpt.Web.Tests.Api;

/// <summary>The dashboard as it is started: its own process, from any folder.</summary>
public sealed class ProgramTests : IDisposable
{
    private readonly TemporaryFolder _folder = new();

    public void Dispose() => _folder.Dispose();

    [Fact, UnsupportedOSPlatform("windows")]
    public async Task It_tells_where_it_is_serves_its_scripts_and_takes_its_file_back_at_the_end()
    {
        using Process process = Start("--urls", "http://127.0.0.1:0", "--root", _folder["root"]);
        string line = await process.StandardOutput.ReadLineAsync().WaitAsync(Wait.Longest) ?? await process.StandardError.ReadToEndAsync();
        Assert.Contains(_folder["root"], line, StringComparison.Ordinal);
        Uri url = new(line.Split(' ').First(w => w.StartsWith("http://", StringComparison.Ordinal)));
        string file = Path.Combine(_folder["root"], "dashboard.json");
        Assert.Equal(UnixFileMode.UserRead | UnixFileMode.UserWrite, File.GetUnixFileMode(file));
        Assert.Contains(url.GetLeftPart(UriPartial.Authority), await File.ReadAllTextAsync(file), StringComparison.Ordinal);
        using HttpClient http = new() { BaseAddress = url };
        Assert.InRange((await http.GetByteArrayAsync("_framework/blazor.web.js")).Length, 50_000, 5_000_000);
        Assert.InRange((await http.GetByteArrayAsync("_content/MudBlazor/MudBlazor.min.css")).Length, 50_000, 5_000_000);
        Assert.Contains("Hangfire", await http.GetStringAsync("hangfire"), StringComparison.OrdinalIgnoreCase);

        (int second, string why) = await RunAsync("--urls", "http://127.0.0.1:0", "--root", _folder["root"]);
        Assert.Equal(ExitCode.BadConfiguration, second);
        Assert.Contains("another dashboard", why, StringComparison.Ordinal);
        (int taken, string sentence) = await RunAsync("--urls", url.GetLeftPart(UriPartial.Authority), "--root", _folder["other"]);
        Assert.Equal(ExitCode.BadConfiguration, taken);
        Assert.Contains($"{url.GetLeftPart(UriPartial.Authority)} is in use", sentence, StringComparison.Ordinal);

        using Process kill = Process.Start("/bin/kill", ["-TERM", process.Id.ToString()]);
        await process.WaitForExitAsync().WaitAsync(Wait.Longest);
        Assert.Equal(0, process.ExitCode);
        Assert.False(File.Exists(file));
    }

    /// <param name="moment">What the dashboard has done by then. Before it locks the store it may be too young to listen to signals at all.</param>
    [Theory, UnsupportedOSPlatform("windows")]
    [InlineData("process", "TERM")]
    [InlineData("lock", "TERM")]
    [InlineData("lock", "INT")]
    [InlineData("database", "TERM")]
    [InlineData("keys", "TERM")]
    [InlineData("port", "TERM")]
    [InlineData("first line", "INT")]
    public async Task Asked_to_end_while_it_starts_it_ends_at_once_without_an_error(string moment, string signal)
    {
        string root = _folder["root"];
        Random random = new(moment.Length);
        // The moment itself, and some milliseconds into what follows it.
        for (int attempt = 0; attempt < 2; attempt++)
        {
            using Process process = Start("--urls", "http://127.0.0.1:0", "--root", root);
            Task<string> error = process.StandardError.ReadToEndAsync();
            if (moment == "first line") await process.StandardOutput.ReadLineAsync().WaitAsync(Wait.Longest);
            else await Wait.UntilAsync(() => process.HasExited || HasCome(moment, root, process.Id), moment);
            Assert.False(process.HasExited, $"it ended before: {moment}");
            if (attempt > 0) Thread.Sleep(random.Next(60));
            using (Process kill = Process.Start("/bin/kill", ["-" + signal, process.Id.ToString()])) await kill.WaitForExitAsync();
            await process.WaitForExitAsync().WaitAsync(Wait.Longest);
            Assert.Equal("", await error);
            if (moment == "process") Assert.Contains(process.ExitCode, new[] { 0, 128 + 15 });
            else Assert.Equal(0, process.ExitCode);
            Assert.Empty(Directory.Exists(root) ? Directory.EnumerateFiles(root, "dashboard.json*") : []);
            if (Directory.Exists(root)) Directory.Delete(root, recursive: true);
        }
    }

    private static bool HasCome(string moment, string root, int process) => moment switch
    {
        "process" => true,
        "lock" => File.Exists(Path.Combine(root, "dashboard.lock")),
        "database" => File.Exists(Path.Combine(root, "nopegpt.db")),
        "keys" => Directory.Exists(Path.Combine(root, "cache", "keys")),
        "port" => Listens(process),
        _ => throw new ArgumentOutOfRangeException(nameof(moment), moment, null),
    };

    /// <summary>Whether a socket of the process is in the system's table in the state of listening.</summary>
    private static bool Listens(int process)
    {
        try
        {
            HashSet<string> sockets = [.. Directory.EnumerateFiles($"/proc/{process}/fd").Select(f => new FileInfo(f).LinkTarget ?? "").Where(t => t.StartsWith("socket:[", StringComparison.Ordinal)).Select(t => t[8..^1])];
            const int state = 3, inode = 9;
            return File.ReadLines("/proc/net/tcp").Skip(1).Select(line => line.Split(' ', StringSplitOptions.RemoveEmptyEntries)).Any(f => f[state] == "0A" && sockets.Contains(f[inode]));
        }
        catch (IOException)
        {
            return false;
        }
    }

    [Fact, UnsupportedOSPlatform("windows")]
    public async Task A_start_warns_of_nothing_the_first_time_and_the_next()
    {
        for (int time = 0; time < 2; time++)
        {
            using Process process = Start("--urls", "http://127.0.0.1:0", "--root", _folder["root"], "--Logging:LogLevel:Microsoft.Hosting.Lifetime=Information");
            Task<string> error = process.StandardError.ReadToEndAsync();
            List<string> told = [];
            while (told.Count == 0 || !told[^1].Contains("NopeGpt's dashboard:", StringComparison.Ordinal))
                told.Add(await process.StandardOutput.ReadLineAsync().WaitAsync(Wait.Longest) ?? throw new InvalidOperationException(string.Join('\n', told) + await error));
            using (Process kill = Process.Start("/bin/kill", ["-TERM", process.Id.ToString()])) await kill.WaitForExitAsync();
            told.AddRange((await process.StandardOutput.ReadToEndAsync().WaitAsync(Wait.Longest)).Split('\n'));
            await process.WaitForExitAsync().WaitAsync(Wait.Longest);
            Assert.Equal("", await error);
            Assert.Contains(told, line => line.StartsWith("info:", StringComparison.Ordinal));
            Assert.DoesNotContain(told, line => line.StartsWith("warn:", StringComparison.Ordinal) || line.StartsWith("fail:", StringComparison.Ordinal) || line.StartsWith("crit:", StringComparison.Ordinal));
        }
    }

    [Theory]
    [InlineData("--urls=http://0.0.0.0:5080", "other machines")]
    [InlineData("--urls=http://*:5080", "http://*:5080")]
    [InlineData("--urls=https://127.0.0.1:5080", "not an address")]
    [InlineData("--urls=5080", "not an address")]
    [InlineData("--urls=http://127.0.0.1:0/x", "has a path")]
    [InlineData("--urls=http://localhost:0", "http://127.0.0.1:0")]
    [InlineData("--environment=Development", "--environment is not an option")]
    [InlineData("--Jobs:OnShutdwn=Detach", "did you mean Jobs:OnShutdown?")]
    [InlineData("--Torch:LibraryPath=/lib", "NOPEGPT_Torch__LibraryPath")]
    [InlineData("--port=5080", "--port is not an option")]
    [InlineData("fast", "'fast' is not an option")]
    [InlineData("--root", "--root needs a value")]
    [InlineData("--Serve:IdleMinutes=soon", "Serve:IdleMinutes = soon")]
    [InlineData("--root=/proc/nopegpt", "/proc/nopegpt")]
    public async Task A_mistake_is_told_in_one_sentence(string argument, string says)
    {
        (int code, string sentence) = await RunAsync(argument.StartsWith("--urls", StringComparison.Ordinal) ? [argument] : ["--urls=http://127.0.0.1:0", argument]);
        Assert.NotEqual(0, code);
        Assert.Contains(says, sentence, StringComparison.Ordinal);
        Assert.Single(sentence.Split('\n', StringSplitOptions.RemoveEmptyEntries));
    }

    private Process Start(params string[] arguments)
    {
        ProcessStartInfo start = new(Path.Combine(AppContext.BaseDirectory, "NopeGpt.Web"), arguments)
        {
            RedirectStandardOutput = true,
            RedirectStandardError = true,
            WorkingDirectory = _folder.Path,
        };
        start.Environment["DOTNET_ROOT"] = Path.GetDirectoryName(Chat.ModelFixture.Stub.FileName);
        start.Environment["NOPEGPT_Storage__Root"] = _folder["from-environment"];
        return Process.Start(start)!;
    }

    private async Task<(int Code, string Error)> RunAsync(params string[] arguments)
    {
        using Process process = Start(arguments);
        string error = await process.StandardError.ReadToEndAsync().WaitAsync(Wait.Longest);
        await process.WaitForExitAsync().WaitAsync(Wait.Longest);
        return (process.ExitCode, error);
    }
}
