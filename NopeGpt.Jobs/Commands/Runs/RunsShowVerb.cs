using System.CommandLine;
using System.Globalization;
using NopeGpt.Jobs.Queue;

namespace NopeGpt.Jobs.Commands.Runs;

/// <summary>`nopegpt runs show`: everything about one run.</summary>
internal sealed class RunsShowVerb() : RunsVerb("show", "Show one run: state and reason, progress, place in the queue, where it comes from, its checkpoints and what it takes on the disk.")
{
    private readonly Argument<string?> run = One();

    public override IReadOnlyList<Argument> Positions => [run];

    protected override Func<RunsTerminal, CancellationToken, Task<int>> ReadOwn(Arguments arguments)
    {
        string words = arguments.Text(run) ?? "";
        return async (terminal, cancel) =>
        {
            RunRow row = await terminal.FindAsync(words, cancel);
            terminal.Client.Update(row);
            IReadOnlyList<RunRow> all = await terminal.Queue.ListAsync(cancel: cancel);
            RunReport report = RunReport.Of(row, terminal.Client.Store, RunsTerminal.Places(all), [.. all.Where(r => r.Parent == row.Id).Select(r => r.Id)]);
            if (terminal.Json) RunsTerminal.Print(report);
            else Write(report, row, all);
            return ExitCode.Done;
        };
    }

    private static void Write(RunReport report, RunRow row, IReadOnlyList<RunRow> all)
    {
        Line("id", report.Id);
        Line("name", report.Name);
        Line("kind", report.Kind);
        Line("state", report.State + (report.Attempt > 1 ? $" (attempt {report.Attempt})" : ""));
        Line("reason", report.Reason);
        Line("progress", RunsTerminal.Done(row) is { Length: > 0 } done && row.Kind.Trains() ? $"step {row.Step}, {done}" : RunsTerminal.Done(row));
        Line("place", report.QueuePlace is { } place ? $"{place} in the queue" : null);
        Line("priority", report.Priority == 0 ? null : $"{report.Priority}");
        Line("held", report.Held ? "yes; `nopegpt runs release` lets it start" : null);
        Line("not before", report.NotBefore is { } earliest ? RunsListVerb.Time(earliest) : null);
        Line("next try", report.RetryAt is { } retry ? RunsListVerb.Time(retry) : null);
        if (report.Host.Length > 0) Line("host", report.Host);
        Line("device", report.Devices.Count > 0 ? $"{report.Device}: {string.Join(", ", report.Devices)}" : report.Device);
        Line("created", RunsListVerb.Time(report.Created));
        Line("started", report.Started is { } started ? RunsListVerb.Time(started) : null);
        Line("ended", report.Ended is { } ended ? RunsListVerb.Time(ended) : null);
        Line("after", report.After.Count > 0 ? string.Join(", ", report.After.Select(Named)) : null);
        Line("from", report.Parent.Length == 0 ? null : Named(report.Parent) + (report.ParentStep is { } step ? $" at step {step}" : ", made anew"));
        Line("copies", report.Children.Count > 0 ? string.Join(", ", report.Children.Select(Named)) : null);
        Line("group", report.Group);
        Line("tags", string.Join(", ", report.Tags));
        Line("folder", report.Folder);
        Line("on disk", TextTable.Bytes(report.SizeBytes));
        if (report.Notes.Length > 0) Console.WriteLine($"\nnotes:\n{PlainText.Of(report.Notes, lines: true)}");
        if (report.Metrics.Count > 0) Console.Write("\n" + TextTable.Format(["metric", "last value"], report.Metrics.Select(m => (IReadOnlyList<object?>)[PlainText.Of(m.Key), m.Value.ToString("G6", CultureInfo.InvariantCulture)])));
        if (report.Checkpoints.Count > 0)
        {
            Console.Write("\n" + TextTable.Format(["checkpoint", "loss", "size", "pinned"], report.Checkpoints.Select(c => (IReadOnlyList<object?>)
                [c.Step, c.Loss?.ToString("0.000", CultureInfo.InvariantCulture) ?? "", TextTable.Bytes(c.Bytes), c.Pinned ? "pinned" : ""])));
        }

        string Named(string id) => all.FirstOrDefault(r => r.Id == id) is { Name.Length: > 0 } known ? $"{id} {known.Name}" : id;
    }

    private static void Line(string name, string? value)
    {
        if (!string.IsNullOrEmpty(value)) Console.WriteLine($"{name,-10}  {PlainText.Of(value)}");
    }
}

/// <summary>A run with what its folder tells.</summary>
/// <param name="Children">Ids of its copies and forks.</param>
/// <param name="Metrics">The last value of each.</param>
/// <param name="SizeBytes">Of the whole folder.</param>
internal sealed record RunReport(RunsDocument Run, IReadOnlyList<string> Children, IReadOnlyDictionary<string, double> Metrics, IReadOnlyList<ReportedCheckpoint> Checkpoints, long SizeBytes) : RunsDocument(Run)
{
    [System.Text.Json.Serialization.JsonIgnore]
    public RunsDocument Run { get; } = Run;

    public static RunReport Of(RunRow row, Store store, IReadOnlyDictionary<string, int> places, IReadOnlyList<string> children)
    {
        SortedDictionary<string, double> metrics = new(StringComparer.Ordinal);
        Dictionary<long, double> losses = [];
        IReadOnlyList<KeptCheckpoint> kept = [];
        if (RunFolder.TryOpen(store, row.Id, out RunFolder? folder))
        {
            foreach (TrainingEvent happened in folder.Events())
            {
                if (happened is CheckpointEvent saved) losses[saved.Step] = saved.Loss;
                else if (happened is MetricsEvent measured)
                {
                    foreach ((string name, double value) in measured.Values) metrics[name] = value;
                }
            }
            kept = RunDisk.Checkpoints(folder);
        }
        return new RunReport(RunsDocument.Of(row, store, places), children, metrics,
            [.. kept.Select(c => new ReportedCheckpoint(c.Step, c.Path, losses.TryGetValue(c.Step, out double loss) ? loss : null, c.Bytes, c.Pinned))], folder is null ? 0 : RunDisk.Bytes(folder.Path));
    }
}

/// <param name="Loss">Newest evaluation loss, else the training loss; null where its events do not tell: it is of the run that this one was forked from.</param>
internal sealed record ReportedCheckpoint(long Step, string Path, double? Loss, long Bytes, bool Pinned);
