using System.CommandLine;
using System.Text.Json;
using System.Text.Json.Nodes;
using NopeGpt.Jobs.Configuration;
using NopeGpt.Jobs.Queue;
using NopeGpt.Model;

namespace NopeGpt.Jobs.Commands.Runs;

/// <summary>`nopegpt runs duplicate` and `nopegpt runs fork`: a new run from a run.</summary>
internal sealed class RunsCopyVerb : RunsVerb
{
    private readonly Argument<string?> run = One();
    private readonly Option<string?> step = CommonOptions.Text("--step", "N", "Go on from the checkpoint of this step. Default: the newest.");
    private readonly Option<string?> name = CommonOptions.Text("--name", "TEXT", "The new run's name. Default: the same.");
    private readonly Option<string[]> set = CommonOptions.Texts("--set", "SETTING=VALUE", "Settings that are to differ, such as training.max_steps=2000 or learning_rate=0.0003.");
    private readonly bool forks;

    private RunsCopyVerb(string name, string description, bool forks) : base(name, description) => this.forks = forks;

    public override IReadOnlyList<Argument> Positions => [run];

    protected override IReadOnlyList<Option> Own => forks ? [step, name, set] : [name, set];

    public static RunsCopyVerb Duplicate() => new("duplicate", "Queue a new run with the settings of another.", forks: false);

    public static RunsCopyVerb Fork() => new("fork", "Queue a new run that goes on from a checkpoint of another, which stays as it is. Settings of training, optimizer and sampling may differ.", forks: true);

    protected override Func<RunsTerminal, CancellationToken, Task<int>> ReadOwn(Arguments arguments)
    {
        string words = arguments.Text(run) ?? "";
        long? from = forks ? Step(arguments, step) : null;
        JsonElement? changes = Changes(arguments);
        return async (terminal, cancel) =>
        {
            RunRow row = await terminal.FindAsync(words, cancel);
            RunRow made = forks ? await terminal.Queue.ForkAsync(row.Id, from, changes, cancel) : await terminal.Queue.DuplicateAsync(row.Id, changes, cancel);
            if (terminal.Json) RunsTerminal.Print(RunsDocument.Of(made, terminal.Client.Store, RunsTerminal.Places(await terminal.Queue.ListAsync(cancel: cancel))));
            else await terminal.ShowAsync([made.Id], cancel);
            terminal.TellWhoRuns();
            return ExitCode.Done;
        };
    }

    private JsonElement? Changes(Arguments arguments)
    {
        JsonObject changes = [];
        if (arguments.Text(name) is { } named) changes["name"] = named;
        foreach (string change in arguments.Texts(set))
        {
            if (change.IndexOf('=', StringComparison.Ordinal) is not (> 0 and var equals))
            {
                arguments.Add(set.Name, PlainText.Of(change), "give SETTING=VALUE, such as training.max_steps=2000");
                continue;
            }
            List<Problem> problems = [];
            string wanted = change[..equals];
            RunConfig changed = Settings.BindText(new RunConfig(), wanted, change[(equals + 1)..], problems);
            foreach (Problem problem in problems) arguments.Add(problem with { Field = $"{set.Name} {problem.Field}" });
            if (problems.Count == 0) Put(changes, Settings.Matching(wanted)[0], changed);
        }
        return changes.Count == 0 ? null : JsonSerializer.SerializeToElement(changes);
    }

    private static void Put(JsonObject changes, Setting setting, RunConfig changed)
    {
        JsonObject section = changes;
        string[] path = setting.Path.Split('.');
        foreach (string part in path[..^1])
        {
            if (section[part] is not JsonObject inner) section[part] = inner = [];
            section = inner;
        }
        section[path[^1]] = JsonSerializer.SerializeToNode(Settings.Get(changed, setting), Settings.Json);
    }
}
