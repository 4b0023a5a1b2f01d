using System.CommandLine;
using System.Globalization;
using NopeGpt.Jobs.Configuration;
using NopeGpt.Model;

namespace NopeGpt.Jobs.Commands;

/// <summary>The settings of a kind of run as options: --max_steps where one setting has that name, and always --training.max_steps. They are read off
/// <see cref="Settings"/>, so that a new setting is an option at once.</summary>
internal sealed class RunOptions
{
    /// <summary>Given by the verb itself.</summary>
    private const string Kind = "kind";

    private readonly List<(Setting Setting, Option Option)> _all = [];

    /// <param name="taken">Names of the verb's own options, without hyphens.</param>
    /// <param name="aliases">More names for a setting, by its path.</param>
    public RunOptions(RunKind kind, IReadOnlyCollection<string> taken, ILookup<string, string> aliases)
    {
        RunConfig start = RunConfig.For(kind);
        List<Setting> settings = [.. Settings.All.Where(s => s.Path != Kind && RunConfigChecks.Applies(s, kind)).Select(s => s with { Default = Settings.Get(start, s) })];
        Dictionary<string, int> uses = settings.CountBy(s => s.Name).ToDictionary();
        foreach (Setting setting in settings)
        {
            bool unique = uses[setting.Name] == 1 && !taken.Contains(setting.Name);
            string[] more = unique && setting.Section.Length > 0 ? [setting.Path, .. aliases[setting.Path]] : [.. aliases[setting.Path]];
            _all.Add((setting, Option(setting, "--" + (unique ? setting.Name : setting.Path), [.. more.Select(a => "--" + a)])));
        }
    }

    /// <summary>Says it better what is wrong with a value.</summary>
    public Func<Problem, Problem> Reword { get; init; } = problem => problem;

    public IEnumerable<Option> Options => _all.Select(o => o.Option);

    public IEnumerable<(Setting Setting, Option Option)> All => _all;

    /// <summary>The config with what is given on the command line; what cannot be read is added to the problems.</summary>
    public RunConfig Read(Arguments arguments, RunConfig start)
    {
        RunConfig config = start;
        foreach ((Setting setting, Option option) in _all)
        {
            if (!arguments.Has(option)) continue;
            List<Problem> wrong = [];
            string? text = option is Option<string[]> list ? string.Join('|', arguments.Texts(list)) : arguments.Text((Option<string?>)option) ?? (setting.Type == typeof(bool) ? "true" : null);
            // A value that is missing is the parser's to report.
            if (text is not null) config = Settings.BindText(config, setting.Path, text, wrong);
            foreach (Problem problem in wrong) arguments.Add(Reword(Named(problem)));
        }
        return config;
    }

    /// <summary>The settings that are given on the command line.</summary>
    public IEnumerable<(Setting Setting, Option Option)> Given(Arguments arguments) => _all.Where(o => arguments.Has(o.Option));

    /// <summary>A problem of a setting, under the name of its option.</summary>
    public Problem Named(Problem problem) => _all.FirstOrDefault(o => o.Setting.Path == problem.Field) is { Option: { } option } ? problem with { Field = option.Name } : problem;

    /// <summary>A value as a person would write it.</summary>
    public static string Words(object? value) => value switch
    {
        null => "",
        bool flag => flag ? "true" : "false",
        Enum named => Settings.SnakeCase(named.ToString()),
        IEnumerable<string> texts => string.Join(" | ", texts),
        IFormattable number => number.ToString(null, CultureInfo.InvariantCulture),
        _ => value.ToString() ?? "",
    };

    private static Option Option(Setting setting, string name, string[] aliases)
    {
        string value = setting.Type.IsEnum ? string.Join('|', Enum.GetNames(setting.Type).Select(Settings.SnakeCase))
            : setting.Type == typeof(bool) ? "true|false"
            : setting.Type == typeof(double) ? "X"
            : setting.Type == typeof(string) ? "TEXT"
            : setting.Type == typeof(IReadOnlyList<string>) ? "TEXT|TEXT"
            : "N";
        // A list may also be given by repeating the option; the word after a switch is its value only where it is one.
        return setting.Type == typeof(IReadOnlyList<string>)
            ? new Option<string[]>(name, aliases) { HelpName = value, Description = setting.Description, Arity = ArgumentArity.OneOrMore }
            : new Option<string?>(name, aliases) { HelpName = value, Description = setting.Description, Arity = setting.Type == typeof(bool) ? ArgumentArity.ZeroOrOne : ArgumentArity.ExactlyOne };
    }
}
