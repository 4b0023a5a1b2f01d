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
