namespace NopeGpt.Jobs.Training;

/// <summary>What one attempt at a run works with.</summary>
/// <param name="Log">A line for trainer.log and the terminal.</param>
internal sealed record RunContext(Store Store, RunFolder Folder, RunRecord Record, EventWriter Events, StopSignal Stop, Action<string> Log, TimeProvider Time)
{
    public RunConfig Config => Record.Config;

    public void Warn(string message)
    {
        Log("warning: " + message);
        Events.Write(new WarningEvent(message));
    }
}
