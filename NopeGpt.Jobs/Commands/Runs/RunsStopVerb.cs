using System.CommandLine;
using NopeGpt.Jobs.Queue;

namespace NopeGpt.Jobs.Commands.Runs;

/// <summary>`nopegpt runs stop`.</summary>
internal sealed class RunsStopVerb() : RunsEachVerb("stop", "Let runs save and end, or take them out of the queue. They can be resumed.")
{
    private readonly Option<bool> kill = CommonOptions.Flag("--kill", "End the trainers at once. What they did after their last checkpoint is lost.");
    private readonly Option<bool> wait = CommonOptions.Flag("--wait", "Return when they have ended.");

    protected override IReadOnlyList<Option> Own => [kill, wait];

    protected override Func<RunsTerminal, CancellationToken, Task<int>> ReadOwn(Arguments arguments)
    {
        IReadOnlyList<string> words = arguments.Texts(Runs);
        StopRequest how = arguments.Flag(kill) ? StopRequest.Kill : StopRequest.Save;
        bool waits = arguments.Flag(wait);
        return async (terminal, cancel) =>
        {
            IReadOnlyList<RunRow> rows = await terminal.FindAsync(words, cancel);
            int code = await EachAsync(rows, async row =>
            {
                if (RunStates.Ended.Contains(row.State)) throw new UserException($"run {row.Title} {Words.Of(row.State)}: there is nothing to stop");
                await terminal.Client.StopAsync(row.Id, how, cancel);
            });
            if (waits)
            {
                foreach (RunRow row in rows) await terminal.Client.UntilEndedAsync(row.Id, cancel);
            }
            await terminal.ShowAsync([.. rows.Select(r => r.Id)], cancel);
            return code;
        };
    }
}
