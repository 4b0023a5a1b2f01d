using System.CommandLine;
using NopeGpt.Jobs.Queue;

namespace NopeGpt.Jobs.Commands.Runs;

/// <summary>`nopegpt runs pause`, `nopegpt runs go-on` and `nopegpt runs queue`: the whole queue.</summary>
internal sealed class RunsQueueVerb : RunsVerb
{
    private readonly Option<string?> stopAtFailure = CommonOptions.Text("--stop_at_failure", "on|off", "Whether a run that fails pauses the queue. Default: as it is.");
    private readonly bool? pauses;

    private RunsQueueVerb(string name, string description, bool? pauses) : base(name, description) => this.pauses = pauses;

    protected override IReadOnlyList<Option> Own => [stopAtFailure];

    protected override bool InOrder => false;

    public static RunsQueueVerb Pause() => new("pause", "Pause the whole queue: nothing starts, what works goes on.", pauses: true);

    public static RunsQueueVerb GoOn() => new("go-on", "Let the paused queue go on.", pauses: false);

    public static RunsQueueVerb Show() => new("queue", "Show what is set for the whole queue, or say what follows a failure.", pauses: null);

    protected override Func<RunsTerminal, CancellationToken, Task<int>> ReadOwn(Arguments arguments)
    {
        bool? stops = arguments.Text(stopAtFailure) switch
        {
            "on" or "true" or "yes" => true,
            "off" or "false" or "no" => false,
            _ => null,
        };
        if (stops is null && arguments.Text(stopAtFailure) is { } text) arguments.Add(stopAtFailure.Name, PlainText.Of(text), "give on or off");
        return (terminal, _) =>
        {
            QueueSettings now = pauses is null && stops is null ? terminal.Queue.Settings : terminal.Queue.Change(pauses, stops);
            if (terminal.Json) RunsTerminal.Print(new { now.Paused, stop_at_failure = now.StopAtFailure, now.Reason });
            else
            {
                Console.WriteLine($"the queue {(now.Paused ? "is paused" + (now.Reason is { } why ? ": " + PlainText.Of(why) : "") : "goes on")}; a run that fails {(now.StopAtFailure ? "pauses it" : "does not stop it")}");
                if (!now.Paused) terminal.TellWhoRuns();
            }
            return Task.FromResult(ExitCode.Done);
        };
    }
}
