using System.Diagnostics;
using System.Globalization;
using NopeGpt.Model;
using NopeGpt.Model.Native;
using NopeGpt.Model.Optimizers;
using NopeGpt.Model.Replicas;
using TorchSharp;

namespace NopeGpt.Benchmarks;

/// <summary>The most memory that training takes, as estimated (<see cref="ModelMemory"/>, <see cref="StepMemory"/>) and as the system measures it, each
/// form in a process of its own, with and without activation checkpointing. Tensors alone are measured where the C library gives memory back at once.</summary>
internal static class MemoryBenchmark
{
    /// <summary>As the first argument: the process that only trains.</summary>
    public const string Child = "measure-memory";

    private const int Length = 256;

    private static readonly (string Name, ModelConfig Config)[] Forms =
        [.. Models.All, ("stories", new() { VocabularySize = 4096, EmbeddingDimensions = 128, NumQHeads = 4, NumKvHeads = 2, NumDecoderLayers = 4 }),
            .. ((string[])["lil-lm", "gpt2"]).Select(name => (name, ModelPresets.Find(name).Config))];

    public static void Run()
    {
        Console.WriteLine($"memory of training above what the loaded libraries take, rows of {Length} tokens, AdamW");
        for (int form = 0; form < Forms.Length; form++)
            foreach (int rows in (int[])[4, 8]) foreach (bool recomputed in (bool[])[false, true]) Compare(form, rows, recomputed);
    }

    /// <summary>Two steps; prints the peak.</summary>
    public static void RunChild(string[] arguments)
    {
        (int form, int rows, bool recomputed) = (int.Parse(arguments[0], CultureInfo.InvariantCulture), int.Parse(arguments[1], CultureInfo.InvariantCulture), bool.Parse(arguments[2]));
        TorchRuntime.Load();
        TorchRuntime.SetThreads(Environment.ProcessorCount);
        // What the first use of operators loads and compiles is not the model's.
        Steps(new() { VocabularySize = 64, EmbeddingDimensions = 32, NumQHeads = 4, NumKvHeads = 2, NumDecoderLayers = 1 }, 1, 8, false);
        long before = Status("VmRSS:");
        Steps(Forms[form].Config, rows, Length, recomputed);
        Console.WriteLine(Status("VmHWM:") - before);
    }

    private static void Compare(int form, int rows, bool recomputed)
    {
        (string name, ModelConfig config) = Forms[form];
        long plain = Measure(form, rows, recomputed, new Dictionary<string, string>());
        long measured = Measure(form, rows, recomputed, new Dictionary<string, string> { ["MALLOC_MMAP_THRESHOLD_"] = "262144", ["MALLOC_TRIM_THRESHOLD_"] = "262144" });
        ModelMemory memory = ModelMemory.Of(config);
        long estimated = memory.Weights + memory.AdamWState + StepMemory.Of(config, rows, Length, recomputed, cpu: true).PeakWith(memory.Gradients, held: false);
        Console.WriteLine($"  {name}, {Models.Size(config)}, {rows} rows{(recomputed ? ", blocks computed again" : "")}: measured {measured / 1e6:0} MB, estimated {estimated / 1e6:0} MB ({(100.0 * estimated / measured) - 100:+0;-0} %); with the allocator's own thresholds {plain / 1e6:0} MB");
    }

    private static long Measure(int form, int rows, bool recomputed, IReadOnlyDictionary<string, string> environment)
    {
        ProcessStartInfo start = new(Environment.ProcessPath!, [Child, $"{form}", $"{rows}", $"{recomputed}"]) { RedirectStandardOutput = true };
        foreach ((string name, string value) in environment) start.Environment[name] = value;
        using Process process = Process.Start(start)!;
        long measured = long.Parse(process.StandardOutput.ReadToEnd().Split('\n', StringSplitOptions.RemoveEmptyEntries)[^1], CultureInfo.InvariantCulture);
        process.WaitForExit();
        return measured;
    }

    private static void Steps(ModelConfig config, int rows, int length, bool recomputed)
    {
        Random random = new(1);
        using ReplicaGroup group = new(new Decoder(config, 1) { ActivationCheckpointing = recomputed }, new AdamWOptions());
        for (int step = 0; step < 2; step++) group.Step((_, _) => new(rows, length, Ids(), Ids()), 1, 1e-3, 1);

        long[] Ids() => [.. Enumerable.Range(0, rows * length).Select(_ => (long)random.Next(config.VocabularySize))];
    }

    private static long Status(string name) =>
        1024 * long.Parse(File.ReadLines("/proc/self/status").First(line => line.StartsWith(name, StringComparison.Ordinal)).Split((char[])[' ', '\t'], StringSplitOptions.RemoveEmptyEntries)[1], CultureInfo.InvariantCulture);
}
