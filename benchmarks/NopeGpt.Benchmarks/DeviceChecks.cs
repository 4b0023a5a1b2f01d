using System.Text.Json;
using NopeGpt.Jobs;
using NopeGpt.Model;
using NopeGpt.Model.Native;
using NopeGpt.Model.Replicas;
using NopeGpt.Model.Storage;
using TorchSharp;
using static TorchSharp.torch;

namespace NopeGpt.Benchmarks;

/// <summary>The checks for a machine with GPUs (docs/gpu.md), each a command. On CPUs they run too, which proves them.</summary>
internal static class DeviceChecks
{
    /// <summary>As the first argument.</summary>
    public const string Mode = "gpu";

    private const double LogitTolerance = 1e-4, GradientTolerance = 1e-4, LossTolerance = 1e-3, SumTolerance = 1e-6;

    private static readonly (string Name, string What, Func<DeviceOptions, IReadOnlyList<Device>, bool> Run)[] Checks =
    [
        ("parity", "logits, loss and gradients of every architecture beside the CPU's (--device)", Parity),
        ("losses", "losses of --steps steps beside the CPU's from the same beginning (--device, --preset)", Losses),
        ("throughput", "tokens/s, utilisation and memory (--device, --preset, --precision, --batch, --length, --steps)", Throughput),
        ("sharding", "bytes that a replica holds and tokens/s at level 0, 2 and 3 (--devices, --preset, --sharding)", ShardingLevels),
        ("collectives", "sums, shares and gathered buffers checked and timed (--devices, --elements)", Collective),
    ];

    /// <returns>The exit code: 0 where all was as it must be, 1 where something was not, 2 for a mistake in the arguments.</returns>
    public static int Run(IReadOnlyList<string> arguments)
    {
        string[] wanted = arguments.Count == 0 ? [] : arguments[0] == "all" ? [.. Checks.Select(c => c.Name)] : [arguments[0]];
        if (wanted.Length == 0 || Checks.All(c => !wanted.Contains(c.Name)))
        {
            Console.Error.WriteLine($"gpu {(wanted.Length == 0 ? "needs" : $"{wanted[0]}: there is no such check; choose")} one of:");
            foreach ((string name, string what, _) in Checks) Console.Error.WriteLine($"  {name,-12} {what}");
            Console.Error.WriteLine("  all          all of them");
            return 2;
        }
        try
        {
            DeviceOptions options = DeviceOptions.Read([.. arguments.Skip(1)]);
            IReadOnlyList<Device> devices = ComputeDevice.StartAll(options.LibTorch, options.Devices);
            TorchRuntime.SetThreads(Environment.ProcessorCount);
            Console.WriteLine(TorchRuntime.Describe());
            bool right = true;
            foreach ((string name, _, Func<DeviceOptions, IReadOnlyList<Device>, bool> run) in Checks.Where(c => wanted.Contains(c.Name)))
            {
                Console.WriteLine($"{name}:");
                right &= run(options, devices);
            }
            Console.WriteLine(right ? "all as it must be" : "NOT as it must be");
            return right ? 0 : 1;
        }
        catch (Exception e) when (e is ArgumentException or UserException or TorchUnavailableException)
        {
            Console.Error.WriteLine(e.Message.Split(" (Parameter")[0]);
            return 2;
        }
    }

