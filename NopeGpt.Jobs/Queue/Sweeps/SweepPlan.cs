using System.Globalization;
using System.Text.Json;
using Microsoft.Extensions.Configuration;
using NopeGpt.Jobs.Configuration;
using NopeGpt.Model;

namespace NopeGpt.Jobs.Queue;

/// <summary>A sweep that can be queued: its runs, each checked.</summary>
/// <param name="Group">What its runs have in common: an id, and a name for people behind it.</param>
internal sealed record SweepPlan(string Group, IReadOnlyList<SweepMember> Members)
{
    public const int UsualCap = 20;
    private const int MostShown = 20;

    /// <summary>Jobs:SweepCap: a sweep of more runs must be confirmed.</summary>
    /// <exception cref="UserException">It is no number.</exception>
    public static int Cap(IConfiguration configuration)
    {
        string? text = configuration["Jobs:SweepCap"];
        if (string.IsNullOrWhiteSpace(text)) return UsualCap;
        return int.TryParse(text, NumberStyles.None, CultureInfo.InvariantCulture, out int cap) ? cap : throw new UserException($"Jobs:SweepCap = {text}: use a whole number from 0 to {int.MaxValue}");
    }

    /// <summary>Expands a sweep and checks every run of it.</summary>
    /// <param name="earlier">What its runs wait for.</param>
    /// <param name="confirm">The number of runs that the person expects; null where none was given.</param>
    /// <exception cref="ProblemsException">Everything that is wrong.</exception>
    public static SweepPlan Make(RunConfig config, IReadOnlyList<SweepAxis> axes, long? confirm, int cap, EarlierRuns earlier, bool waits, Store store, DateTimeOffset now)
    {
        List<Problem> problems = [];
        IReadOnlyList<AxisValues> read = Sweep.Read(config, axes, problems);
        if (problems.Count > 0) throw new ProblemsException(problems);
        IReadOnlyList<SweepMember> members = [.. Products(Sweep.Expand(config, read), read).Select(m => m with { Config = RunQueue.WithFullPaths(earlier.Complete(m.Config), store, waits) })];
        if (confirm is { } expected ? expected != members.Count : members.Count > cap)
        {
            string size = $"{members.Count} runs{Extent(members)}";
            problems.Add(confirm is { } wrong
                ? new Problem("confirm", wrong.ToString(CultureInfo.InvariantCulture), $"the sweep makes {size}: confirm {members.Count} if you want them")
                : new Problem("confirm", "", $"the sweep makes {size}, and more than {cap} (Jobs:SweepCap) must be confirmed: give confirm {members.Count} if you want them"));
            throw new ProblemsException(problems);
        }
        problems.AddRange(Sweep.Duplicates(members));
        problems.AddRange(Collisions(members, store));
        problems.AddRange(Wrong(members, earlier));
        if (problems.Count > MostShown) problems = [.. problems.Take(MostShown), new Problem("axes", $"{problems.Count - MostShown} more problems", $"the first {MostShown} are shown: mend these first")];
        if (problems.Count > 0) throw new ProblemsException(problems);
        string title = config.Name.Length > 0 ? config.Name : string.Join(" x ", read.Select(a => a.Setting.Name));
        return new SweepPlan($"{RunFolder.NewId(now)} {title}", members);
    }

    /// <summary>Runs that make something under a name make it under as many: name-1, name-2 and so on, where the name is not swept itself.</summary>
    private static IEnumerable<SweepMember> Products(IReadOnlyList<SweepMember> members, IReadOnlyList<AxisValues> axes) => members.Select((member, i) =>
    {
        RunConfig config = member.Config;
        string? path = config.Kind switch { RunKind.Prepare => "prepare.dataset", RunKind.Tokenizer => "tokenizer.name", RunKind.Export => "export.out", _ => null };
        if (path is null || members.Count == 1 || axes.Any(a => a.Setting.Path == path) || Settings.Get(config, path) is not string { Length: > 0 } name) return member;
        return member with { Config = Settings.Set(config, path, string.Create(CultureInfo.InvariantCulture, $"{Path.TrimEndingDirectorySeparator(name)}-{i + 1}")) };
    });

    /// <summary>Runs that would make different things under one name.</summary>
    private static IEnumerable<Problem> Collisions(IReadOnlyList<SweepMember> members, Store store)
    {
        string? Product(RunConfig config) => config.Kind switch { RunKind.Prepare => config.Prepare.Dataset, RunKind.Tokenizer => config.Tokenizer.Name, RunKind.Export => store.ExportFolder(config, null), _ => null };
        foreach (IGrouping<string?, int> same in Enumerable.Range(0, members.Count).GroupBy(i => Product(members[i].Config), StringComparer.Ordinal).Where(g => g.Key is not null && g.Count() > 1))
            yield return new Problem("axes", string.Join(" and ", same.Take(3).Select(i => $"run {i + 1} ({members[i].Name})")), $"would make {same.Key} in {same.Count()} ways: leave its name out of the sweep, and each gets one of its own");
    }

    /// <summary>The problems of all runs; those that several have are told once, with the first that has them.</summary>
    private static IEnumerable<Problem> Wrong(IReadOnlyList<SweepMember> members, EarlierRuns earlier)
    {
        // Data sets, bases and tokenizers are looked at once for runs that differ only in what these checks do not read.
        Dictionary<string, IReadOnlyList<Problem>> ofStore = [];
        List<(Problem Problem, int Run)> found = [];
        for (int run = 0; run < members.Count; run++)
        {
            RunConfig config = members[run].Config;
            IReadOnlyList<Problem> own = config.Problems();
            string key = JsonSerializer.Serialize(config with { Name = "", Seed = 0, Optimizer = new() }, Settings.Json);
            if (!ofStore.TryGetValue(key, out IReadOnlyList<Problem>? store)) ofStore[key] = store = [.. earlier.Problems(config).Except(own)];
            found.AddRange(own.Concat(store).Select(p => (p, run)));
        }
        foreach (IGrouping<Problem, (Problem Problem, int Run)> same in found.GroupBy(f => f.Problem))
        {
            int first = same.First().Run, count = same.Count();
            string runs = count == 1 ? $"run {first + 1} ({members[first].Name})" : count == members.Count ? $"all {count} runs" : $"{count} runs, the first {first + 1} ({members[first].Name})";
            yield return same.Key with { Field = $"{runs}: {same.Key.Field}" };
        }
    }

    /// <summary>How much training it is, as the end of a sentence's part; empty where that is not known.</summary>
    private static string Extent(IReadOnlyList<SweepMember> members)
    {
        (long? Steps, long PerStep)[] lengths = [.. members.Where(m => m.Config.Kind.Trains()).Select(m => (RunLength.Scheduled(m.Config, null), m.Config.Kind == RunKind.Pretrain ? RunLength.TokensPerStep(m.Config) : 0))];
        if (lengths.Length == 0 || lengths.Any(l => l.Steps is null or 0)) return "";
        double steps = lengths.Sum(l => (double)l.Steps!), tokens = lengths.Sum(l => (double)l.Steps! * l.PerStep);
        return string.Create(CultureInfo.InvariantCulture, $", about {steps:#,0} steps{(tokens > 0 ? string.Create(CultureInfo.InvariantCulture, $" and {tokens:#,0} tokens") : "")} in all");
    }
}
