using NopeGpt.Model;
using NopeGpt.Model.Replicas;

namespace NopeGpt.Jobs;

// What can be wrong with the devices of a run. Whether they are there is seen when it starts: another machine may have them.
public static partial class RunConfigChecks
{
    private static void Device(RunConfig config, List<Problem> problems)
    {
        if (DeviceRequest.Parse(config.Device) is not { } request) problems.Add(new Problem("device", Short(config.Device), DeviceRequest.Fault(Short(config.Device))));
        else if (config.Kind == RunKind.Evaluate && request.Count > 1)
            problems.Add(new Problem("device", Short(config.Device), $"are {request.Count} devices, and an evaluation works on one: name one, or use auto"));
    }

    /// <summary>What can be wrong with several devices.</summary>
    private static void Devices(RunConfig config, List<Problem> problems)
    {
        if (config.Training.ShardingLevel == 1)
            problems.Add(new Problem("training.sharding_level", "1", "is no level of its own: choose 0 (none), 2 (gradients and optimizer state) or 3 (parameters too)"));
        // What is no device at all has its own problem.
        if (DeviceRequest.Parse(config.Device) is not { } request) return;
        if (request.Wish == DeviceWish.Mixed)
            problems.Add(new Problem("device", Short(config.Device), "mixes CPU and GPUs, of which the CPU would hold up the others: name devices of one kind"));
        if (request.Gpus.GroupBy(g => g).FirstOrDefault(g => g.Count() > 1) is { } twice)
            problems.Add(new Problem("device", Short(config.Device), $"names {DeviceRequest.Gpu(twice.Key)} {twice.Count()} times: name each GPU once"));
        if (config.Training.GradientAccumulationSteps >= 1 && Accumulation.Over(config.Training.GradientAccumulationSteps, request.Count).Refusal is { } refusal)
            problems.Add(refusal with { Field = "training." + refusal.Field });
    }
}
