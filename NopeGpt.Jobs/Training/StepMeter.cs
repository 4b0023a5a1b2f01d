using NopeGpt.Model.Native;
using static TorchSharp.torch;

namespace NopeGpt.Jobs.Training;

/// <summary>Where the time of a step goes. What is none of them is "other": reporting, logging, waiting for the stop signal's lock.</summary>
internal enum StepPart
{
    /// <summary>Waiting for the batches, and bringing them to the device.</summary>
    Data,

    /// <summary>With the head's gradient, which is computed beside its loss.</summary>
    Forward,

    Backward,

    /// <summary>Clipping and update, and reading loss and norm, for which a GPU's work so far is waited for.</summary>
    Optimizer,
}

/// <summary>Turns steps into numbers: rates, utilisation, time split, time left, memory. It reads clocks and never waits for a device.</summary>
/// <param name="firstStep">Step from which this attempt goes on.</param>
/// <param name="matrixRate">Floating-point operations a second that the run's devices can do, all together (see <see cref="NopeGpt.Model.MatrixRate"/>).</param>
internal sealed class StepMeter(RunConfig config, TimeProvider time, long firstStep, Device device, double matrixRate)
{
    private static readonly StepPart[] Parts = Enum.GetValues<StepPart>();
    private static readonly string[] Names = [.. Parts.Select(p => $"time/{Configuration.Settings.SnakeCase(p.ToString())}_ms")];

    private readonly long _started = time.GetTimestamp();
    private readonly long _tokensPerStep = (long)config.Training.BatchSize * config.Data.TokensPerSample * config.Training.GradientAccumulationSteps;
    private readonly double _flopsPerToken = config.Model.FlopsPerToken(config.Data.TokensPerSample);
    private readonly TimeSpan[] _parts = new TimeSpan[Parts.Length];
    private long _begun, _lap;

    /// <summary>A step begins. Evaluations and checkpoints before it are none of its time.</summary>
    public void Begin()
    {
        Array.Clear(_parts);
        _begun = _lap = time.GetTimestamp();
    }

    /// <summary>The time since the beginning or the last lap was this part's.</summary>
    public void Lap(StepPart part)
    {
        long now = time.GetTimestamp();
        Add(part, time.GetElapsedTime(_lap, now));
        _lap = now;
    }

    /// <summary>Time that was measured elsewhere.</summary>
    public void Add(StepPart part, TimeSpan spent) => _parts[(int)part] += spent;

    /// <summary>The step is done: its numbers.</summary>
    public MetricsEvent Step(Progress progress, double loss, double norm, double rate)
    {
        long now = time.GetTimestamp();
        TimeSpan whole = time.GetElapsedTime(_begun, now);
        double tokensPerSecond = _tokensPerStep / Math.Max(1e-9, whole.TotalSeconds);
        // Over all steps of this attempt, evaluations and checkpoints included, because the rest will have them too.
        double perStep = time.GetElapsedTime(_started, now).TotalSeconds / (progress.Step - firstStep);
        Dictionary<string, double> values = new(16)
        {
            ["train/loss"] = loss,
            ["train/learning_rate"] = rate,
            ["train/gradient_norm"] = norm,
            ["train/tokens_per_second"] = tokensPerSecond,
            ["train/mfu"] = _flopsPerToken * tokensPerSecond / matrixRate,
            ["train/tokens"] = progress.Tokens,
            ["train/flops"] = _flopsPerToken * progress.Tokens,
        };
        TimeSpan other = whole;
        for (int part = 0; part < _parts.Length; part++)
        {
            values[Names[part]] = _parts[part].TotalMilliseconds;
            other -= _parts[part];
        }
        values["time/other_ms"] = Math.Max(0, other.TotalMilliseconds);
        values["time/step_ms"] = whole.TotalMilliseconds;
        values["system/memory_bytes"] = Environment.WorkingSet;
        if (DeviceMemory.Used(device) is { } used) values["system/device_memory_bytes"] = used;
        return new MetricsEvent(progress.Step, config.Training.MaxSteps, progress.Tokens, perStep * (config.Training.MaxSteps - progress.Step), values);
    }
}