    private static bool Parity(DeviceOptions options, IReadOnlyList<Device> devices)
    {
        bool right = true;
        foreach (ModelPreset preset in ModelPresets.All.Where(p => p.Name.EndsWith("-tiny", StringComparison.Ordinal)))
        {
            using DisposeScope scope = NewDisposeScope();
            using Decoder cpu = new(preset.Config, 1), other = new(preset.Config, 1, devices[0]);
            // 0: no length that the model is bound to.
            int longest = preset.Config.ContextLength > 0 ? preset.Config.ContextLength : options.Length;
            MicroBatch batch = DeviceRuns.Batch(options with { Preset = preset, Length = Math.Min(options.Length, longest) }, 0, 0, 1);
            (Tensor logits, float loss, Dictionary<string, Tensor> gradients) = Pass(cpu, batch);
            (Tensor logits2, float loss2, Dictionary<string, Tensor> gradients2) = Pass(other, batch);
            double logitError = logits2.sub(logits).abs().max().item<float>(), lossError = Math.Abs(loss2 - loss);
            (string Name, double Error) worst = gradients.Select(g => (g.Key, Relative(gradients2[g.Key], g.Value))).MaxBy(g => g.Item2);
            bool same = logitError <= LogitTolerance && lossError <= LogitTolerance && worst.Error <= GradientTolerance;
            right &= same;
            Say($"  {preset.Name,-16} logits differ by {logitError:0.0e+0}, the loss by {lossError:0.0e+0}, gradients by {worst.Error:0.0e+0} of their norm at most ({worst.Name}){(same ? "" : "  TOO MUCH")}");
        }
        return right;
    }

    private static (Tensor Logits, float Loss, Dictionary<string, Tensor> Gradients) Pass(Decoder model, MicroBatch batch)
    {
        Tensor tokens_BT = tensor(batch.Tokens, [batch.Rows, batch.Length], ScalarType.Int64, model.Device), targets_BT = tensor(batch.Targets, [batch.Rows, batch.Length], ScalarType.Int64, model.Device);
        Tensor logits;
        using (no_grad()) logits = model.Forward(tokens_BT).cpu();
        Tensor loss = model.Loss(tokens_BT, targets_BT);
        loss.backward();
        return (logits, loss.item<float>(), model.Parameters().ToDictionary(p => p.Name, p => p.Parameter.grad!.cpu()));
    }

    private static double Relative(Tensor one, Tensor other) => one.sub(other).norm().item<float>() / Math.Max(1e-12, other.norm().item<float>());

    private static bool Losses(DeviceOptions options, IReadOnlyList<Device> devices)
    {
        double[] Of(Device device)
        {
            using ReplicaGroup group = DeviceRuns.Group(options, [device]);
            return DeviceRuns.Train(group, options, [device]).Losses;
        }
        double[] cpu = Of(CPU), other = Of(devices[0]);
        double most = cpu.Zip(other, (a, b) => Math.Abs(a - b)).Max();
        Say($"  {options.Preset.Name}, {options.Steps} steps of {options.Rows} x {options.Length}, {options.Precision}: from {cpu[0]:0.0000} to {cpu[^1]:0.0000} on the CPU, to {other[^1]:0.0000} on {devices[0]}; they differ by {most:0.0e+0} at most");
        // A narrow type rounds otherwise on every device.
        return most <= (options.Precision == Precision.Float32 ? LossTolerance : 0.02 * cpu[0]);
    }

    private static bool Throughput(DeviceOptions options, IReadOnlyList<Device> devices)
    {
        using ReplicaGroup group = DeviceRuns.Group(options, devices, Sharded(options.Sharding ?? 0));
        if (options.Weights is { } folder) Checkpoint.SaveModel(folder, group.Model);
        if (options.Batches is { } path) WriteBatches(path, options);
        long before = DeviceMemory.Used(devices[0]) ?? Environment.WorkingSet;
        DeviceRuns.Steps steps = DeviceRuns.Train(group, options, devices);
        double tokens = (double)options.Rows * options.Length * devices.Count / steps.Seconds;
        // Replicas on one device share it.
        double peak = devices.DistinctBy(d => d.ToString()).Sum(d => Enumerable.Range(0, 3).Max(_ => MatrixRate.Again(d, options.Precision.Type())));
        double used = tokens * options.Preset.Config.FlopsPerToken(options.Length) / peak;
        Say($"  {options.Preset.Name} ({Models.Size(options.Preset.Config)}), {options.Precision}, {devices.Count} x {options.Rows} x {options.Length} on {options.Devices}: {tokens:N0} tokens/s, "
            + $"{100 * used:0.0} % of {peak / 1e12:0.00} TFLOP/s measured, {Size(steps.Peak.Max())} in use at most ({Size(before)} before the first step), loss {steps.Losses[0]:0.0000} to {steps.Losses[^1]:0.0000}");
        // No device does more than it can: other programs used it while its rate was measured.
        if (used > 1) Say("  the matrix rate was measured too low, so the utilisation means nothing: repeat it on a quiet machine");
        if (options.Json is { } json)
            File.WriteAllText(json, JsonSerializer.Serialize(new { tokens_per_second = tokens, utilisation = used, peak_bytes = steps.Peak.Max(), losses = steps.Losses }));
        return steps.Losses.All(double.IsFinite);
    }

