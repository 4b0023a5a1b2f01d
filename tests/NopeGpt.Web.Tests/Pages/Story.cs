using NopeGpt.Jobs;
using NopeGpt.Web.Tests.Live;

namespace NopeGpt.Web.Tests.Pages;

/// <summary>Runs as trainers leave them.</summary>
internal static class Story
{
    public const string Unsafe = "<script>alert('x')</script> & <b>bold</b>";

    /// <summary>A training run of 100 steps with two evaluations and two checkpoints.</summary>
    /// <param name="end">Null leaves the run without an end, as while its trainer works.</param>
    public static Scribe Training(Store store, string name, RunState? end, string? reason = null)
    {
        Scribe run = new(store, new RunConfig { Kind = RunKind.Pretrain, Name = name, Data = new DataConfig { Dataset = "stories" }, Training = new TrainingConfig { MaxSteps = 100 } });
        run.Write(new StartedEvent(1, 0, 1, "cpu"));
        for (int step = 10; step <= 100; step += 10) run.Write(Scribe.Step(step, 5 - step / 25.0));
        run.Write(Scribe.Step(50, 3.25, name: "eval/loss"), new SampleEvent(50, "Once", "Once and and the"), run.Checkpoint(50));
        run.Write(Scribe.Step(100, 1.125, name: "eval/loss"), new SampleEvent(100, "Once", " upon a time " + Unsafe), run.Checkpoint(100), new WarningEvent("a warning " + Unsafe));
        if (end is { } state) run.Write(new EndedEvent(state, reason));
        File.WriteAllText(run.Folder.LogPath, "a line of the log\n");
        return run;
    }
}
