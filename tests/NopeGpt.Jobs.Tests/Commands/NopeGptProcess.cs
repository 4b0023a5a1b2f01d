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

    public NopeGptProcess(params string[] arguments) : this(new Dictionary<string, string>(), arguments)
    {
    }

    public NopeGptProcess(IReadOnlyDictionary<string, string> environment, string[] arguments)
    {
        ProcessStartInfo start = new(Path.Combine(AppContext.BaseDirectory, "nopegpt"), arguments)
        {
            RedirectStandardInput = true,
            RedirectStandardOutput = true,
            RedirectStandardError = true,
            StandardOutputEncoding = new UTF8Encoding(false, throwOnInvalidBytes: true),
        };
        foreach ((string name, string value) in environment) start.Environment[name] = value;
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

    public bool HasExited => _process.HasExited;

    /// <summary>What the process reads; closing it is the end of the input.</summary>
    public Stream Input => _process.StandardInput.BaseStream;

    public string Output
    {
        get
        {
            lock (_output) return _output.ToString();
        }
    }

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

    /// <summary>As the other, with something on stdin.</summary>
    public static async Task<(int Code, string Output, string Errors)> RunWithInputAsync(byte[] input, params string[] arguments)
    {
        using NopeGptProcess process = new(arguments);
        try
        {
            await process.Input.WriteAsync(input);
            process.Input.Close();
        }
        catch (IOException) { /* it has ended without reading all of it */ }
        return await process.EndAsync();
    }

    public async Task<(int Code, string Output, string Errors)> EndAsync()
    {
        using CancellationTokenSource limit = new(TimeSpan.FromSeconds(60));
        await _process.WaitForExitAsync(limit.Token);
        await _reading;
        return (_process.ExitCode, Output, Errors);
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
            lock (_output) _output.Append(buffer, 0, count);
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