    private static void WriteBatches(string path, DeviceOptions options)
    {
        using BinaryWriter writer = new(File.Create(path));
        for (int step = 0; step < options.Steps; step++)
            for (int row = 0; row < options.Rows * options.DeviceCount; row++)
                foreach (long id in DeviceRuns.Text(options, step, row, options.Rows * options.DeviceCount)) writer.Write(id);
    }

    private static bool ShardingLevels(DeviceOptions options, IReadOnlyList<Device> devices)
    {
        if (devices.Count < 2)
        {
            Say($"  nothing is split on one device: give two or more, such as --devices {(devices[0].type == DeviceType.CPU ? "cpu,cpu" : "cuda:0,cuda:1")}");
            return true;
        }
        bool right = true;
        double[]? first = null;
        foreach (int level in options.Sharding is { } only ? [only] : (int[])[0, 2, 3])
        {
            using ReplicaGroup group = DeviceRuns.Group(options, devices, Sharded(level));
            DeviceRuns.Steps steps = DeviceRuns.Train(group, options, devices);
            HeldBytes held = group.HeldBytes(0), peak = group.PeakBytes(0);
            double most = (first ??= steps.Losses).Zip(steps.Losses, (a, b) => Math.Abs(a - b)).Max(), tokens = options.Rows * options.Length * devices.Count / steps.Seconds;
            // All hold parameters, gradients and two moments of 4 bytes each; what is split is an equal share and some padding.
            long whole = 4 * options.Preset.Config.ParameterCount, share = (whole / devices.Count) + (1 << 16);
            bool kept = held.OptimizerState <= (level == 0 ? 2 * whole + (1 << 16) : 2 * share) && (level == 0 || held.Gradients <= share) && (level < 3 || held.Parameters <= share);
            right &= kept && most <= LossTolerance;
            Say($"  level {level}: a replica holds {Size(held.Parameters)} of parameters, {Size(held.Gradients)} of gradients, {Size(held.OptimizerState)} of optimizer state{(kept ? "" : "  MORE THAN PROMISED")}; "
                + $"with what is whole for a while {Size(peak.Parameters)} and {Size(peak.Gradients)}; on the device {Size(steps.Peak[0])}; {tokens:N0} tokens/s; losses differ from the first level's by {most:0.0e+0}; by {group.Description}");
        }
        return right;
    }

    private static bool Collective(DeviceOptions options, IReadOnlyList<Device> devices)
    {
        using ICollective collective = Collectives.Between(devices, Math.Max(1, Environment.ProcessorCount / devices.Count));
        Say($"  {devices.Count} replicas, {collective.Description}");
        bool right = true;
        foreach (int elements in (int[])[devices.Count, options.Elements / 64 / devices.Count * devices.Count, options.Elements / devices.Count * devices.Count])
            if (elements > 0) right &= new CollectiveTrial(collective, devices, elements).Run(SumTolerance, Say);
        return right;
    }

    private static Sharding Sharded(int level) => level switch { 0 => Sharding.None, 2 => Sharding.Gradients, _ => Sharding.Parameters };

    private static string Size(long bytes) => bytes < 100_000_000 ? $"{bytes / 1e6:0.000} MB" : $"{bytes / 1e9:0.000} GB";

    private static void Say(string line) => Console.WriteLine(line);
}
