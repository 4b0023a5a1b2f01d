using System.CommandLine;
using System.CommandLine.Help;

namespace NopeGpt.Jobs.Commands;

/// <summary>What can stand in a command's place: a verb, or a group of verbs.</summary>
internal interface IVerbEntry
{
    /// <summary>The parser's command for it; every verb in it is added to the verbs under its own command.</summary>
    Command ToCommand(IDictionary<Command, Verb> verbs);
}

/// <summary>Verbs that share their first word, such as `tokenizer encode` and `tokenizer decode`. By itself the word prints their help.</summary>
internal sealed class VerbGroup(string name, string description, params IReadOnlyList<IVerbEntry> entries) : IVerbEntry
{
    public Command ToCommand(IDictionary<Command, Verb> verbs) => Fill(new Command(name, description), verbs);

    /// <summary>Puts the entries into a command.</summary>
    public Command Fill(Command command, IDictionary<Command, Verb> verbs)
    {
        foreach (IVerbEntry entry in entries) command.Add(entry.ToCommand(verbs));
        command.SetAction(parsed => new HelpAction().Invoke(parsed));
        return command;
    }
}
