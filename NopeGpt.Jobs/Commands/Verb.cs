using System.CommandLine;
using NopeGpt.Model.Storage;

namespace NopeGpt.Jobs.Commands;

/// <summary>One verb of the command line. It reads its arguments first, so that everything wrong with them is reported at once, and works afterwards.</summary>
internal abstract class Verb(string name, string description) : IVerbEntry
{
    public string Name { get; } = name;
    public string Description { get; } = description;

    /// <summary>Positional arguments in their order.</summary>
    public virtual IReadOnlyList<Argument> Positions => [];

    public abstract IReadOnlyList<Option> Options { get; }

    /// <summary>Writes the verb's own help; false where the usual list of options is enough.</summary>
    public virtual bool WriteHelp(TextWriter output) => false;

    /// <summary>Reads the arguments, adding what is wrong to <see cref="Arguments.Problems"/>, and returns the work to do.
    /// The work runs only if there are no problems; it returns an exit code of <see cref="ExitCode"/>.</summary>
    public abstract Func<CancellationToken, Task<int>> Read(Arguments arguments);

    /// <summary>Work that does not look at the signal itself: at SIGINT or SIGTERM it is left behind, and what it has begun to write is deleted.</summary>
    /// <param name="output">The folder that it writes, which appears whole or not at all; null where it writes none.</param>
    protected static Func<CancellationToken, Task<int>> Abandonable(Func<int> work, string? output = null) => async cancel =>
    {
        Task<int> running = Task.Run(work, CancellationToken.None);
        await Task.WhenAny(running, Task.Delay(Timeout.Infinite, cancel));
        if (running.IsCompleted) return await running;
        try
        {
            if (output is not null) Checkpoint.CleanTemporaryOf(output);
        }
        catch (IOException) { /* a file of it was made at this moment; what stays has a temporary name */ }
        throw new OperationCanceledException(cancel);
    };

    public Command ToCommand(IDictionary<Command, Verb> verbs)
    {
        Command command = new(Name, Description);
        verbs.Add(command, this);
        foreach (Argument position in Positions) command.Add(position);
        foreach (Option option in Options) command.Add(option);
        return command;
    }
}
