using System.CommandLine;
using NopeGpt.Jobs.Queue;

namespace NopeGpt.Jobs.Commands.Runs;

/// <summary>`nopegpt runs delete`.</summary>
internal sealed class RunsDeleteVerb() : RunsEachVerb("delete", "Move runs that are not at work to the trash, from which `nopegpt runs restore` takes them back for some days.")
{
    private readonly Option<bool> yes = CommonOptions.Flag("--yes", "Do not ask. Needed where stdin is no terminal.");
    private readonly Option<bool> force = CommonOptions.Flag("--force", "Also where other runs need them.");

    protected override IReadOnlyList<Option> Own => [yes, force];

    protected override Func<RunsTerminal, CancellationToken, Task<int>> ReadOwn(Arguments arguments)
    {
        IReadOnlyList<string> words = arguments.Texts(Runs);
        bool asks = !arguments.Flag(yes), forced = arguments.Flag(force);
        if (asks && Console.IsInputRedirected) arguments.Problems.Add("--yes: give it to delete runs, for stdin is no terminal and nobody can be asked");
        return async (terminal, cancel) =>
        {
            QueueClient client = terminal.Client;
            IReadOnlyList<RunRow> rows = await terminal.FindAsync(words, cancel);
            Dictionary<string, long> sizes = rows.ToDictionary(r => r.Id, r => RunDisk.Bytes(client.Store.RunFolder(r.Id)));
            if (asks)
            {
                client.LetGo();
                if (!await AskAsync(rows, sizes, terminal.Queue.TrashDays, cancel))
                {
                    await Console.Error.WriteLineAsync("nothing is deleted");
                    return ExitCode.BadConfiguration;
                }
                await client.TakeAsync(cancel);
            }
            List<RunRow> deleted = [];
            int code = await EachAsync(rows, async row =>
            {
                await terminal.Queue.DeleteAsync(row.Id, forced, cancel);
                deleted.Add(row);
            });
            if (terminal.Json) RunsTerminal.Print(deleted.Select(r => new { r.Id, r.Name, sizeBytes = sizes[r.Id] }));
            else foreach (RunRow row in deleted) Console.WriteLine($"run {row.Id} {PlainText.Of(row.Name)} ({TextTable.Bytes(sizes[row.Id])}) {Fate(terminal.Queue.TrashDays, row.Id)}");
            return code;
        };
    }

    private static string Fate(int days, string id) => days == 0 ? "is deleted" : $"is in the trash for {days} day{(days == 1 ? "" : "s")}; `nopegpt runs restore {id}` takes it back";

    private static async Task<bool> AskAsync(IReadOnlyList<RunRow> rows, Dictionary<string, long> sizes, int days, CancellationToken cancel)
    {
        foreach (RunRow row in rows) await Console.Error.WriteLineAsync($"  {row.Id} {PlainText.Of(row.Name)} ({row.State}, {TextTable.Bytes(sizes[row.Id])})");
        await Console.Error.WriteAsync($"Delete {(rows.Count == 1 ? "this run" : $"these {rows.Count} runs")}{(days == 0 ? " for good" : "")}? [y/N] ");
        string? answer = await Task.Run(Console.ReadLine, CancellationToken.None).WaitAsync(cancel);
        return answer?.Trim().ToLowerInvariant() is "y" or "yes";
    }
}
