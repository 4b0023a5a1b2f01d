using System.Globalization;

namespace NopeGpt.Model.Replicas;

/// <summary>How the micro-batches of a step are divided among devices that work side by side.</summary>
/// <param name="PerDevice">Micro-batches of each device, from 1; 0 where there is a refusal.</param>
/// <param name="Warning">A sentence where the division leaves a rest; or null.</param>
/// <param name="Refusal">Why there is no step to take; or null.</param>
public sealed record Accumulation(int PerDevice, string? Warning, Problem? Refusal)
{
    private const string Setting = "gradient_accumulation_steps";

    /// <param name="steps">Micro-batches of a step, all devices together.</param>
    public static Accumulation Over(int steps, int devices)
    {
        ArgumentOutOfRangeException.ThrowIfLessThan(devices, 1);
        int each = Math.Max(0, steps) / devices;
        if (each == 0)
        {
            string cure = devices == 1 ? "choose 1 or more" : $"leaves nothing for each of {devices} devices: choose {devices} or a multiple of it, or fewer devices";
            return new(0, null, new(Setting, steps.ToString(CultureInfo.InvariantCulture), cure));
        }
        return new(each, each * devices == steps ? null
            : $"{Setting} = {steps} does not divide evenly among {devices} devices: each takes {each}, so that a step has {each * devices} micro-batches", null);
    }
}
