using NopeGpt.Model.Native;
using NopeGpt.Model.Replicas;
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
/// <param name="devices">Of the run; one may be there several times, and counts once.</param>
/// <param name="matrixRate">Measures the floating-point operations a second of a device (<see cref="NopeGpt.Model.MatrixRate"/>). It is asked again where a step
/// was faster, since something else kept the device busy when it was measured.</param>
internal sealed class StepMeter(RunConfig config, TimeProvider time, long firstStep, IReadOnlyList<Device> devices, Func<Device, double> matrixRate)
{
    private const int StepsBetweenMeasurements = 100;
    private static readonly StepPart[] Parts = Enum.GetValues<StepPart>();
    private static readonly string[] Names = [.. Parts.Select(p => $"time/{Configuration.Settings.SnakeCase(p.ToString())}_ms")];

    private readonly long _started = time.GetTimestamp();
    private readonly long _tokensPerStep = RunLength.TokensPerStep(config);
    private readonly Device[] _devices = [.. devices.DistinctBy(d => d.ToString())];
    private double _matrixRate = devices.DistinctBy(d => d.ToString()).Sum(matrixRate);
    private readonly TimeSpan[] _parts = new TimeSpan[Parts.Length];
    private long _begun, _remeasure;

    /// <summary>Steps of the whole run; 0 where its number is not known.</summary>
    public long LastStep { get; init; } = config.Training.MaxSteps;

    /// <summary>Operations to train on one token.</summary>
    public double FlopsPerToken { get; init; } = config.Model.FlopsPerToken(config.Data.TokensPerSample);

    /// <summary>A step begins. Evaluations and checkpoints before it are none of its time.</summary>
    public void Begin()
    {
        Array.Clear(_parts);
        _begun = time.GetTimestamp();
    }

    /// <summary>Where the time of the step went, measured there.</summary>
    public void Take(StepTimes times)
    {
        _parts[(int)StepPart.Data] = times.Data;
        _parts[(int)StepPart.Forward] = times.Forward;
        _parts[(int)StepPart.Backward] = times.Backward;
        _parts[(int)StepPart.Optimizer] = times.Reduce + times.Update;
    }

    /// <summary>The step is done: its numbers.</summary>
    /// <param name="lossScale">Null: the loss has none that changes.</param>
    /// <param name="tokens">Of this step, where not every one has the same number.</param>
    public MetricsEvent Step(Progress progress, double loss, double norm, double rate, double? lossScale = null, long? tokens = null)
    {
        long now = time.GetTimestamp();
        TimeSpan whole = time.GetElapsedTime(_begun, now);
        double tokensPerSecond = (tokens ?? _tokensPerStep) / Math.Max(1e-9, whole.TotalSeconds);
        // Over all steps of this attempt, evaluations and checkpoints included, because the rest will have them too.
        double perStep = time.GetElapsedTime(_started, now).TotalSeconds / (progress.Step - firstStep);
        Dictionary<string, double> values = new(16)
        {
            ["train/loss"] = loss,
            ["train/learning_rate"] = rate,
            ["train/gradient_norm"] = norm,
            ["train/tokens_per_second"] = tokensPerSecond,
            ["train/mfu"] = Utilisation(progress.Step, tokensPerSecond),
            ["train/tokens"] = progress.Tokens,
            ["train/flops"] = FlopsPerToken * progress.Tokens,
        };
        if (lossScale is { } scale) values["train/loss_scale"] = scale;
        TimeSpan other = whole;
        for (int part = 0; part < _parts.Length; part++)
        {
            values[Names[part]] = _parts[part].TotalMilliseconds;
            other -= _parts[part];
        }
        values["time/other_ms"] = Math.Max(0, other.TotalMilliseconds);
        values["time/step_ms"] = whole.TotalMilliseconds;
        values["system/memory_bytes"] = Environment.WorkingSet;
        long?[] used = [.. _devices.Select(DeviceMemory.Used)];
        if (used.Any(u => u is not null)) values["system/device_memory_bytes"] = used.Sum(u => u ?? 0);
        return new MetricsEvent(progress.Step, LastStep, progress.Tokens, LastStep > 0 ? perStep * (LastStep - progress.Step) : null, values);
    }

    /// <summary>Model FLOPs a second over the matrix rate: 0 to 1.</summary>
    private double Utilisation(long step, double tokensPerSecond)
    {
        double rate = FlopsPerToken * tokensPerSecond;
        if (rate > _matrixRate && step >= _remeasure)
        {
            _matrixRate = Math.Max(_matrixRate, _devices.Sum(matrixRate));
            _remeasure = step + StepsBetweenMeasurements;
        }
        // What was reached can be reached.
        _matrixRate = Math.Max(_matrixRate, rate);
        return rate / _matrixRate;
    }
}
