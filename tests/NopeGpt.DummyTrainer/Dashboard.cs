using Microsoft.Extensions.Configuration;
using Microsoft.Extensions.DependencyInjection;
using Microsoft.Extensions.Hosting;
using NopeGpt.Jobs;
using NopeGpt.Jobs.Queue;

namespace NopeGpt.DummyTrainer;

/// <summary>The queue in a process of its own, which a test can kill. The setting Run names an evaluate run that it adds,
/// Ready a file that it makes once it works.</summary>
internal static class Dashboard
{
    public static async Task<int> RunAsync(string root, string[] settings, bool worker = false)
    {
        HostApplicationBuilder builder = Host.CreateEmptyApplicationBuilder(null);
        builder.Configuration.AddInMemoryCollection(settings.Select(s => s.Split('=', 2)).ToDictionary(s => s[0], s => (string?)s[1]));
        builder.Services.AddLogging();
        builder.Services.AddSingleton(new Store(root));
        builder.Services.AddSingleton(new TrainerProgram(Environment.ProcessPath!, []));
        builder.Services.AddRunQueue(builder.Configuration, worker);
        // SIGTERM closes it in order.
        builder.Services.AddSingleton<IHostLifetime, Microsoft.Extensions.Hosting.Internal.ConsoleLifetime>();
        using IHost host = builder.Build();
        try
        {
            await host.StartAsync();
            if (builder.Configuration["Run"] is { } name)
                await host.Services.GetRequiredService<RunQueue>().AddAsync(new RunConfig { Kind = RunKind.Evaluate, Name = name, Evaluate = new EvaluateConfig { Checkpoint = Model(root) } });
            if (builder.Configuration["Ready"] is { } ready) await File.WriteAllTextAsync(ready, "");
            await host.WaitForShutdownAsync();
        }
        catch (UserException e)
        {
            await Console.Error.WriteLineAsync(e.Message);
            return e.ExitCode;
        }
        return ExitCode.Done;
    }

    /// <summary>A folder that is taken for a checkpoint: it is checked for being there only.</summary>
    private static string Model(string root)
    {
        string folder = Directory.CreateDirectory(Path.Combine(root, "model")).FullName;
        File.WriteAllText(Path.Combine(folder, "model.safetensors"), "");
        return folder;
    }
}
