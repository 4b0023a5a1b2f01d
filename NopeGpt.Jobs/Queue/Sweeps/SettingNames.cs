using NopeGpt.Jobs.Commands;
using NopeGpt.Jobs.Configuration;
using NopeGpt.Model;

namespace NopeGpt.Jobs.Queue;

/// <summary>The settings of a kind of run by every name that its command line knows, and by the short ones in the names of a sweep's runs.</summary>
internal static class SettingNames
{
    /// <summary>Finds the setting that is meant; where none is, or more than one, that is added to the problems.</summary>
    /// <returns>The setting, and how the name's values are said as the setting's own.</returns>
    public static (Setting Setting, Func<string, string> Reword)? Find(string name, RunKind kind, List<Problem> problems)
    {
        IReadOnlyList<Setting> found = Settings.Matching(name), read = [.. found.Where(s => RunConfigChecks.Applies(s, kind))];
        if (read.Count == 1) return (read[0], value => value);
        if (read.Count > 1)
        {
            problems.Add(new Problem(name, "", $"is the name of several settings: write {string.Join(" or ", read.Select(s => s.Path))}"));
            return null;
        }
        if (ReferenceNames.Meaning(name, kind) is var (path, reword)) return (Settings.All.First(s => s.Path == path), reword);
        if (found.Count == 0 && SweepLabels.NameOf(name) is { } meant && Settings.Matching(meant).Any(s => RunConfigChecks.Applies(s, kind))) return Find(meant, kind, problems);
        if (found.Count > 0) problems.Add(new Problem(name, "", $"a run of the kind {RunOptions.Words(kind)} does not read {string.Join(" or ", found.Select(s => s.Path))}: choose another setting"));
        else problems.Add(new Problem(name.Length <= 80 ? name : name[..77] + "...", "", Settings.Nearest(name, Known(kind)) is { } near ? $"there is no such setting; did you mean {near}?" : "there is no such setting: name one as in run.json, such as optimizer.learning_rate"));
        return null;
    }

    private static IEnumerable<string> Known(RunKind kind) => Settings.All.Where(s => RunConfigChecks.Applies(s, kind)).SelectMany(s => new[] { s.Path, s.Name });
}
