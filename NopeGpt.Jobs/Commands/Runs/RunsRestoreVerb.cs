using NopeGpt.Jobs.Queue;

namespace NopeGpt.Jobs.Commands.Runs;

/// <summary>`nopegpt runs restore`.</summary>
internal sealed class RunsRestoreVerb() : RunsEachVerb("restore", "Take deleted runs out of the trash; `nopegpt runs list --trash` lists them.")
{
    protected override Func<RunsTerminal, CancellationToken, Task<int>> ReadOwn(Arguments arguments)
    {
        IReadOnlyList<string> words = arguments.Texts(Runs);
        return async (terminal, cancel) =>
        {
            List<string> problems = [], restored = [];
            IReadOnlyList<TrashedRun> trash = terminal.Queue.Trashed();
            string[] ids = [.. words.Select(w => RunsTerminal.Meant(w, [.. trash.Select(t => (t.Id, t.Name))], "in the trash; `nopegpt runs list --trash` lists them", problems)).OfType<string>().Distinct()];
            if (problems.Count > 0) throw new UserException(string.Join('\n', problems));
            int code = await EachAsync(ids.Select(id => new RunRow { Id = id }), async row =>
            {
                await terminal.Queue.RestoreAsync(row.Id, cancel);
                restored.Add(row.Id);
            });
            await terminal.ShowAsync(restored, cancel);
            return code;
        };
    }
}
