using System.Diagnostics;

namespace NopeGpt.Jobs.Training;

/// <summary>Turns steps into numbers: rates, time left, memory.</summary>
internal sealed class StepMeter(RunConfig config, TimeProvider time, long firstStep)
{
    private readonly long started = time.GetTimestamp();
    private readonly long tokensPerStep = (long)config.Training.BatchSize * config.Data.TokensPerSample * config.Training.GradientAccumulationSteps;
    private readonly double flopsPerToken = config.Model.FlopsPerToken(config.Data.TokensPerSample);
    private long last = time.GetTimestamp();

    public MetricsEvent Step(Progress progress, double loss, double norm, double rate)
    {
        long now = time.GetTimestamp();
        double seconds = Math.Max(1e-9, time.GetElapsedTime(last, now).TotalSeconds);
        last = now;
        // Over all steps of this attempt, evaluations and checkpoints included, because the rest will have them too.
        double perStep = time.GetElapsedTime(started, now).TotalSeconds / (progress.Step - firstStep);
        return new MetricsEvent(progress.Step, config.Training.MaxSteps, progress.Tokens, perStep * (config.Training.MaxSteps - progress.Step), new Dictionary<string, double>
        {
            ["train/loss"] = loss,
            ["train/learning_rate"] = rate,
            ["train/gradient_norm"] = norm,
            ["train/tokens_per_second"] = tokensPerStep / seconds,
            ["train/flops"] = flopsPerToken * progress.Tokens,
            ["system/memory_bytes"] = Environment.WorkingSet,
        });
    }
}
