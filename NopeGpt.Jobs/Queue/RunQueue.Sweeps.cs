using NopeGpt.Model;

namespace NopeGpt.Jobs.Queue;

// Many runs from one config.
public sealed partial class RunQueue
{
    /// <summary>A sweep of more runs must be confirmed.</summary>
    internal int SweepCap { get; init; } = SweepPlan.UsualCap;

    /// <summary>Queues a run for every combination of the axes' values. They belong to one group, and each is named after what differs.</summary>
    /// <param name="config">What they have in common.</param>
    /// <param name="confirm">The number of runs that are wanted: needed for more than Jobs:SweepCap, and wrong where the sweep makes another number.</param>
    /// <param name="after">Runs that each must wait for.</param>
    /// <param name="tags">Of every run.</param>
    /// <returns>The group, and the ids of its runs, the last axis fastest.</returns>
    /// <exception cref="ProblemsException">Everything that is wrong; nothing is queued then.</exception>
    /// <exception cref="UserException">The store cannot be written; nothing is queued then.</exception>
    public async Task<(string Group, IReadOnlyList<string> Runs)> AddSweepAsync(
        RunConfig config, IReadOnlyList<SweepAxis> axes, long? confirm = null, IReadOnlyList<string>? after = null, int priority = 0, IReadOnlyList<string>? tags = null, CancellationToken cancel = default)
    {
        ArgumentNullException.ThrowIfNull(config);
        ArgumentNullException.ThrowIfNull(axes);
        tags = Distinct(tags ?? []);
        List<Problem> problems = [.. Problems(new RunChange(priority), tags)];
        after = [.. (after ?? []).Distinct()];
        EarlierRuns earlier = await EarlierAsync(after, problems, cancel).ConfigureAwait(false);
        if (problems.Count > 0) throw new ProblemsException([.. problems, .. SweepAxis.Problems(config, axes)]);
        SweepPlan plan = SweepPlan.Make(config, axes, confirm, SweepCap, earlier, after.Count > 0, store, time.GetUtcNow());
        IReadOnlyList<string> ids = NewIds(plan.Members.Count);
        await AddAllAsync([.. plan.Members.Select((m, i) => Record(ids[i], m.Config, after))], new RunCard { Group = plan.Group, Priority = priority, Tags = tags }, null, cancel).ConfigureAwait(false);
        return (plan.Group, ids);
    }
}
