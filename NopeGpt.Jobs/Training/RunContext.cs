namespace NopeGpt.Jobs.Training;

/// <summary>What one attempt at a run works with.</summary>
/// <param name="Place">Where it works, where that is not the config's choice.</param>
/// <param name="Log">A line for trainer.log and the terminal.</param>
internal sealed record RunContext(Store Store, RunFolder Folder, RunRecord Record, RunPlace Place, EventWriter Events, StopSignal Stop, Action<string> Log, TimeProvider Time)
{
    /// <summary>What is done here: the run's config, with the devices and threads of this attempt.</summary>
    public RunConfig Config { get; } = Place.On(Record.Config);

    public void Warn(string message)
    {
        Log("warning: " + message);
        Events.Write(new WarningEvent(message));
    }
}

/// <summary>What an attempt at a run works on; null is as the run's config has it. It is not written into run.json: the next attempt may be given something else.</summary>
public sealed record RunPlace(string? Device, int? Threads)
{
    internal RunConfig On(RunConfig config) => config with { Device = Device ?? config.Device, Threads = Threads ?? config.Threads };
}
