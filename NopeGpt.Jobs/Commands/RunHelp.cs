using System.CommandLine;
using System.Globalization;
using NopeGpt.Jobs.Configuration;

namespace NopeGpt.Jobs.Commands;

/// <summary>The help of a verb with as many options as a run has settings: in groups, the usual ones first.</summary>
internal sealed class RunHelp(TextWriter output)
{
    private const int Column = 34, Width = 118;

    public void Usage(string description, string usage)
    {
        output.WriteLine($"{description}\n\nUsage:\n  {usage}");
    }

    public void Group(string title, IEnumerable<Option> options) => Group(title, options.Select(o => (o, o.Description ?? "")));

    /// <summary>Options of settings, with defaults and ranges.</summary>
    public void Group(string title, IEnumerable<(Setting Setting, Option Option)> options) => Group(title, options.Select(o => (o.Option, $"{o.Setting.Description} {Notes(o.Setting)}")));

    private void Group(string title, IEnumerable<(Option Option, string Text)> options)
    {
        (Option Option, string Text)[] lines = [.. options];
        if (lines.Length == 0) return;
        output.WriteLine($"\n{title}:");
        foreach ((Option option, string text) in lines) Write($"  {option.Name}{(option.HelpName is null ? "" : $" <{option.HelpName}>")}", text);
    }

    private static string Notes(Setting setting)
    {
        if (setting.Default is "") return "";
        string range = setting is { Minimum: { } least, Maximum: { } most } ? $"{Number(setting, least)} to {Number(setting, most)}; " : "";
        return $"[{range}default: {RunOptions.Words(setting.Default)}]";
    }

    private static string Number(Setting setting, double value) => value.ToString(setting.Type == typeof(double) ? "G6" : "F0", CultureInfo.InvariantCulture);

    private void Write(string head, string text)
    {
        List<string> lines = [];
        string line = "";
        foreach (string word in text.Split(' ', StringSplitOptions.RemoveEmptyEntries))
        {
            if (line.Length > 0 && Column + line.Length + 1 + word.Length > Width)
            {
                lines.Add(line);
                line = "";
            }
            line += line.Length > 0 ? " " + word : word;
        }
        lines.Add(line);
        if (head.Length >= Column - 1) output.WriteLine(head);
        else lines[0] = head.PadRight(Column) + lines[0];
        for (int i = 0; i < lines.Count; i++) output.WriteLine(i == 0 && head.Length < Column - 1 ? lines[0] : new string(' ', Column) + lines[i]);
    }
}
