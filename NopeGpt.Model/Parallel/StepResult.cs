using System.Globalization;

namespace NopeGpt.Model.Replicas;

/// <summary>What a step of a <see cref="ReplicaGroup"/> did.</summary>
/// <param name="Loss">Mean over all labelled targets of all micro-batches of all replicas, in nats; 0 where there are none.</param>
/// <param name="GradientNorm">Of all gradients of that loss as one vector, before clipping.</param>
/// <param name="Labelled">Targets that counted.</param>
/// <param name="Times">Where the first replica's time went.</param>
public readonly record struct StepResult(double Loss, double GradientNorm, long Labelled, StepTimes Times)
{
    /// <summary>Factor of the loss in the backward pass (<see cref="LossScaler"/>).</summary>
    public double LossScale { get; init; }

    /// <summary>How often the step was computed before, at higher scales, with gradients that were not finite.</summary>
    public int Overflows { get; init; }
}

/// <summary>Time of a step on the host, measured at the first replica. A GPU works behind the host: what it has not done yet is waited for in Reduce.</summary>
/// <param name="Data">Asking for the micro-batches.</param>
/// <param name="Reduce">What reducing adds to the backward pass, the norm, and reading loss and norm from the device.</param>
/// <param name="Update">Clipping, the optimizer, and gathering the parameters where that follows.</param>
public readonly record struct StepTimes(TimeSpan Data, TimeSpan Forward, TimeSpan Backward, TimeSpan Reduce, TimeSpan Update);

/// <summary>Bytes that a replica holds, counted from the storages of its live tensors.</summary>
public readonly record struct HeldBytes(long Parameters, long Gradients, long OptimizerState);

/// <summary>The loss or the norm of the gradients is not a finite number. Nothing was changed by the step.</summary>
public sealed class NonFiniteStepException : ArithmeticException
{
    internal NonFiniteStepException(double loss, double gradientNorm, IReadOnlyList<(int Replica, int Micro)> microBatches)
        : base($"the loss is {Words(loss)} and the norm of its gradients {Words(gradientNorm)}, so nothing was updated") =>
        (Loss, GradientNorm, MicroBatches) = (loss, gradientNorm, microBatches);

    public double Loss { get; }

    public double GradientNorm { get; }

    /// <summary>Those whose own loss is not finite. Empty: only gradients are not.</summary>
    public IReadOnlyList<(int Replica, int Micro)> MicroBatches { get; }

    private static string Words(double value) => value.ToString("G6", CultureInfo.InvariantCulture);
}
