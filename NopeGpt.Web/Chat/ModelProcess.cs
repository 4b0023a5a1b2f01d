using System.Diagnostics;
using System.Net.Sockets;
using System.Runtime.InteropServices;
using NopeGpt.Jobs;
using NopeGpt.Jobs.Queue;

namespace NopeGpt.Web.Chat;

/// <summary>The one `nopegpt serve` of the storage root: started when it is needed, one start at a time; one that an earlier dashboard
/// left behind is used as it is. Only what this one has started is stopped with it.</summary>
public sealed class ModelProcess : IAsyncDisposable
{
    private static readonly TimeSpan HealthTimeout = TimeSpan.FromSeconds(2);
    private static readonly TimeSpan EndGrace = TimeSpan.FromSeconds(5);
    private static readonly TimeSpan DeathTold = TimeSpan.FromSeconds(1);
    private const int LastLines = 20;

    private readonly Store _store;
    private readonly TrainerProgram _program;
    private readonly ModelProcessOptions _options;
    private readonly ILogger<ModelProcess> _logger;
    private readonly HttpClient _http;
    private readonly SemaphoreSlim _starting = new(1);
    private readonly Queue<string> _lines = [];
    private Process? _process;
    private volatile bool _answers;

    public ModelProcess(Store store, TrainerProgram program, ModelProcessOptions options, ILogger<ModelProcess> logger)
    {
        _store = store;
        _program = program;
        _options = options;
        _logger = logger;
        SocketsHttpHandler handler = new()
        {
            UseProxy = false,
            // A connection of its own for each request: one that is kept would break when the process has ended meanwhile, and look like a lost reply.
            PooledConnectionLifetime = TimeSpan.Zero,
            ConnectCallback = async (_, cancel) =>
            {
                Socket socket = new(AddressFamily.Unix, SocketType.Stream, ProtocolType.Unspecified);
                try
                {
                    await socket.ConnectAsync(new UnixDomainSocketEndPoint(_store.ServeSocketPath), cancel);
                    return new NetworkStream(socket, ownsSocket: true);
                }
                catch
                {
                    socket.Dispose();
                    throw;
                }
            },
        };
        _http = new HttpClient(handler) { BaseAddress = new Uri("http://localhost"), Timeout = Timeout.InfiniteTimeSpan };
    }

    /// <summary>A client that reaches the process, which runs and answers.</summary>
    /// <exception cref="InferenceException">It does not start.</exception>
    internal async Task<HttpClient> EnsureAsync(CancellationToken cancel)
    {
        await _starting.WaitAsync(cancel);
        try
        {
            // A process that lives may not listen yet: its start may have been left by a caller who did not wait for the end of it.
            if (_answers && _process is { HasExited: false }) return _http;
            if (!await IsHealthyAsync(cancel)) await StartAsync(cancel);
            _answers = true;
            return _http;
        }
        finally
        {
            _starting.Release();
        }
    }

    /// <summary>Says that the process could not be reached: the next request looks again, and starts a new one.</summary>
    internal void Forget()
    {
        _answers = false;
        if (_process is { HasExited: true }) _process = null;
    }

    /// <summary>The sentence for a reply that broke off: why the process ended, where that is known.</summary>
    internal async Task<string> DescribeEndAsync()
    {
        Process? process = _process;
        string why = "";
        if (process is not null)
        {
            // The connection breaks a moment before the kernel tells how the process ended.
            using CancellationTokenSource patience = new(DeathTold);
            try { await process.WaitForExitAsync(patience.Token); }
            catch (OperationCanceledException) { return "The model process closed the connection in the middle of the reply. Ask again."; }
            why = " " + How(process.ExitCode);
        }
        return $"The model process ended unexpectedly{why}. Ask again: it starts anew.";
    }

    public async ValueTask DisposeAsync()
    {
        if (_process is { HasExited: false } process)
        {
            _ = Signal(process.Id, Terminate);
            using CancellationTokenSource patience = new(EndGrace);
            try { await process.WaitForExitAsync(patience.Token); }
            catch (OperationCanceledException) { process.Kill(entireProcessTree: true); }
        }
        _process?.Dispose();
        _process = null;
        _http.Dispose();
        _starting.Dispose();
    }

