using NopeGpt.Benchmarks;
using NopeGpt.Model.Native;

if (args is [TrainerBenchmark.Child, string text, string folder, string size])
{
    TrainerBenchmark.RunChild(text, folder, int.Parse(size, System.Globalization.CultureInfo.InvariantCulture));
    return 0;
}

// dotnet run -c Release --project benchmarks/NopeGpt.Benchmarks -- [data] [encoding] [trainer] [train] [optimizer] [decode] [safetensors]
// Figures that compare are measured in alternation within one run, on a quiet machine. They are kept in Results.md.
string[] known = ["data", "encoding", "trainer", "train", "optimizer", "decode", "safetensors"];
string[] wanted = args.Length == 0 ? known : args;
if (wanted.Except(known).FirstOrDefault() is { } unknown)
{
    Console.Error.WriteLine($"there is no benchmark {unknown}: choose of {string.Join(", ", known)}");
    return 2;
}
if (wanted.Contains("data")) DataBenchmark.Run();
if (wanted.Contains("encoding")) EncodingBenchmark.Run();
if (wanted.Contains("trainer")) TrainerBenchmark.Run();
if (wanted.Except(["data", "encoding", "trainer"]).Any())
{
    TorchRuntime.Load();
    TorchRuntime.SetThreads(Environment.ProcessorCount);
    Console.WriteLine(TorchRuntime.Describe());
}
if (wanted.Contains("train")) TrainBenchmark.Run();
if (wanted.Contains("optimizer")) OptimizerBenchmark.Run();
if (wanted.Contains("decode")) DecodeBenchmark.Run();
if (wanted.Contains("safetensors")) SafetensorsBenchmark.Run();
return 0;
