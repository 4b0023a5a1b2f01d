using System.Globalization;
using Microsoft.Extensions.Configuration;

namespace NopeGpt.Jobs.Queue;

/// <summary>Where Hangfire keeps its jobs. Nothing of ours is in there: losing it loses nothing.</summary>
internal enum JobStorageKind
{
    InMemory,
    PostgreSql,
    Sqlite,
}

/// <summary>What a closing dashboard does with its trainers.</summary>
internal enum ShutdownPolicy
{
    /// <summary>They save and end; their runs go on by themselves when the dashboard starts again.</summary>
    StopAndSave,

    /// <summary>They work on; the next dashboard adopts them.</summary>
    Detach,
}

/// <summary>The section Jobs of appsettings.json.</summary>
/// <param name="StopGrace">What a trainer has for saving before it is killed.</param>
internal sealed record QueueOptions(JobStorageKind Storage, string ConnectionString, ShutdownPolicy OnShutdown, TimeSpan StopGrace)
{
    private const int MaximumGrace = 86_400;

    /// <exception cref="UserException">A value that is not known.</exception>
    public static QueueOptions Read(IConfiguration configuration)
    {
        IConfigurationSection jobs = configuration.GetSection("Jobs");
        string grace = jobs["StopGraceSeconds"] ?? "60";
        if (!double.TryParse(grace, NumberStyles.Float, CultureInfo.InvariantCulture, out double seconds) || !(seconds >= 0 && seconds <= MaximumGrace))
            throw new UserException($"Jobs:StopGraceSeconds = {grace}: use a number of seconds from 0 to {MaximumGrace}");
        return new QueueOptions(
            Choice(jobs, "Storage", JobStorageKind.InMemory), jobs["ConnectionString"] ?? "", Choice(jobs, "OnShutdown", ShutdownPolicy.StopAndSave), TimeSpan.FromSeconds(seconds));
    }

    private static T Choice<T>(IConfigurationSection section, string name, T otherwise)
        where T : struct, Enum
    {
        string? text = section[name];
        if (string.IsNullOrWhiteSpace(text)) return otherwise;
        string? known = Enum.GetNames<T>().FirstOrDefault(n => n.Equals(text, StringComparison.OrdinalIgnoreCase));
        return known is not null ? Enum.Parse<T>(known) : throw new UserException($"{section.Path}:{name} = {text}: use {string.Join(" or ", Enum.GetNames<T>())}");
    }
}
