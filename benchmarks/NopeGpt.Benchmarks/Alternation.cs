using System.Diagnostics;
using System.Globalization;
using TorchSharp;
using static TorchSharp.torch;

namespace NopeGpt.Benchmarks;

/// <summary>Figures that compare are measured in alternation, so that what else happens on the machine meets all of them.</summary>
internal static class Alternation
{
    /// <summary>Runs each contender once a round.</summary>
    /// <param name="contenders">Each gives its figures of one round, always as many.</param>
    /// <returns>For each contender the median of each figure.</returns>
    public static double[][] Medians(int rounds, params Func<double[]>[] contenders)
    {
        List<double[]>[] figures = [.. contenders.Select(_ => new List<double[]>())];
        for (int round = 0; round < rounds; round++)
        {
            for (int i = 0; i < contenders.Length; i++) figures[i].Add(contenders[i]());
        }
        return [.. figures.Select(f => Enumerable.Range(0, f[0].Length).Select(k => f.Select(row => row[k]).Order().ElementAt(f.Count / 2)).ToArray())];
    }

    /// <summary>Milliseconds since the last call with the same clock.</summary>
    public static double Lap(ref long clock)
    {
        long now = Stopwatch.GetTimestamp();
        double elapsed = Stopwatch.GetElapsedTime(clock, now).TotalMilliseconds;
        clock = now;
        return elapsed;
    }

    /// <summary>A plain training step: milliseconds of forward pass and loss, backward pass, and update.</summary>
    public static double[] Step(Func<Tensor> lossOf, Action update)
    {
        using DisposeScope scope = NewDisposeScope();
        long clock = Stopwatch.GetTimestamp();
        Tensor loss = lossOf();
        double forward = Lap(ref clock);
        loss.backward();
        double backward = Lap(ref clock);
        update();
        return [forward, backward, Lap(ref clock)];
    }

    /// <summary>Runs a benchmark and says what share of the machine others had meanwhile: above a few per cent its figures are not to be kept.</summary>
    public static void Watched(Action benchmark)
    {
        (double all, double own) = Seconds();
        long start = Stopwatch.GetTimestamp();
        benchmark();
        (double allAfter, double ownAfter) = Seconds();
        double others = (allAfter - all - (ownAfter - own)) / (Stopwatch.GetElapsedTime(start).TotalSeconds * Environment.ProcessorCount);
        Console.WriteLine($"(meanwhile other programs used {Math.Max(0, others):P0} of the processors)");
        Console.WriteLine();
    }

    // The first line of /proc/stat: hundredths of a second that the processors spent as user, nice, system, idle, waiting, and on interrupts.
    private static (double All, double Own) Seconds()
    {
        double[] counts = [.. File.ReadLines("/proc/stat").First().Split(' ', StringSplitOptions.RemoveEmptyEntries).Skip(1).Select(c => double.Parse(c, CultureInfo.InvariantCulture))];
        // Fields 14 to 17 of the process's own: user and system time, its own and that of child processes that have ended.
        string[] self = File.ReadAllText("/proc/self/stat").Split(") ")[^1].Split(' ');
        return ((counts[0] + counts[1] + counts[2] + counts[5] + counts[6]) / 100, self[11..15].Sum(c => double.Parse(c, CultureInfo.InvariantCulture)) / 100);
    }
}
