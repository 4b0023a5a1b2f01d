namespace NopeGpt.Jobs.Commands.Runs;

/// <summary>`nopegpt runs rebuild`.</summary>
internal sealed class RunsRebuildVerb() : RunsVerb("rebuild", "Make the run table anew from the run folders, which lose nothing by it. No dashboard may work on the store meanwhile.")
{
    // The table may be an old one, which must not be written to the folders.
    protected override bool InOrder => false;

    protected override Func<RunsTerminal, CancellationToken, Task<int>> ReadOwn(Arguments arguments) => async (terminal, cancel) =>
    {
        int runs = await terminal.Client.RebuildAsync(cancel);
        if (terminal.Json) RunsTerminal.Print(new { runs });
        else Console.WriteLine($"the run table of {terminal.Client.Store.Root} is made anew: {runs} run{(runs == 1 ? "" : "s")}");
        return ExitCode.Done;
    };
}
