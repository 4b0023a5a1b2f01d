namespace NopeGpt.Jobs.Commands;

/// <summary>What --json prints of a run: as the HTTP interface names it.</summary>
internal static class RunDocument
{
    private const int Samples = 3;

    /// <param name="code">The exit code of the attempt; null where none was made.</param>
    public static object Of(RunFolder folder, RunState otherwise, int? code)
    {
        Dictionary<string, double> metrics = [];
        EndedEvent? ended = null;
        Queue<SampleEvent> samples = [];
        foreach (TrainingEvent happened in folder.Events())
        {
            switch (happened)
            {
                case StartedEvent: ended = null; break;
                case EndedEvent e: ended = e; break;
                case MetricsEvent m:
                    foreach ((string name, double value) in m.Values) metrics[name] = value;
                    break;
                case SampleEvent s:
                    samples.Enqueue(s);
                    if (samples.Count > Samples) samples.Dequeue();
                    break;
            }
        }
        return new
        {
            id = folder.Id, folder = folder.Path, state = (code is null ? otherwise : ended?.State ?? otherwise).ToString(), reason = code is null ? null : ended?.Reason, exit_code = code, metrics,
            samples = samples.Select(s => new { s.Prompt, s.Text }),
        };
    }
}
