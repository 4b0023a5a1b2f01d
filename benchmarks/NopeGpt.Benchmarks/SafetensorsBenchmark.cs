using System.Diagnostics;
using NopeGpt.Model.Storage;
using TorchSharp;
using TorchSharp.Modules;
using static TorchSharp.torch;

namespace NopeGpt.Benchmarks;

/// <summary>1 GiB of float32 parameters to the disk and back, ours and in TorchSharp's own format (Module.save and load), in alternation.
/// Both are flushed to the disk, because ours always is.</summary>
internal static class SafetensorsBenchmark
{
    private const int Tensors = 64, Rows = 1024, Columns = 4096, Rounds = 5;
    private const string One = "one";

    public static void Run()
    {
        DirectoryInfo folder = Directory.CreateTempSubdirectory("nopegpt-benchmark-");
        try
        {
            Measure(Path.Combine(folder.FullName, "model.safetensors"), Path.Combine(folder.FullName, "model.dat"));
        }
        finally
        {
            folder.Delete(recursive: true);
        }
    }

    private static void Measure(string path, string plainPath)
    {
        using Parameters source = new(ones), target = new(zeros);
        (string Name, Tensor Tensor)[] tensors = [.. source.named_parameters().Select(p => (p.name, (Tensor)p.parameter)), (One, ones(1024))];
        (string Name, Tensor Tensor)[] targets = [.. target.named_parameters().Select(p => (p.name, (Tensor)p.parameter))];
        List<double> write = [], plainWrite = [], open = [], cold = [], read = [], plainRead = [], one = [];
        for (int round = 0; round < Rounds; round++)
        {
            write.Add(Seconds(() => SafetensorsFile.Save(path, tensors)));
            plainWrite.Add(Seconds(() => SavePlain(source, plainPath)));
            open.Add(Seconds(() => SafetensorsFile.Open(path).Dispose()));
            one.Add(Seconds(() => ReadOne(path, One)));
            // What was written past the page cache is read from the disk the first time.
            cold.Add(Seconds(() => ReadAll(path, targets)));
            read.Add(Seconds(() => ReadAll(path, targets)));
            plainRead.Add(Seconds(() => target.load(plainPath)));
            File.Delete(path);
            File.Delete(plainPath);
        }
        Console.WriteLine($"safetensors, 1 GiB written and flushed: ours {Median(write):0.00} s ({write.Min():0.00} to {write.Max():0.00}), Module.save and flush {Median(plainWrite):0.00} s, ratio {Median(plainWrite) / Median(write):0.0}");
        Console.WriteLine($"safetensors, opened: {1000 * Median(open):0.00} ms; opened and one tensor of 4 KiB of it read: {1000 * Median(one):0.00} ms, where Module.load reads everything: ratio {Median(plainRead) / Median(one):N0}");
        Console.WriteLine($"safetensors, 1 GiB read into parameters: ours {Median(read):0.00} s ({Median(cold):0.00} s from the disk), Module.load {Median(plainRead):0.00} s, ratio {Median(plainRead) / Median(read):0.0}");
        if (targets.Any(t => t.Tensor.sum().item<float>() != (float)Rows * Columns)) throw new InvalidOperationException("the tensors did not come back as they were");
    }

    private static void SavePlain(Parameters module, string path)
    {
        module.save(path);
        using FileStream stream = new(path, FileMode.Open, FileAccess.Write);
        stream.Flush(flushToDisk: true);
    }

    private static void ReadOne(string path, string name)
    {
        using SafetensorsFile file = SafetensorsFile.Open(path);
        file.Load(name).Dispose();
    }

    private static void ReadAll(string path, (string Name, Tensor Tensor)[] targets)
    {
        using SafetensorsFile file = SafetensorsFile.Open(path);
        foreach ((string name, Tensor tensor) in targets) file.CopyInto(name, tensor);
    }

    private static double Seconds(Action action)
    {
        long start = Stopwatch.GetTimestamp();
        action();
        return Stopwatch.GetElapsedTime(start).TotalSeconds;
    }

    private static double Median(List<double> values) => values.Order().ElementAt(values.Count / 2);

    private sealed class Parameters : nn.Module
    {
        public Parameters(Func<long[], ScalarType?, Device?, bool, string[]?, Tensor> make) : base(nameof(Parameters))
        {
            for (int i = 0; i < Tensors; i++) register_parameter($"p{i}", new Parameter(make([Rows, Columns], null, null, false, null)));
        }
    }
}
