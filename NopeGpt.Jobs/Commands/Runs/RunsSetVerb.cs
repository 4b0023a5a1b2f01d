using System.CommandLine;
using System.Globalization;
using NopeGpt.Jobs.Queue;

namespace NopeGpt.Jobs.Commands.Runs;

/// <summary>`nopegpt runs set`: what people say of runs.</summary>
internal sealed class RunsSetVerb() : RunsEachVerb("set", "Change what people say of runs: priority, hold, earliest start, tags, notes.")
{
    private static readonly string[] Times = ["yyyy-MM-dd'T'HH:mm:ssK", "yyyy-MM-dd'T'HH:mm:ss.FFFFFFFK", "yyyy-MM-dd'T'HH:mmK", "yyyy-MM-dd HH:mm:ssK", "yyyy-MM-dd HH:mmK", "yyyy-MM-dd"];
    private static readonly string[] Hours = [@"h\:mm", @"hh\:mm"];

    private readonly Option<string?> priority = CommonOptions.Text("--priority", "N", $"From -{RunQueue.HighestPriority} to {RunQueue.HighestPriority}; greater goes first, whatever the place.");
    private readonly Option<bool> hold = CommonOptions.Flag("--hold", "They keep their places and do not start.");
    private readonly Option<bool> release = CommonOptions.Flag("--release", "They may start again.");
    private readonly Option<string?> notBefore = CommonOptions.Text("--not_before", "TIME", "They start no earlier: 2026-11-24T08:00 (local time, or with a zone such as Z or +01:00), 22:30 (the next one), +90m, +8h, +2d; none takes it back.");
    private readonly Option<string?> tags = CommonOptions.Text("--tags", "A,B", "These and no other tags; empty for none.");
    private readonly Option<string?> notes = CommonOptions.Text("--notes", "TEXT", "Free text; empty for none.");

    protected override IReadOnlyList<Option> Own => [priority, hold, release, notBefore, tags, notes];

    protected override Func<RunsTerminal, CancellationToken, Task<int>> ReadOwn(Arguments arguments)
    {
        IReadOnlyList<string> words = arguments.Texts(Runs);
        if (arguments.Flag(hold) && arguments.Flag(release)) arguments.Problems.Add("--release: does not go with --hold");
        if (!Own.Any(arguments.Has)) arguments.Problems.Add("say what to change: --priority, --hold, --release, --not-before, --tags or --notes");
        string? time = arguments.Text(notBefore);
        DateTimeOffset? earliest = time is null or "none" ? null : ReadTime(time, TimeProvider.System.GetLocalNow());
        if (time is not (null or "none") && earliest is null) arguments.Add(notBefore.Name, PlainText.Of(time), "give a time such as 2026-11-24T08:00, 22:30, +90m, +8h or +2d, or none");
        RunChange change = new(
            arguments.Whole(priority, -RunQueue.HighestPriority, RunQueue.HighestPriority), arguments.Flag(hold) ? true : arguments.Flag(release) ? false : null, earliest, AtAnyTime: time == "none",
            arguments.Text(tags) is { } listed ? listed.Split(',', StringSplitOptions.TrimEntries | StringSplitOptions.RemoveEmptyEntries) : null, arguments.Text(notes));
        return async (terminal, cancel) =>
        {
            IReadOnlyList<RunRow> rows = await terminal.FindAsync(words, cancel);
            // A wrong value is wrong for all of them, and told once.
            RunQueue.Check(change);
            int code = await EachAsync(rows, row => terminal.Queue.ChangeAsync(row.Id, change, cancel));
            await terminal.ShowAsync([.. rows.Select(r => r.Id)], cancel);
            return code;
        };
    }

    /// <summary>A time as people write it; null for none.</summary>
    internal static DateTimeOffset? ReadTime(string text, DateTimeOffset now)
    {
        text = text.Trim();
        if (DateTimeOffset.TryParseExact(text, Times, CultureInfo.InvariantCulture, DateTimeStyles.AssumeLocal, out DateTimeOffset time)) return time;
        if (TimeSpan.TryParseExact(text, Hours, CultureInfo.InvariantCulture, out TimeSpan hour))
        {
            DateTimeOffset today = new(now.LocalDateTime.Date + hour);
            return today > now ? today : new DateTimeOffset(now.LocalDateTime.Date.AddDays(1) + hour);
        }
        if (text.Length < 3 || text[0] != '+' || !double.TryParse(text[1..^1], NumberStyles.AllowDecimalPoint, CultureInfo.InvariantCulture, out double count) || count > 1e6) return null;
        return text[^1] switch
        {
            's' => now.AddSeconds(count),
            'm' => now.AddMinutes(count),
            'h' => now.AddHours(count),
            'd' when count < 36_500 => now.AddDays(count),
            _ => null,
        };
    }
}
