using NopeGpt.Benchmarks;
using NopeGpt.Model.Native;

if (args is [TrainerBenchmark.Child, string text, string folder, string size])
{
    TrainerBenchmark.RunChild(text, folder, int.Parse(size, System.Globalization.CultureInfo.InvariantCulture));
    return 0;
}

// The checks for machines with GPUs (docs/gpu.md).
if (args is [DeviceChecks.Mode, .. string[] check]) return DeviceChecks.Run(check);

if (args is [StepBenchmark.Child, string form])
{
    StepBenchmark.RunChild(form);
    return 0;
}

if (args is [MemoryBenchmark.Child, .. string[] what])
{
    MemoryBenchmark.RunChild(what);
    return 0;
}

if (args is [ViewerBenchmark.Child, string url, string runId, string count])
{
    await ViewerBenchmark.RunChildAsync(url, runId, int.Parse(count, System.Globalization.CultureInfo.InvariantCulture));
    return 0;
}

// dotnet run -c Release --project benchmarks/NopeGpt.Benchmarks -- [--quick] [data] [prepare] [encoding] [trainer] [step] [train] [memory] [checkpoint] [lora] [optimizer] [decode] [safetensors] [live]
// Figures that compare are measured in alternation within one run, on a quiet machine. They are kept in Results.md. --quick takes fewer rounds.
bool quick = args.Contains("--quick");
(string Name, Action Run)[] known =
[
    ("data", DataBenchmark.Run), ("prepare", () => PrepareBenchmark.Run(quick)), ("encoding", EncodingBenchmark.Run), ("trainer", TrainerBenchmark.Run), ("step", () => StepBenchmark.Run(quick)), ("train", () => TrainBenchmark.Run(quick)), ("memory", MemoryBenchmark.Run), ("checkpoint", CheckpointBenchmark.Run), ("lora", () => LoraBenchmark.Run(quick)),
    ("optimizer", OptimizerBenchmark.Run), ("decode", () => DecodeBenchmark.Run(quick)), ("safetensors", SafetensorsBenchmark.Run), ("live", () => LiveBenchmark.Run(quick)),
];
string[] wanted = [.. args.Where(a => a != "--quick")];
if (wanted.FirstOrDefault(w => known.All(k => k.Name != w)) is { } unknown)
{
    Console.Error.WriteLine($"there is no benchmark {unknown}: choose of {string.Join(", ", known.Select(k => k.Name))}");
    return 2;
}
foreach ((string name, Action run) in known.Where(k => wanted.Length == 0 || wanted.Contains(k.Name)))
{
    if (name is not ("data" or "prepare" or "encoding" or "trainer" or "memory"))
    {
        bool first = !TorchRuntime.IsLoaded;
        TorchRuntime.SetThreads(Environment.ProcessorCount);
        if (first) Console.WriteLine(TorchRuntime.Describe());
    }
    Alternation.Watched(run);
}
return 0;
