using System.CommandLine;
using NopeGpt.Jobs.Configuration;
using NopeGpt.Jobs.Queue;

namespace NopeGpt.Jobs.Commands.Runs;

/// <summary>`nopegpt runs move`.</summary>
internal sealed class RunsMoveVerb() : RunsEachVerb("move", "Move waiting runs among those of their priority: nopegpt runs move RUN... up|down|top|bottom. Several keep their order among each other.")
{
    private static readonly string[] Places = [.. Enum.GetNames<QueueMove>().Select(Settings.SnakeCase)];

    private readonly Option<string?> to = CommonOptions.Text("--to", "PLACE", $"{string.Join(", ", Places)}; it may also stand after the runs, as a word.");

    protected override IReadOnlyList<Option> Own => [to];

    protected override Func<RunsTerminal, CancellationToken, Task<int>> ReadOwn(Arguments arguments)
    {
        List<string> words = [.. arguments.Texts(Runs)];
        string? place = arguments.Text(to);
        if (place is null && words.Count > 1)
        {
            place = words[^1];
            words.RemoveAt(words.Count - 1);
        }
        if (place is null) arguments.Problems.Add($"--to: say where to, one of {string.Join(", ", Places)}");
        else if (!Places.Contains(place)) arguments.Add(to.Name, PlainText.Of(place), Settings.Nearest(place, Places) is { } near ? $"did you mean {near}?" : $"choose one of {string.Join(", ", Places)}");
        if (arguments.Problems.Count > 0) return (_, _) => Task.FromResult(ExitCode.BadConfiguration);
        QueueMove move = Enum.Parse<QueueMove>(place!, ignoreCase: true);
        return async (terminal, cancel) =>
        {
            IReadOnlyList<RunRow> rows = await terminal.FindAsync(words, cancel);
            // The one that is to be first comes last to the top, and the last goes first one down.
            int code = await EachAsync(move is QueueMove.Top or QueueMove.Down ? rows.Reverse() : rows, row => terminal.Queue.MoveAsync(row.Id, move, cancel));
            await terminal.ShowAsync([.. rows.Select(r => r.Id)], cancel);
            return code;
        };
    }
}
