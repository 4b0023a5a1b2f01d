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
/// <param name="Attempts">See <see cref="RetryPolicy"/>.</param>
/// <param name="RetryPause">See there, too.</param>
/// <param name="TrashDays">What was deleted stays in the trash for so long; 0 deletes at once.</param>
internal sealed record QueueOptions(JobStorageKind Storage, string ConnectionString, ShutdownPolicy OnShutdown, TimeSpan StopGrace, int Attempts, TimeSpan RetryPause, int TrashDays)
{
    private const int MaximumSeconds = 86_400, MaximumAttempts = 1000, MaximumDays = 3650;

    /// <exception cref="UserException">A value that is not known.</exception>
    public static QueueOptions Read(IConfiguration configuration)
    {
        IConfigurationSection jobs = configuration.GetSection("Jobs");
        return new QueueOptions(
            Choice(jobs, "Storage", JobStorageKind.InMemory), jobs["ConnectionString"] ?? "", Choice(jobs, "OnShutdown", ShutdownPolicy.StopAndSave), Seconds(jobs, "StopGraceSeconds", 60),
            Whole(jobs, "Attempts", 3, MaximumAttempts), Seconds(jobs, "RetrySeconds", 5), Whole(jobs, "TrashDays", 7, MaximumDays));
    }

    private static TimeSpan Seconds(IConfigurationSection section, string name, double otherwise)
    {
        string? text = section[name];
        if (string.IsNullOrWhiteSpace(text)) return TimeSpan.FromSeconds(otherwise);
        return double.TryParse(text, NumberStyles.Float, CultureInfo.InvariantCulture, out double seconds) && seconds >= 0 && seconds <= MaximumSeconds ? TimeSpan.FromSeconds(seconds)
            : throw new UserException($"{section.Path}:{name} = {text}: use a number of seconds from 0 to {MaximumSeconds}");
    }

    private static int Whole(IConfigurationSection section, string name, int otherwise, int most)
    {
        string? text = section[name];
        if (string.IsNullOrWhiteSpace(text)) return otherwise;
        return int.TryParse(text, NumberStyles.None, CultureInfo.InvariantCulture, out int value) && value <= most ? value
            : throw new UserException($"{section.Path}:{name} = {text}: use a whole number from 0 to {most}");
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
