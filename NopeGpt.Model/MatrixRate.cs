using System.Collections.Concurrent;
using System.Diagnostics;
using NopeGpt.Model.Native;
using static TorchSharp.torch;

namespace NopeGpt.Model;

/// <summary>How fast a device multiplies matrices: what a model's speed is compared with.</summary>
public static class MatrixRate
{
    private static readonly TimeSpan Enough = TimeSpan.FromMilliseconds(80);
    private static readonly ConcurrentDictionary<(string Device, ScalarType Type, int Threads), double> Measured = new();

    /// <summary>Floating-point operations a second (2 n³ for a product of two [n, n]) of libtorch's matrix product, the best of what is done in a tenth of a
    /// second. Measured once in a process for a device, a type and a number of threads.</summary>
    public static double Of(Device device, ScalarType type = ScalarType.Float32) =>
        Measured.GetOrAdd((device.ToString(), type, get_num_threads()), _ => Measure(device, type));

    /// <summary>Measures once more. A busy machine makes a rate too low and never too high, so the best one stays.</summary>
    /// <returns>The best so far.</returns>
    public static double Again(Device device, ScalarType type = ScalarType.Float32) =>
        Measured.AddOrUpdate((device.ToString(), type, get_num_threads()), _ => Measure(device, type), (_, best) => Math.Max(best, Measure(device, type)));

    private static double Measure(Device device, ScalarType type)
    {
        // Large enough to keep all cores or multiprocessors busy, small enough to be over soon.
        long n = device.type == TorchSharp.DeviceType.CPU ? 768 : 8192;
        using TorchSharp.DisposeScope scope = NewDisposeScope();
        using IDisposable quiet = no_grad();
        // The run's own generators stay as they are.
        Tensor left = full([n, n], Scalars.Of(0.5), dtype: type, device: device), right = full([n, n], Scalars.Of(0.25), dtype: type, device: device);
        Multiply();
        double best = double.PositiveInfinity;
        long start = Stopwatch.GetTimestamp();
        do
        {
            long before = Stopwatch.GetTimestamp();
            Multiply();
            best = Math.Min(best, Stopwatch.GetElapsedTime(before).TotalSeconds);
        }
        while (Stopwatch.GetElapsedTime(start) < Enough);
        return 2.0 * n * n * n / best;

        void Multiply()
        {
            using Tensor product = mm(left, right);
            if (device.type == TorchSharp.DeviceType.CUDA) cuda.synchronize(device);
        }
    }
}
