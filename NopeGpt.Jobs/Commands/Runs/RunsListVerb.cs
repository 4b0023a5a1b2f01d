using System.CommandLine;
using System.Globalization;
using NopeGpt.Jobs.Configuration;
using NopeGpt.Jobs.Queue;

namespace NopeGpt.Jobs.Commands.Runs;

/// <summary>`nopegpt runs list`.</summary>
internal sealed class RunsListVerb() : RunsVerb("list", "List the runs of the store: the waiting ones in the queue's order first, then those at work, then the others, newest first.")
{
    private readonly Option<string?> state = CommonOptions.Text("--state", "STATE", $"Only runs of this state: {string.Join(", ", Enum.GetNames<RunState>().Select(Settings.SnakeCase))}.");
    private readonly Option<string?> kind = CommonOptions.Text("--kind", "KIND", $"Only runs of this kind: {string.Join(", ", Enum.GetNames<RunKind>().Select(Settings.SnakeCase))}.");
    private readonly Option<string?> tag = CommonOptions.Text("--tag", "TAG", "Only runs with this tag.");
    private readonly Option<bool> trash = CommonOptions.Flag("--trash", "List the deleted runs that can be restored instead.");

    protected override IReadOnlyList<Option> Own => [state, kind, tag, trash];

    protected override Func<RunsTerminal, CancellationToken, Task<int>> ReadOwn(Arguments arguments)
    {
        RunState? ofState = Choice<RunState>(arguments, state);
        RunKind? ofKind = Choice<RunKind>(arguments, kind);
        string? tagged = arguments.Text(tag);
        if (arguments.Flag(trash))
        {
            foreach (Option filter in new Option[] { state, kind, tag }.Where(arguments.Has)) arguments.Problems.Add($"{filter.Name}: does not go with --trash");
            return (terminal, _) => Task.FromResult(ListTrash(terminal));
        }
        return (terminal, cancel) => ListAsync(terminal, row => (ofState is null || row.State == ofState) && (ofKind is null || row.Kind == ofKind)
            && (tagged is null || row.TagList.Contains(tagged, StringComparer.OrdinalIgnoreCase)), cancel);
    }

    private static async Task<int> ListAsync(RunsTerminal terminal, Func<RunRow, bool> wanted, CancellationToken cancel)
    {
        IReadOnlyList<RunRow> all = await terminal.Queue.ListAsync(cancel: cancel);
        // Sorting keeps the queue's order where it does not matter.
        RunRow[] rows = [.. all.Where(wanted).OrderBy(Rank).ThenByDescending(r => Rank(r) == 0 ? default : r.Created)];
        if (terminal.Queue.Settings is { Paused: true } settings) await Console.Error.WriteLineAsync($"the queue is paused{(settings.Reason is { } why ? ": " + PlainText.Of(why) : "")}; `nopegpt runs go-on` lets it go on");
        if (rows.Length == 0 && !terminal.Json) Console.WriteLine(all.Count == 0 ? $"No runs are in {terminal.Client.Store.Root} yet." : "No run fits.");
        else terminal.Show(rows, RunsTerminal.Places(all));
        return ExitCode.Done;
    }

    private static int Rank(RunRow row) => row.State switch { RunState.Queued => 0, RunState.Starting or RunState.Running or RunState.Stopping => 1, _ => 2 };

    private static int ListTrash(RunsTerminal terminal)
    {
        IReadOnlyList<TrashedRun> runs = terminal.Queue.Trashed();
        if (terminal.Json) RunsTerminal.Print(runs.Select(r => new { r.Id, r.Name, r.Deleted, sizeBytes = r.Bytes }));
        else if (runs.Count == 0) Console.WriteLine("The trash is empty.");
        else Console.Write(TextTable.Format(["id", "name", "deleted", "size"], runs.Select(r => (IReadOnlyList<object?>)[r.Id, PlainText.Of(r.Name), Time(r.Deleted), TextTable.Bytes(r.Bytes)])));
        return ExitCode.Done;
    }

    internal static string Time(DateTimeOffset time) => time.ToLocalTime().ToString("yyyy-MM-dd HH:mm:ss", CultureInfo.InvariantCulture);

    private static T? Choice<T>(Arguments arguments, Option<string?> option)
        where T : struct, Enum
    {
        if (arguments.Text(option) is not { } text) return null;
        foreach (T value in Enum.GetValues<T>())
        {
            if (value.ToString().Equals(text, StringComparison.OrdinalIgnoreCase)) return value;
        }
        string[] words = [.. Enum.GetNames<T>().Select(Settings.SnakeCase)];
        arguments.Add(option.Name, text, Settings.Nearest(text, words) is { } near ? $"did you mean {near}?" : $"choose one of {string.Join(", ", words)}");
        return null;
    }
}
