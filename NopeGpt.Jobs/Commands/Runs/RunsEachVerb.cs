using System.CommandLine;
using NopeGpt.Jobs.Queue;

namespace NopeGpt.Jobs.Commands.Runs;

/// <summary>A verb that does one thing to each of several runs. What cannot be done to one does not keep it from the others.</summary>
internal class RunsEachVerb : RunsVerb
{
    private readonly Func<RunQueue, string, CancellationToken, Task>? act;

    /// <param name="act">What is done to a run.</param>
    public RunsEachVerb(string name, string description, Func<RunQueue, string, CancellationToken, Task> act) : base(name, description) => this.act = act;

    protected RunsEachVerb(string name, string description) : base(name, description)
    {
    }

    public override IReadOnlyList<Argument> Positions => [Runs];

    protected Argument<string[]> Runs { get; } = Several();

    protected override Func<RunsTerminal, CancellationToken, Task<int>> ReadOwn(Arguments arguments)
    {
        IReadOnlyList<string> words = arguments.Texts(Runs);
        return async (terminal, cancel) =>
        {
            IReadOnlyList<RunRow> rows = await terminal.FindAsync(words, cancel);
            int code = await EachAsync(rows, row => act!(terminal.Queue, row.Id, cancel));
            await terminal.ShowAsync([.. rows.Select(r => r.Id)], cancel);
            return code;
        };
    }

    /// <returns>The exit code of the first that failed, each of which has said why.</returns>
    protected static async Task<int> EachAsync(IEnumerable<RunRow> rows, Func<RunRow, Task> act)
    {
        int code = ExitCode.Done;
        foreach (RunRow row in rows)
        {
            try { await act(row); }
            catch (Exception e) when (e is UserException or ProblemsException)
            {
                await Console.Error.WriteLineAsync(PlainText.Of(e.Message, lines: true));
                if (code == ExitCode.Done) code = e is UserException { ExitCode: var own } ? own : ExitCode.BadConfiguration;
            }
        }
        return code;
    }
}
