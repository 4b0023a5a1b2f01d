using System.Globalization;
using Microsoft.Extensions.Configuration;
using NopeGpt.Jobs.Queue.Hosts;

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
    private const int MaximumSeconds = 86_400, MaximumAttempts = 1000, MaximumDays = 3650, ShortestLease = 1, LongestLease = 3600;
    private static readonly TimeSpan LongestBeat = TimeSpan.FromSeconds(5);

    /// <summary>This process's name among those that work on one table (see <see cref="QueueHostName"/>).</summary>
    public string Host { get; init; } = QueueHostName.Default;

    /// <summary>How long a heartbeat must stand still before another host takes the run over.</summary>
    public TimeSpan Lease { get; init; } = TimeSpan.FromSeconds(30);

    /// <summary>How long Hangfire's job may lie without a sign of its server before another takes it, in a storage that can tell.</summary>
    public TimeSpan Invisibility { get; init; } = TimeSpan.FromMinutes(5);

    /// <summary>`nopegpt worker`: a process without a dashboard.</summary>
    public bool IsWorker { get; init; }

    /// <summary>How often a supervisor says that it lives: several times within the lease.</summary>
    public TimeSpan BeatEvery => Lease / 6 < LongestBeat ? Lease / 6 : LongestBeat;

    /// <summary>The run table lies in PostgreSQL, where several hosts may work on it.</summary>
    public bool IsShared => Storage == JobStorageKind.PostgreSql;

    /// <exception cref="UserException">A value that is not known.</exception>
    public static QueueOptions Read(IConfiguration configuration)
    {
        IConfigurationSection jobs = configuration.GetSection("Jobs");
        string host = jobs["Host"] is { } given && !string.IsNullOrWhiteSpace(given) ? given : QueueHostName.Default;
        JobStorageKind storage = Choice(jobs, "Storage", JobStorageKind.InMemory);
        string connection = jobs["ConnectionString"] ?? "";
        if (storage == JobStorageKind.PostgreSql) SharedDatabase.Check(connection);
        return new QueueOptions(
            storage, connection, Choice(jobs, "OnShutdown", ShutdownPolicy.StopAndSave), Seconds(jobs, "StopGraceSeconds", 60),
            Whole(jobs, "Attempts", 3, MaximumAttempts), Seconds(jobs, "RetrySeconds", 5), Whole(jobs, "TrashDays", 7, MaximumDays))
        {
            Host = QueueHostName.Parse(host) ?? throw new UserException($"Jobs:Host = {host}: {QueueHostName.Rule}"),
            Lease = Seconds(jobs, "LeaseSeconds", 30, ShortestLease, LongestLease),
            Invisibility = Seconds(jobs, "InvisibilitySeconds", 300, ShortestLease),
        };
    }

    private static TimeSpan Seconds(IConfigurationSection section, string name, double otherwise, int minimum = 0, int maximum = MaximumSeconds)
    {
        string? text = section[name];
        if (string.IsNullOrWhiteSpace(text)) return TimeSpan.FromSeconds(otherwise);
        return double.TryParse(text, NumberStyles.Float, CultureInfo.InvariantCulture, out double seconds) && seconds >= minimum && seconds <= maximum ? TimeSpan.FromSeconds(seconds)
            : throw new UserException($"{section.Path}:{name} = {text}: use a number of seconds from {minimum} to {maximum}");
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
