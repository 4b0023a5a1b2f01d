using System.CommandLine;
using System.Globalization;
using Microsoft.Extensions.Configuration;
using Microsoft.Extensions.DependencyInjection;
using Microsoft.Extensions.Hosting;
using Microsoft.Extensions.Logging;
using Microsoft.Extensions.Logging.Console;
using NopeGpt.Jobs.Queue;
using NopeGpt.Jobs.Queue.Hosts;

namespace NopeGpt.Jobs.Commands;

/// <summary>`nopegpt worker`: works off a queue that several machines share (docs/operations.md).</summary>
internal sealed class WorkerVerb() : Verb("worker", "Work off the runs of a queue that several machines share: the run table lies in PostgreSQL, the storage root in a shared folder.")
{
    private const int MostSlots = 64;

    private readonly Option<string?> _root = CommonOptions.Root();
    private readonly Option<string?> _name = CommonOptions.Text("--name", "HOST", $"What this worker is called in the queue, one process for a name. Default: Jobs:Host, else the machine's name ({QueueHostName.Default}).");
    private readonly Option<string?> _slots = CommonOptions.Text("--slots", "N", "Runs that work on the CPU at a time; 0 for none. Default: Jobs:CpuSlots, else 1.");

    public override IReadOnlyList<Option> Options => [_root, _name, _slots];

    public override Func<CancellationToken, Task<int>> Read(Arguments arguments)
    {
        Dictionary<string, string?> given = [];
        string? root = Store.RootOf(arguments.Text(_root) is { Length: > 0 } path ? path : null, arguments.Configuration);
        if (root is null) arguments.Problems.Add("there is no home folder to keep runs in: set HOME, --root or Storage:Root");
        // Made here it would be an empty folder in the place where the shared one is not mounted.
        else if (!Directory.Exists(root)) arguments.Add(_root.Name, root, "there is no such folder: mount the shared storage root there, or name it with --root or Storage:Root");
        given["Storage:Root"] = root;
        if (arguments.Text(_name) is { } name)
        {
            if (QueueHostName.Parse(name) is null) arguments.Add(_name.Name, name, QueueHostName.Rule);
            given["Jobs:Host"] = name;
        }
        if (arguments.Whole(_slots, 0, MostSlots) is { } slots) given["Jobs:CpuSlots"] = slots.ToString(CultureInfo.InvariantCulture);
        string storage = arguments.Configuration["Jobs:Storage"] is { Length: > 0 } set ? set : nameof(JobStorageKind.InMemory);
        if (!storage.Equals(nameof(JobStorageKind.PostgreSql), StringComparison.OrdinalIgnoreCase))
        {
            arguments.Problems.Add($"Jobs:Storage = {storage}: a worker needs PostgreSql (and Jobs:ConnectionString), for it shares the run table with other processes, "
                + "and SQLite is not safe over a network file system; set NOPEGPT_Jobs__Storage and NOPEGPT_Jobs__ConnectionString, or appsettings.json, as for the dashboard");
        }
        else
        {
            try { SharedDatabase.Check(arguments.Configuration["Jobs:ConnectionString"] ?? ""); }
            catch (UserException e) { arguments.Problems.Add(e.Message); }
        }
        return cancel => RunAsync(arguments.Configuration, given, cancel);
    }

    private static async Task<int> RunAsync(IConfiguration configuration, Dictionary<string, string?> given, CancellationToken cancel)
    {
        HostApplicationBuilder builder = Host.CreateEmptyApplicationBuilder(null);
        builder.Configuration.AddConfiguration(configuration).AddInMemoryCollection(given);
        builder.Logging.AddConfiguration(builder.Configuration.GetSection("Logging"))
            // Why it does not start is told in one sentence by the frame.
            .AddFilter("Microsoft.Extensions.Hosting.Internal.Host", LogLevel.None)
            .AddConsole(console => (console.FormatterName, console.LogToStandardErrorThreshold) = (PlainLines.Name, LogLevel.Trace))
            .AddConsoleFormatter<PlainLines, ConsoleFormatterOptions>();
        builder.Services.AddRunQueue(builder.Configuration, worker: true).AddSingleton<IHostLifetime, NoSignals>();
        using IHost host = builder.Build();
        IHostApplicationLifetime lifetime = host.Services.GetRequiredService<IHostApplicationLifetime>();
        await host.StartAsync(cancel);
        ILogger log = host.Services.GetRequiredService<ILogger<WorkerVerb>>();
        log.LogInformation("Worker {Host} works off the queue of {Root}; Ctrl+C lets its runs save and ends it", host.Services.GetRequiredService<ThisHost>().Name, host.Services.GetRequiredService<Store>().Root);
        using CancellationTokenSource end = CancellationTokenSource.CreateLinkedTokenSource(cancel, lifetime.ApplicationStopping);
        await Task.Delay(Timeout.Infinite, end.Token).ConfigureAwait(ConfigureAwaitOptions.SuppressThrowing);
        bool asked = cancel.IsCancellationRequested;
        if (asked) log.LogInformation("The runs of this worker save and end; they wait in the queue for another, or for this one's next start");
        await host.StopAsync(CancellationToken.None);
        return asked ? ExitCode.Done : ExitCode.Defect;
    }

    /// <summary>Signals are the frame's, which cancels the work.</summary>
    private sealed class NoSignals : IHostLifetime
    {
        public Task WaitForStartAsync(CancellationToken cancellationToken) => Task.CompletedTask;

        public Task StopAsync(CancellationToken cancellationToken) => Task.CompletedTask;
    }
}
