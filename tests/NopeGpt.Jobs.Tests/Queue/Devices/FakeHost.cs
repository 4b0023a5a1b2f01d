using Microsoft.Extensions.Configuration;
using Microsoft.Extensions.Logging;
using NopeGpt.Jobs.Queue;
using NopeGpt.Jobs.Queue.Hosts;
using NopeGpt.Tests;

namespace NopeGpt.Jobs.Tests.Queue.Devices;

/// <summary>A machine made of files: /proc, /sys, and an nvidia-smi that prints what a test wrote.</summary>
internal sealed class FakeHost : IDisposable
{
    private readonly TemporaryFolder folder = new();

    public FakeHost()
    {
        Write("proc/cpuinfo", "processor\t: 0\nmodel name\t: Test Processor 3000\n");
        Memory(totalKilobytes: 16_000_000, freeKilobytes: 8_000_000);
        Script("""cat "$(dirname "$0")/gpus.csv" """);
    }

    public string Root => folder["root"];
    public string NvidiaSmi => folder["nvidia-smi"];
    public HostFiles Files => new(Root);
    public Clock Time { get; } = new();
    public Sayings Log { get; } = new();

    public static string Gpu(int index, double total = 24_000, double free = 23_000, string rest = "5, 41, 60.25", string name = "NVIDIA Test") =>
        FormattableString.Invariant($"{index}, GPU-0000000{index}-aaaa, {name}, {total}, {free}, {rest}");

    public void Gpus(params string[] lines)
    {
        // A program that reads it meanwhile reads the old or the new.
        File.WriteAllText(folder["gpus.new"], string.Join('\n', lines) + "\n");
        File.Move(folder["gpus.new"], folder["gpus.csv"], overwrite: true);
    }

    public void Script(string body)
    {
        File.WriteAllText(NvidiaSmi, "#!/bin/sh\n" + body + "\n");
        if (!OperatingSystem.IsWindows()) File.SetUnixFileMode(NvidiaSmi, UnixFileMode.UserRead | UnixFileMode.UserWrite | UnixFileMode.UserExecute);
    }

    public void Memory(long totalKilobytes, long freeKilobytes) =>
        Write("proc/meminfo", $"MemTotal:       {totalKilobytes} kB\nMemFree:        100 kB\nMemAvailable:   {freeKilobytes} kB\nHugePages_Total:       0\n");

    public void Write(string path, string text)
    {
        string whole = Path.Combine(Root, path);
        Directory.CreateDirectory(Path.GetDirectoryName(whole)!);
        File.WriteAllText(whole, text);
    }

    public GpuProbe Probe(string? visible = null, string? program = null, double patience = 5) =>
        new(Options(program: program), Files, visible, Time, Log) { Patience = TimeSpan.FromSeconds(patience) };

    public DeviceOptions Options(int cpuSlots = 1, string? program = null, int threads = 0) => new(program ?? NvidiaSmi, cpuSlots, 1, threads);

    /// <param name="shared">Several machines work on one table.</param>
    public DevicePool Pool(int cpuSlots = 1, string? visible = null, int threads = 0, bool shared = false)
    {
        QueueOptions options = QueueOptions.Read(new ConfigurationBuilder().Build());
        return new(Probe(visible), Files, Options(cpuSlots, threads: threads), new ThisHost(shared ? options with { Storage = JobStorageKind.PostgreSql, Host = "one" } : options), new Store(folder["store"]), Time);
    }

    public Store Store => new(folder["store"]);

    public void Dispose() => folder.Dispose();

    /// <summary>Time that passes when a test says so.</summary>
    internal sealed class Clock : TimeProvider
    {
        private long ticks;

        public override long TimestampFrequency => TimeSpan.TicksPerSecond;

        public override long GetTimestamp() => ticks;

        public void Pass(double seconds) => ticks += TimeSpan.FromSeconds(seconds).Ticks;
    }

    internal sealed class Sayings : ILogger<GpuProbe>
    {
        public List<string> All { get; } = [];

        public IDisposable? BeginScope<TState>(TState state)
            where TState : notnull => null;

        public bool IsEnabled(LogLevel logLevel) => true;

        public void Log<TState>(LogLevel logLevel, EventId eventId, TState state, Exception? exception, Func<TState, Exception?, string> formatter) => All.Add(formatter(state, exception));
    }
}
