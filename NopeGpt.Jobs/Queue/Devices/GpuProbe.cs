using System.ComponentModel;
using System.Diagnostics;
using System.Text;
using Microsoft.Extensions.Logging;

namespace NopeGpt.Jobs.Queue;

/// <summary>What was found of GPUs.</summary>
/// <param name="Gpus">As CUDA numbers them for a process: the first is cuda:0.</param>
/// <param name="Problem">Why there may be more than that: the program that tells of them failed. Null where all is known.</param>
internal sealed record GpuReading(IReadOnlyList<Gpu> Gpus, string? Problem)
{
    public static readonly GpuReading None = new([], null);
}

/// <summary>Asks nvidia-smi for this machine's GPUs. It never throws and loads nothing of CUDA; what goes wrong is said once in the log.</summary>
/// <param name="files">Tells whether there is a driver to ask.</param>
/// <param name="visible">CUDA_VISIBLE_DEVICES as trainers get it; null where it is not set.</param>
internal sealed class GpuProbe(DeviceOptions options, HostFiles files, string? visible, TimeProvider time, ILogger<GpuProbe> log)
{
    private const int MostBytes = 1 << 18, TextFileBusy = 26, MostStarts = 20;
    private static readonly TimeSpan StartAgainAfter = TimeSpan.FromMilliseconds(25);
    private static readonly TimeSpan Fresh = TimeSpan.FromSeconds(2), FreshAfterFailure = TimeSpan.FromSeconds(10);
    private readonly Lock gate = new();
    private GpuReading last = GpuReading.None;
    private long asked;
    private bool known;
    private string? said;

    /// <summary>What the program has to answer in; then it is killed.</summary>
    public TimeSpan Patience { get; init; } = TimeSpan.FromSeconds(5);

    private string Program => options.NvidiaSmi.Length > 0 ? options.NvidiaSmi : "nvidia-smi";

    /// <summary>The GPUs as they were within the last two seconds. Of several who ask at a time one starts the program, and the others wait for its answer.</summary>
    public GpuReading Read()
    {
        if (options.NvidiaSmi.Length == 0 && !files.HasNvidiaDriver) return GpuReading.None;
        lock (gate)
        {
            if (known && time.GetElapsedTime(asked) < (last.Problem is null ? Fresh : FreshAfterFailure)) return last;
            last = Ask();
            (asked, known) = (time.GetTimestamp(), true);
            if (last.Problem is { } problem && problem != said) log.LogWarning("This machine's GPUs are not known: {Problem}. Jobs:NvidiaSmi names the program that tells of them", problem);
            said = last.Problem;
            return last;
        }
    }

    private GpuReading Ask()
    {
        try
        {
            (int? code, string text, string errors) = Run();
            if (code is null) return new([], $"{Program} did not answer within {Patience.TotalSeconds:0.#} s");
            IReadOnlyList<Gpu> gpus = GpuList.Parse(text);
            if (gpus.Count > 0) return new(GpuList.Visible(gpus, visible), null);
            // It tells its errors on either stream.
            string told = FirstLine(text) ?? FirstLine(errors) ?? "nothing";
            return code == 0 && text.Trim().Length == 0 ? GpuReading.None : new([], $"{Program} ended with code {code} and said: {told}");
        }
        catch (Exception e) when (e is Win32Exception or IOException or InvalidOperationException or UnauthorizedAccessException or ArgumentException)
        {
            return new([], $"{Program} cannot be started ({e.Message.Split('\n')[0].TrimEnd('.')})");
        }
    }

    /// <returns>The exit code, null for a program that had to be killed, and what it wrote.</returns>
    private (int? Code, string Output, string Errors) Run()
    {
        ProcessStartInfo info = new(Program, [$"--query-gpu={GpuList.Fields}", "--format=csv,noheader,nounits"])
        {
            UseShellExecute = false, RedirectStandardOutput = true, RedirectStandardError = true, RedirectStandardInput = true,
        };
        TrainerProgram.Prepare(info);
        info.Environment["LC_ALL"] = "C";
        using Process process = Start(info);
        using CancellationTokenSource late = new(Patience);
        try
        {
            process.StandardInput.Close();
            Task<string> output = ReadAsync(process.StandardOutput.BaseStream, late), errors = ReadAsync(process.StandardError.BaseStream, late);
            Task.WhenAll(output, errors, process.WaitForExitAsync(CancellationToken.None)).Wait(late.Token);
            return (process.ExitCode, output.Result, errors.Result);
        }
        catch (OperationCanceledException)
        {
            // With what it has started: a script's children hold its output.
            try { process.Kill(entireProcessTree: true); }
            catch (Exception e) when (e is InvalidOperationException or Win32Exception or AggregateException) { /* it has ended by itself meanwhile */ }
            return (null, "", "");
        }
    }

    /// <summary>Waits a moment for a program that is just being written, as at an update of the driver.</summary>
    private static Process Start(ProcessStartInfo info)
    {
        for (int attempt = 1; ; attempt++)
        {
            try { return Process.Start(info)!; }
            catch (Win32Exception e) when (e.NativeErrorCode == TextFileBusy && attempt < MostStarts) { Thread.Sleep(StartAgainAfter); }
        }
    }

    /// <summary>All that is written; a program that writes without end has gone wrong, and counts as one that does not answer.</summary>
    private static async Task<string> ReadAsync(Stream stream, CancellationTokenSource late)
    {
        byte[] bytes = new byte[MostBytes];
        int count = 0;
        try
        {
            while (await stream.ReadAsync(bytes.AsMemory(count), CancellationToken.None).ConfigureAwait(false) is > 0 and int read)
            {
                count += read;
                if (count < MostBytes) continue;
                await late.CancelAsync().ConfigureAwait(false);
                break;
            }
        }
        catch (Exception e) when (e is IOException or ObjectDisposedException) { /* killed */ }
        return Encoding.UTF8.GetString(bytes, 0, count);
    }

    private static string? FirstLine(string text) =>
        text.Split('\n').Select(l => new string([.. l.Trim().Where(c => !char.IsControl(c)).Take(200)])).FirstOrDefault(l => l.Length > 0)?.TrimEnd('.');
}