    private async Task<bool> IsHealthyAsync(CancellationToken cancel)
    {
        using CancellationTokenSource patience = CancellationTokenSource.CreateLinkedTokenSource(cancel);
        patience.CancelAfter(HealthTimeout);
        try
        {
            using HttpResponseMessage answer = await _http.GetAsync("/health", patience.Token);
            return answer.IsSuccessStatusCode;
        }
        catch (HttpRequestException) { return false; }
        catch (OperationCanceledException) when (!cancel.IsCancellationRequested) { return false; }
    }

    private async Task StartAsync(CancellationToken cancel)
    {
        bool isFresh = _process is not { HasExited: false };
        Process process = isFresh ? Relaunch() : _process!;
        Stopwatch waited = Stopwatch.StartNew();
        while (!await IsHealthyAsync(cancel))
        {
            if (process.HasExited && !isFresh)
            {
                // It was starting, or unwell, before this caller came: its end says nothing about a new one.
                (process, isFresh) = (Relaunch(), true);
                waited.Restart();
            }
            else if (process.HasExited)
            {
                await process.WaitForExitAsync(cancel); // the last lines
                throw new InferenceException($"The model process did not start {How(process.ExitCode)}{Said()}");
            }
            if (waited.Elapsed > _options.StartTimeout)
            {
                process.Kill(entireProcessTree: true);
                throw new InferenceException($"The model process did not answer within {_options.StartTimeout.TotalSeconds:0} s and was ended{Said()}");
            }
            await Task.Delay(25, cancel);
        }
    }

    private Process Relaunch()
    {
        _answers = false;
        _process?.Dispose();
        _process = null;
        lock (_lines) _lines.Clear();
        return _process = Launch();
    }

    private Process Launch()
    {
        ProcessStartInfo start = new(_program.FileName, [.. _program.Arguments, "serve", "--root", _store.Root, "--socket", _store.ServeSocketPath, "--idle-minutes", _options.IdleMinutes.ToString()])
        {
            RedirectStandardOutput = true,
            RedirectStandardError = true,
            RedirectStandardInput = true,
            WorkingDirectory = _store.Root,
        };
        TrainerProgram.Prepare(start);
        try
        {
            Process process = Process.Start(start) ?? throw new InvalidOperationException("no process came");
            process.OutputDataReceived += (_, line) => Keep(line.Data);
            process.ErrorDataReceived += (_, line) => Keep(line.Data);
            process.BeginOutputReadLine();
            process.BeginErrorReadLine();
            return process;
        }
        catch (Exception e) when (e is System.ComponentModel.Win32Exception or InvalidOperationException)
        {
            throw new InferenceException($"The model process cannot be started ({_program.FileName}: {e.Message.TrimEnd('.')}). Build or publish the dashboard again.", e);
        }
    }

    private void Keep(string? line)
    {
        if (string.IsNullOrWhiteSpace(line)) return;
        _logger.LogDebug("serve: {Line}", line);
        lock (_lines)
        {
            _lines.Enqueue(line);
            if (_lines.Count > LastLines) _lines.Dequeue();
        }
    }

    private string Said()
    {
        lock (_lines) return _lines.Count == 0 ? "." : ": " + _lines.Last();
    }

    /// <summary>A process that a signal has ended has the code 128 + its number.</summary>
    private static string How(int exitCode) => exitCode switch
    {
        128 + 9 => "(killed, signal 9)",
        > 128 and < 128 + 65 => $"(signal {exitCode - 128})",
        _ => $"(exit code {exitCode})",
    };

    private const int Terminate = 15;

    [DllImport("libc", EntryPoint = "kill")]
    [DefaultDllImportSearchPaths(DllImportSearchPath.SafeDirectories)]
    private static extern int Signal(int processId, int signal);
}
