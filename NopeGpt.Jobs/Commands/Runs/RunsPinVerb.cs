using System.CommandLine;
using NopeGpt.Jobs.Queue;

namespace NopeGpt.Jobs.Commands.Runs;

/// <summary>`nopegpt runs pin` and `nopegpt runs unpin`.</summary>
internal sealed class RunsPinVerb : RunsVerb
{
    private readonly Argument<string?> run = One();
    private readonly Option<string?> step = CommonOptions.Text("--step", "N", "Of the checkpoint.", required: true);
    private readonly bool pins;

    private RunsPinVerb(string name, string description, bool pins) : base(name, description) => this.pins = pins;

    public override IReadOnlyList<Argument> Positions => [run];

    protected override IReadOnlyList<Option> Own => [step];

    public static RunsPinVerb Pin() => new("pin", "Keep a checkpoint of a run, whatever training.keep_checkpoints says.", pins: true);

    public static RunsPinVerb Unpin() => new("unpin", "Leave a checkpoint of a run to training.keep_checkpoints again.", pins: false);

    protected override Func<RunsTerminal, CancellationToken, Task<int>> ReadOwn(Arguments arguments)
    {
        string words = arguments.Text(run) ?? "";
        long wanted = Step(arguments, step) ?? 0;
        return async (terminal, cancel) =>
        {
            RunRow row = await terminal.FindAsync(words, cancel);
            await terminal.Queue.PinAsync(row.Id, wanted, pins, cancel);
            RunFolder.TryOpen(terminal.Client.Store, row.Id, out RunFolder? folder);
            IReadOnlyList<long> pinned = folder?.ReadCard().Pinned ?? [];
            if (terminal.Json) RunsTerminal.Print(new { row.Id, pinned });
            else Console.WriteLine($"run {PlainText.Of(row.Title)}: {(pinned.Count == 0 ? "no checkpoint is pinned" : $"pinned are the checkpoints of step {string.Join(", ", pinned)}")}");
            return ExitCode.Done;
        };
    }
}
