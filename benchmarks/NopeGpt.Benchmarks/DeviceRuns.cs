using System.Diagnostics;
using NopeGpt.Model;
using NopeGpt.Model.Native;
using NopeGpt.Model.Optimizers;
using NopeGpt.Model.Replicas;
using TorchSharp;
using static TorchSharp.torch;

namespace NopeGpt.Benchmarks;

/// <summary>Training steps on made-up text, the same on every device and in benchmarks/PyTorch, and what they take.</summary>
internal static class DeviceRuns
{
    public const double Rate = 1e-3, Clip = 1;

    // At first kernels are chosen, memory is taken and clocks rise.
    private const int WarmUp = 3;

    /// <summary>As benchmarks/PyTorch has them: decay for the matrices only.</summary>
    public static readonly AdamWOptions Adam = new() { Beta1 = 0.9, Beta2 = 0.95, Epsilon = 1e-8, WeightDecay = 0.1 };

    /// <summary>What some steps gave.</summary>
    /// <param name="Losses">Of all steps.</param>
    /// <param name="Seconds">Median of a step behind the first ones.</param>
    /// <param name="Peak">The most bytes in use on each device after a step, by all processes; of the process for a CPU.</param>
    public sealed record Steps(double[] Losses, double Seconds, long[] Peak);

    public static ReplicaGroup Group(DeviceOptions options, IReadOnlyList<Device> devices, Sharding sharding = Sharding.None)
    {
        Decoder model = new(options.Preset.Config, 1, devices[0]) { Precision = options.Precision };
        return new(model, Adam, new() { Devices = devices, Sharding = sharding, Seed = 1 }) { LossScale = options.Precision == Precision.Float16 ? LossScaler.Dynamic() : LossScaler.Fixed(1) };
    }

    public static Steps Train(ReplicaGroup group, DeviceOptions options, IReadOnlyList<Device> devices)
    {
        double[] losses = new double[options.Steps];
        List<double> seconds = [];
        long[] peak = new long[devices.Count];
        for (int step = 0; step < options.Steps; step++)
        {
            long start = Stopwatch.GetTimestamp();
            // Loss and norm are read from the device in it, which waits for all but the update; the next step waits for that.
            losses[step] = group.Step((replica, _) => Batch(options, step, replica, devices.Count), 1, Rate, Clip).Loss;
            if (step >= WarmUp || options.Steps <= WarmUp) seconds.Add(Stopwatch.GetElapsedTime(start).TotalSeconds);
            for (int i = 0; i < peak.Length; i++) peak[i] = Math.Max(peak[i], DeviceMemory.Used(devices[i]) ?? Environment.WorkingSet);
        }
        seconds.Sort();
        return new(losses, seconds[seconds.Count / 2], peak);
    }

    /// <summary>Rows of one replica: all replicas together read the same whatever their number.</summary>
    public static MicroBatch Batch(DeviceOptions options, int step, int replica, int replicas)
    {
        int rows = options.Rows, length = options.Length;
        long[] tokens = new long[rows * length], targets = new long[rows * length];
        for (int row = 0; row < rows; row++)
        {
            long[] text = Text(options, step, (replica * rows) + row, rows * replicas);
            text.AsSpan(0, length).CopyTo(tokens.AsSpan(row * length));
            text.AsSpan(1, length).CopyTo(targets.AsSpan(row * length));
        }
        return new(rows, length, tokens, targets);
    }

    /// <summary>Text with something to learn: each token is, seven times of eight, the one that follows in a fixed cycle, else any of the first 256.</summary>
    /// <returns>Length + 1 ids.</returns>
    public static long[] Text(DeviceOptions options, int step, int row, int rows)
    {
        int vocabulary = Math.Min(256, options.Preset.Config.VocabularySize);
        Random random = new(((step * rows) + row) * 2 + 1);
        long[] ids = new long[options.Length + 1];
        ids[0] = random.Next(vocabulary);
        for (int i = 1; i < ids.Length; i++) ids[i] = random.Next(8) == 0 ? random.Next(vocabulary) : ((ids[i - 1] * 5) + 3) % vocabulary;
        return ids;
    }
}
