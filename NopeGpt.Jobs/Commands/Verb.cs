using System.CommandLine;

namespace NopeGpt.Jobs.Commands;

/// <summary>One verb of the command line. It reads its arguments first, so that everything wrong with them is reported at once, and works afterwards.</summary>
internal abstract class Verb(string name, string description)
{
    public string Name { get; } = name;
    public string Description { get; } = description;

    /// <summary>Positional arguments in their order.</summary>
    public virtual IReadOnlyList<Argument<string?>> Positions => [];

    public abstract IReadOnlyList<Option> Options { get; }

    /// <summary>Reads the arguments, adding what is wrong to <see cref="Arguments.Problems"/>, and returns the work to do.
    /// The work runs only if there are no problems; it returns an exit code of <see cref="ExitCode"/>.</summary>
    public abstract Func<CancellationToken, Task<int>> Read(Arguments arguments);

    public Command ToCommand()
    {
        Command command = new(Name, Description);
        foreach (Argument<string?> position in Positions) command.Add(position);
        foreach (Option option in Options) command.Add(option);
        return command;
    }
}
