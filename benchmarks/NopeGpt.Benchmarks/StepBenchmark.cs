using System.Diagnostics;
using System.Globalization;
using NopeGpt.Model;
using NopeGpt.Model.Native;
using NopeGpt.Model.Optimizers;
using NopeGpt.Model.Replicas;
using TorchSharp;
using static TorchSharp.torch;

namespace NopeGpt.Benchmarks;

/// <summary>The training step that issue 5 names (NoPE, d 384, 6 layers, vocabulary 8,192, batch 8 x 256, float32) in our form and in TorchSharp's plain one. Each
/// has a process of its own, so that its memory is its own, and the two take steps in turn.</summary>
internal static class StepBenchmark
{
    /// <summary>As the first argument: the process that only takes steps.</summary>
    public const string Child = "step-of";

    private const int Rows = 8, Length = 256, Warm = 2;
    private const double Rate = 1e-4;

    private static readonly string[] Forms = ["ours", "plain"], Parts = ["forward and loss", "backward", "clipping and AdamW", "step", "processor time"];

    public static void Run(bool quick)
    {
        int rounds = quick ? 7 : 25;
        Console.WriteLine($"training step, {Models.Size(Models.Nope)}, batch {Rows} x {Length}, {Environment.ProcessorCount} threads, {rounds} rounds in alternation");
        Process[] processes = [.. Forms.Select(form => Process.Start(new ProcessStartInfo(Environment.ProcessPath!, [Child, form]) { RedirectStandardInput = true, RedirectStandardOutput = true })!)];
        try
        {
            double[][] Round(int _) => [.. processes.Select(Ask)];
            for (int i = 0; i < Warm; i++) Round(i);
            double[][][] figures = [.. Enumerable.Range(0, rounds).Select(Round)];
            double Median(int form, int part) => figures.Select(f => f[form][part]).Order().ElementAt(rounds / 2);
            for (int part = 0; part < Parts.Length; part++)
                Console.WriteLine($"  {Parts[part],-20} ours {Median(0, part),8:0.0} ms   plain {Median(1, part),8:0.0} ms   ratio {Median(1, part) / Median(0, part):0.00}");
            double[] ratios = [.. figures.Select(f => f[1][3] / f[0][3]).Order()];
            double tokens = Rows * Length * 1000, flops = Models.Nope.FlopsPerToken(Length) / 1e9, rate = MatrixRate.Of(CPU) / 1e9;
            foreach (int form in (int[])[0, 1])
                Console.WriteLine($"  {Forms[form],-6} {tokens / Median(form, 3):N0} tokens/s, {tokens / Median(form, 3) * flops:0} GFLOP/s of the {rate:0} that products make");
            Console.WriteLine($"  tokens/s, ours by plain: {ratios[rounds / 2]:0.00} in the median round, {ratios[rounds / 4]:0.00} to {ratios[rounds * 3 / 4]:0.00} in the middle half");
            int last = Parts.Length;
            double ours = figures.Max(f => f[0][last]), plain = figures.Max(f => f[1][last]);
            Console.WriteLine($"  resident memory at most: ours {ours:N0} MB, plain {plain:N0} MB, ratio {ours / plain:0.00}; before the first step {figures[0][0][last + 1]:N0} and {figures[0][1][last + 1]:N0} MB");
        }
        finally
        {
            foreach (Process process in processes)
            {
                process.StandardInput.Close();
                process.WaitForExit();
                process.Dispose();
            }
        }
    }

    /// <summary>Takes a step for each line that comes in.</summary>
    public static void RunChild(string form)
    {
        TorchRuntime.SetThreads(Environment.ProcessorCount);
        random.manual_seed(1);
        ModelConfig config = Models.Nope;
        using Tensor tokens_BT = randint(0, config.VocabularySize, [Rows, Length]), targets_BT = randint(0, config.VocabularySize, [Rows, Length]);
        (IDisposable held, Func<double[]> step) = form == "plain" ? Plain(new(config, 1), tokens_BT, targets_BT) : Ours(new(config, 1), tokens_BT, targets_BT);
        using (held)
        {
            double before = Megabytes();
            while (Console.ReadLine() is not null) Console.WriteLine(string.Join(' ', Timed(step).Append(Megabytes()).Append(before).Select(f => f.ToString(CultureInfo.InvariantCulture))));
        }
    }

    private static double[] Ask(Process process)
    {
        process.StandardInput.WriteLine();
        string line = process.StandardOutput.ReadLine() ?? throw new InvalidOperationException("a measured process ended early");
        return [.. line.Split(' ').Select(f => double.Parse(f, CultureInfo.InvariantCulture))];
    }

    /// <summary>As the trainer takes a step.</summary>
    private static (IDisposable, Func<double[]>) Ours(Decoder model, Tensor tokens_BT, Tensor targets_BT)
    {
        ReplicaGroup group = new(model, new AdamWOptions());
        MicroBatch batch = new(Rows, Length, tokens_BT.data<long>().ToArray(), targets_BT.data<long>().ToArray());
        return (group, () =>
        {
            StepTimes times = group.Step((_, _) => batch, 1, Rate, 1).Times;
            return [(times.Data + times.Forward).TotalMilliseconds, times.Backward.TotalMilliseconds, (times.Reduce + times.Update).TotalMilliseconds];
        });
    }

    private static (IDisposable, Func<double[]>) Plain(Decoder like, Tensor tokens_BT, Tensor targets_BT)
    {
        PlainDecoder plain = new(like);
        like.Dispose();
        optim.Optimizer adam = optim.AdamW(plain.parameters(), Rate, weight_decay: 0.1);
        return (plain, () => Alternation.Step(() => plain.Loss(tokens_BT, targets_BT), () =>
        {
            nn.utils.clip_grad_norm_(plain.parameters(), 1);
            adam.step();
            adam.zero_grad();
        }));
    }

    private static double[] Timed(Func<double[]> step)
    {
        TimeSpan processor = Environment.CpuUsage.TotalTime;
        double[] parts = step();
        return [.. parts, parts.Sum(), (Environment.CpuUsage.TotalTime - processor).TotalMilliseconds];
    }

    // The largest resident size so far.
    private static double Megabytes() =>
        double.Parse(File.ReadLines("/proc/self/status").First(l => l.StartsWith("VmHWM:", StringComparison.Ordinal)).Split(' ', StringSplitOptions.RemoveEmptyEntries)[1], CultureInfo.InvariantCulture) / 1024;
}
