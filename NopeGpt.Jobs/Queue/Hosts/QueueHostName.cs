using System.Text.RegularExpressions;

namespace NopeGpt.Jobs.Queue.Hosts;

/// <summary>What a process that works on the queue is called in the table: one name, one process at a time. Fit for the names of Hangfire's queues.</summary>
internal static partial class QueueHostName
{
    public const int Longest = 40;
    public const string Rule = "use letters, digits, - and _, at most 40, beginning with a letter or digit";

    /// <summary>The machine's name, with what does not fit replaced by hyphens.</summary>
    public static string Default { get; } = FromMachine(Environment.MachineName);

    /// <summary>Small letters, because Hangfire has no others; null for a name that does not fit.</summary>
    public static string? Parse(string text) => text.ToLowerInvariant() is var small && Pattern().IsMatch(small) ? small : null;

    public static string FromMachine(string machine)
    {
        string fit = Unfit().Replace(machine.ToLowerInvariant(), "-").Trim('-', '_');
        if (fit.Length > Longest) fit = fit[..Longest];
        return fit.Length == 0 ? "host" : fit;
    }

    [GeneratedRegex(@"\A[a-z0-9][a-z0-9_-]{0,39}\z")]
    private static partial Regex Pattern();

    [GeneratedRegex("[^a-z0-9_-]")]
    private static partial Regex Unfit();
}
