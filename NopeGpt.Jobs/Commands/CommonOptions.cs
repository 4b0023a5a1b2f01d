using System.CommandLine;

namespace NopeGpt.Jobs.Commands;

/// <summary>How options are made, and those that several verbs have. Values are read as text and checked by <see cref="Arguments"/>,
/// so that every problem has one form and none hides another.</summary>
internal static class CommonOptions
{
    /// <param name="name">With underscores, as in run.json: --max_tokens. Hyphens are accepted by the frame.</param>
    /// <param name="value">What stands for the value in the help: N, TEXT, DIR.</param>
    public static Option<string?> Text(string name, string value, string description, string? defaultValue = null, bool required = false, params string[] aliases)
    {
        Option<string?> option = new(name, aliases) { HelpName = value, Description = description, Arity = ArgumentArity.ExactlyOne, Required = required };
        if (defaultValue is not null) option.DefaultValueFactory = _ => defaultValue;
        return option;
    }

    /// <summary>An option that takes one value or more, all at once or by being given again.</summary>
    public static Option<string[]> Texts(string name, string value, string description, bool required = false, params string[] aliases) =>
        new(name, aliases) { HelpName = value, Description = description, Arity = ArgumentArity.OneOrMore, AllowMultipleArgumentsPerToken = true, Required = required };

    public static Option<bool> Flag(string name, string description) => new(name) { Description = description, Arity = ArgumentArity.Zero };

    public static Option<bool> RawTokens(params string[] aliases) =>
        new("--raw_tokens", aliases) { Description = "The file is nanoGPT's: uint16 ids without a header, such as train.bin.", Arity = ArgumentArity.Zero };

    public static Option<string?> Root() =>
        Text("--root", "DIR", "Storage root with the runs and data sets. Default: Storage:Root of appsettings.json or NOPEGPT_Storage__Root, else the user's local application data.");

    public static Option<string?> Device() => Text("--device", "DEVICE", "auto, cpu, cuda or cuda:N. auto takes the first GPU that libtorch can use, else the CPU.", "auto");

    public static Option<string?> Threads() => Text("--threads", "N", "CPU threads for the arithmetic; 0 takes all cores.", "0");

    /// <summary>As <see cref="Threads"/>, for what writes text with a model.</summary>
    public static Option<string?> ReplyThreads() => Text("--threads", "N", "CPU threads for the arithmetic; 0 takes one for a small model and all cores for others.", "0");

    public static Option<string?> Tiktoken() =>
        Text("--tiktoken", "PATH", "The .tiktoken file of a tokenizer that names a published encoding, or a folder that has it. It is also looked for beside the model and in the storage root's tokenizers and cache folders.");

    public static Option<string?> Seed() => Text("--seed", "N", "The same seed gives the same result. Default: a new one each time.");

    public static Option<bool> Json() => Flag("--json", "Print one JSON document on stdout when done; progress goes to stderr.");
}
