using System.CommandLine;
using System.Text.Json;
using NopeGpt.Jobs.Configuration;
using NopeGpt.Jobs.Queue;
using NopeGpt.Model;

namespace NopeGpt.Jobs.Commands;

/// <summary>The options that put a run, or many, into the queue of the store instead of running it here.</summary>
internal sealed class QueueingOptions
{
    private readonly Option<bool> _queue = CommonOptions.Flag("--queue", "Put the run into the store's queue, for the dashboard to run, instead of running it here.");
    private readonly Option<string?> _after = CommonOptions.Text("--after", "ID,ID", "With --queue: wait until these runs have completed. A data set or model that the run leaves open is theirs.");
    private readonly Option<string[]> _sweep = new("--sweep") { HelpName = "NAME=VALUES", Description = $"With --queue: a run for each value of a setting, and for each combination where it is given more than once. VALUES are {SweepAxis.Forms}.", Arity = ArgumentArity.OneOrMore };
    private readonly Option<string?> _confirm = CommonOptions.Text("--confirm", "N", "The number of runs that a sweep makes, for more than Jobs:SweepCap (20).");

    public Option[] All => [_queue, _after, _sweep, _confirm];

    public bool IsGiven(Arguments arguments) => arguments.Flag(_queue);

    public bool Sweeps(Arguments arguments) => arguments.Has(_sweep);

    /// <summary>What only a new run in the queue can have.</summary>
    public void Check(Arguments arguments, bool resumes)
    {
        foreach (Option option in new Option[] { _after, _sweep, _confirm }.Where(arguments.Has))
        {
            if (resumes) arguments.Problems.Add($"{option.Name}: a run that goes on has its own place and settings: leave this out, or leave --resume out for a new run");
            else if (!arguments.Flag(_queue)) arguments.Problems.Add($"{option.Name}: is for runs in the queue: add --queue, or leave this out");
            else if (option == _confirm && !arguments.Has(_sweep)) arguments.Problems.Add($"{option.Name}: is for a sweep: add --sweep, or leave this out");
        }
    }

    /// <summary>The runs to wait for.</summary>
    public IReadOnlyList<string> After(Arguments arguments, Store store)
    {
        string[] ids = [.. (arguments.Text(_after) ?? "").Split(',', StringSplitOptions.TrimEntries | StringSplitOptions.RemoveEmptyEntries).Distinct()];
        if (arguments.Has(_after) && ids.Length == 0) arguments.Add(_after.Name, "", "name one or more runs of the store by their ids");
        foreach (string id in ids.Where(id => !RunFolder.TryOpen(store, id, out _))) arguments.Add(_after.Name, id, $"there is no such run in {store.RunsFolder}: name one by its id, and its store with --root");
        return ids;
    }

    /// <summary>The sweep; null where something is wrong with it, which is added to the problems.</summary>
    public SweepPlan? Plan(Arguments arguments, RunConfig config, IReadOnlyList<string> after, Store store)
    {
        long? confirm = arguments.Whole(_confirm, 0, int.MaxValue);
        if (arguments.Has(_confirm) && confirm is null) return null;
        try { return SweepPlan.Make(config, [.. arguments.Texts(_sweep).Select(SweepAxis.Parse)], confirm, arguments.SweepCap, RunQueue.Earlier(after, store), after.Count > 0, store, TimeProvider.System.GetUtcNow()); }
        catch (ProblemsException e)
        {
            foreach (Problem problem in e.Problems) arguments.Add(problem with { Field = problem.Field switch { "confirm" => _confirm.Name, "axes" => _sweep.Name, var axis when axis.Contains(':', StringComparison.Ordinal) => axis, var axis => $"{_sweep.Name} {axis}" } });
            return null;
        }
    }

    /// <summary>Makes the runs of a sweep and asks for them to be queued: all or none.</summary>
    public static int Queue(SweepPlan plan, IReadOnlyList<string> after, Store store, bool json)
    {
        DateTimeOffset now = TimeProvider.System.GetUtcNow();
        IReadOnlyList<string> ids = RunFolder.NewIds(store, now, plan.Members.Count);
        List<RunFolder> made = [];
        try
        {
            foreach ((SweepMember member, string id) in plan.Members.Zip(ids))
                made.Add(RunFolder.Create(store, new RunRecord(RunRecord.CurrentFormat, id, now, after, member.Config), card: new RunCard { Group = plan.Group }));
        }
        catch
        {
            foreach (RunFolder folder in made) Directory.Delete(folder.Path, recursive: true);
            throw;
        }
        foreach (RunFolder folder in made) folder.RequestQueue();
        Console.Error.WriteLine($"{made.Count} runs are in the queue: a dashboard of this store runs them, now or when one is started");
        if (json) Console.WriteLine(JsonSerializer.Serialize(new { group = plan.Group, runs = ids }, Settings.Json));
        else foreach ((SweepMember member, string id) in plan.Members.Zip(ids)) Console.Error.WriteLine($"  {id}  {member.Name}");
        return ExitCode.Done;
    }
}
