using System.Numerics;
using System.Text.Json;
using NopeGpt.Jobs.Configuration;
using NopeGpt.Model;

namespace NopeGpt.Jobs.Queue;

/// <summary>One run of a sweep.</summary>
/// <param name="Name">What differs: lr 3e-4, seed 2.</param>
internal sealed record SweepMember(string Name, RunConfig Config);

/// <summary>A config and lists or ranges for some of its settings to many configs: every combination, the last axis fastest.</summary>
internal static class Sweep
{
    /// <summary>No sweep has more runs, confirmed or not.</summary>
    public const int MostRuns = 10_000;

    /// <summary>Reads the axes. Everything wrong with them is added to the problems.</summary>
    /// <returns>Empty where something is wrong.</returns>
    public static IReadOnlyList<AxisValues> Read(RunConfig start, IReadOnlyList<SweepAxis> axes, List<Problem> problems)
    {
        int before = problems.Count;
        if (axes.Count == 0) problems.Add(new Problem("axes", "", "a sweep needs at least one setting with its values, such as optimizer.learning_rate=1e-4,3e-4"));
        List<AxisValues> read = [.. axes.Select(a => AxisValues.Read(a, start, problems)).OfType<AxisValues>()];
        foreach (IGrouping<string, AxisValues> same in read.GroupBy(a => a.Setting.Path, StringComparer.Ordinal).Where(g => g.Count() > 1))
            problems.Add(new Problem(same.Key, string.Join(" and ", same.Select(a => string.Join(',', a.Texts)).Select(Shown)), "is swept more than once: give all its values together"));
        BigInteger runs = Count(read);
        if (problems.Count == before && runs > MostRuns) problems.Add(new Problem("axes", string.Join(" x ", read.Select(a => a.Values.Count)), $"make {runs} runs: a sweep has at most {MostRuns}"));
        return problems.Count == before ? read : [];
    }

    public static BigInteger Count(IReadOnlyList<AxisValues> axes) => axes.Aggregate(BigInteger.One, (product, axis) => product * axis.Values.Count);

    /// <summary>Every combination.</summary>
    public static IReadOnlyList<SweepMember> Expand(RunConfig start, IReadOnlyList<AxisValues> axes)
    {
        IReadOnlyList<IReadOnlyList<string>> labels = [.. axes.Select(a => SweepLabels.Of(a, axes))];
        int count = (int)Count(axes);
        List<(string Name, RunConfig Config)> members = new(count);
        for (int number = 0; number < count; number++)
        {
            RunConfig config = start;
            string[] words = new string[axes.Count];
            for (int axis = axes.Count - 1, rest = number; axis >= 0; axis--)
            {
                (rest, int value) = Math.DivRem(rest, axes[axis].Values.Count);
                config = Settings.Set(config, axes[axis].Setting.Path, axes[axis].Values[value]);
                words[axis] = labels[axis][value];
            }
            members.Add((string.Join(", ", words.Where(w => w.Length > 0)), config));
        }
        IReadOnlyList<string> names = SweepLabels.Unique([.. members.Select(m => m.Name.Length > 0 ? m.Name : start.Name)]);
        return [.. members.Select((m, i) => new SweepMember(names[i], m.Config with { Name = names[i] }))];
    }

    /// <summary>Runs that would do the same, each told with the other.</summary>
    public static IEnumerable<Problem> Duplicates(IReadOnlyList<SweepMember> members)
    {
        foreach (IGrouping<string, int> same in Enumerable.Range(0, members.Count).GroupBy(i => JsonSerializer.Serialize(members[i].Config with { Name = "" }, Settings.Json), StringComparer.Ordinal).Where(g => g.Count() > 1))
            yield return new Problem("axes", string.Join(" and ", same.Select(i => $"run {i + 1} ({members[i].Name})").Take(5)), "would be the same run: give each value once");
    }

    private static string Shown(string text) => text.Length <= 40 ? text : text[..37] + "...";
}
