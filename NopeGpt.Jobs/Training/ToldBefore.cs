namespace NopeGpt.Jobs.Training;

/// <summary>What earlier attempts have told of the step that this one goes on from. A stop in the midst of its evaluation, or a kill right after its
/// checkpoint, leaves work that is done again but need not be told again.</summary>
internal sealed class ToldBefore
{
    private readonly HashSet<string> _prompts = new(StringComparer.Ordinal);
    private readonly long _step;

    /// <param name="step">The step of the checkpoint; what counts of it are the events that no attempt from an earlier step has superseded.</param>
    public ToldBefore(RunFolder folder, long step)
    {
        _step = step;
        foreach (TrainingEvent earlier in folder.Events())
        {
            switch (earlier)
            {
                case StartedEvent started when started.FromStep < step:
                    (Evaluated, Saved) = (false, false);
                    _prompts.Clear();
                    break;
                case MetricsEvent metrics when metrics.Step == step && metrics.Values.ContainsKey("eval/loss"): Evaluated = true; break;
                case SampleEvent sample when sample.Step == step: _prompts.Add(sample.Prompt); break;
                case CheckpointEvent saved when saved.Step == step: Saved = true; break;
            }
        }
    }

    private bool Evaluated { get; set; }

    /// <summary>True where the step's checkpoint was told.</summary>
    public bool Saved { get; private set; }

    public bool HasEvaluation(long step) => step == _step && Evaluated;

    public bool HasSample(long step, string prompt) => step == _step && _prompts.Contains(prompt);
}
