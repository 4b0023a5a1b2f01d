using System.Diagnostics;
using System.Text;

namespace NopeGpt.Jobs.Tests.Commands;

/// <summary>The built program as a process.</summary>
internal sealed class NopeGptProcess : IDisposable
{
    private readonly Process _process;
    private readonly StringBuilder _errors = new();
    private readonly StringBuilder _output = new();
    private readonly Task _reading;
    private int _written;

    public NopeGptProcess(params string[] arguments)
    {
        ProcessStartInfo start = new(Path.Combine(AppContext.BaseDirectory, "nopegpt"), arguments)
        {
            RedirectStandardOutput = true,
            RedirectStandardError = true,
            StandardOutputEncoding = new UTF8Encoding(false, throwOnInvalidBytes: true),
        };
        _process = Process.Start(start)!;
        _process.ErrorDataReceived += (_, line) =>
        {
            if (line.Data is null) return;
            lock (_errors) _errors.AppendLine(line.Data);
        };
        _process.BeginErrorReadLine();
        _reading = ReadOutputAsync();
    }

    public int Id => _process.Id;

    public string Errors
    {
        get
        {
            lock (_errors) return _errors.ToString();
        }
    }

    public static async Task<(int Code, string Output, string Errors)> RunAsync(params string[] arguments)
    {
        using NopeGptProcess process = new(arguments);
        return await process.EndAsync();
    }

    public async Task<(int Code, string Output, string Errors)> EndAsync()
    {
        using CancellationTokenSource limit = new(TimeSpan.FromSeconds(60));
        await _process.WaitForExitAsync(limit.Token);
        await _reading;
        return (_process.ExitCode, _output.ToString(), Errors);
    }

    /// <summary>Waits until the process has written so many characters.</summary>
    public async Task HasWrittenAsync(int characters)
    {
        using CancellationTokenSource limit = new(TimeSpan.FromSeconds(60));
        while (Volatile.Read(ref _written) < characters) await Task.Delay(20, limit.Token);
    }

    /// <summary>Waits until the process has said something on its error stream.</summary>
    public async Task SaysAsync(string text)
    {
        using CancellationTokenSource limit = new(TimeSpan.FromSeconds(60));
        while (!Errors.Contains(text, StringComparison.Ordinal))
        {
            Assert.False(_process.HasExited, Errors);
            await Task.Delay(20, limit.Token);
        }
    }

    private async Task ReadOutputAsync()
    {
        char[] buffer = new char[1024];
        while (await _process.StandardOutput.ReadAsync(buffer) is var count and > 0)
        {
            _output.Append(buffer, 0, count);
            Volatile.Write(ref _written, _output.Length);
        }
    }

    public void Signal(string signal)
    {
        using Process kill = Process.Start("kill", [$"-{signal}", Id.ToString()]);
        kill.WaitForExit();
    }

    public void Dispose()
    {
        if (!_process.HasExited) _process.Kill();
        _process.Dispose();
    }
}
