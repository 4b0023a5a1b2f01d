using System.CommandLine;
using System.Globalization;
using NopeGpt.Jobs.Queue;

namespace NopeGpt.Jobs.Commands.Runs;

/// <summary>A verb of `nopegpt runs`: works on the queue that the dashboard of the store shows, whether it runs or not.</summary>
internal abstract class RunsVerb(string name, string description) : Verb(name, description)
{
    private readonly Option<string?> root = CommonOptions.Root();
    private readonly Option<bool> json = CommonOptions.Json();

    public sealed override IReadOnlyList<Option> Options => [.. Own, root, json];

    /// <summary>Options beside --root and --json.</summary>
    protected virtual IReadOnlyList<Option> Own => [];

    /// <summary>False for what must not look at the table before it works.</summary>
    protected virtual bool InOrder => true;

    public sealed override Func<CancellationToken, Task<int>> Read(Arguments arguments)
    {
        Func<RunsTerminal, CancellationToken, Task<int>> work = ReadOwn(arguments);
        bool document = arguments.Flag(json);
        return async cancel =>
        {
            await using QueueClient client = await QueueClient.OpenAsync(arguments.Configuration, arguments.Store(root), Console.Error.WriteLine, InOrder, cancel);
            return await work(new RunsTerminal(client, document), cancel);
        };
    }

    /// <summary>As <see cref="Verb.Read"/>.</summary>
    protected abstract Func<RunsTerminal, CancellationToken, Task<int>> ReadOwn(Arguments arguments);

    /// <summary>Where a run is meant.</summary>
    protected static Argument<string?> One() => new("RUN") { Description = "The run's id, the beginning of its id, or its name, where only one run has it.", Arity = ArgumentArity.ExactlyOne };

    /// <summary>Where runs are meant.</summary>
    protected static Argument<string[]> Several() => new("RUN") { Description = "Ids, beginnings of ids, or names that only one run has.", Arity = ArgumentArity.OneOrMore };

    /// <summary>A number that is 0 or more.</summary>
    protected static long? Step(Arguments arguments, Option<string?> option)
    {
        if (arguments.Text(option) is not { } text) return null;
        if (long.TryParse(text, NumberStyles.None, CultureInfo.InvariantCulture, out long step)) return step;
        arguments.Add(option.Name, text, "give the step of a checkpoint: a whole number from 0; `nopegpt runs show RUN` lists them");
        return null;
    }
}
