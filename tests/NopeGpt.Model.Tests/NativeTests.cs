using System.Diagnostics;
using System.Runtime.CompilerServices;
using System.Runtime.InteropServices;
using NopeGpt.Model.Native;
using NopeGpt.Tests;
using TorchSharp;
using static TorchSharp.torch;

namespace NopeGpt.Model.Tests;

/// <summary>Tests that count the process's tensors and memory: nothing else runs beside them.</summary>
[CollectionDefinition(nameof(Alone), DisableParallelization = true)]
public sealed class Alone;

[Collection(nameof(Alone))]
public sealed class NativeTests
{
    public NativeTests() => TorchRuntime.Load();

    [Fact]
    public void Libtorch_loads_adds_and_describes_itself()
    {
        using Tensor sum = ones(3).sum();
        Assert.Equal(3f, sum.item<float>());
        Assert.True(TorchRuntime.IsLoaded);
        Assert.Contains("libtorch 2.10.0 from ", TorchRuntime.Describe());
        Assert.False(Directory.Exists(Path.Combine(AppContext.BaseDirectory, "cpu")), "TorchSharp copied a libtorch of its own");
    }

    [Fact]
    public void Loading_again_does_nothing_and_from_elsewhere_is_refused()
    {
        Parallel.For(0, 8, _ => TorchRuntime.Load());
        using TemporaryFolder folder = new();
        foreach (string name in (string[])["libtorch_cpu.so", "libc10.so", "libtorch.so"]) File.CreateSymbolicLink(folder[name], Path.Combine(AppContext.BaseDirectory, name));
        TorchUnavailableException refused = Assert.Throws<TorchUnavailableException>(() => TorchRuntime.Load(folder.Path));
        Assert.Contains("already", refused.Message);
    }

    [Fact]
    public void A_named_folder_is_checked_before_anything_is_loaded()
    {
        using TemporaryFolder folder = new();
        Assert.Contains("does not exist", Message(folder["nowhere"]));
        Assert.Contains("libtorch_cpu.so is missing in ", Message(folder.Path));
        File.WriteAllText(folder["libtorch_cpu.so"], "text");
        Assert.Contains("is not a Linux library", Message(folder.Path));
        byte[] header = File.ReadAllBytes(Path.Combine(AppContext.BaseDirectory, "libc10.so"))[..64];
        header[18] = 183; // 64-bit ARM
        File.WriteAllBytes(folder["libtorch_cpu.so"], header);
        Assert.Contains("for another processor (ELF machine 183", Message(folder.Path));
        header[18] = 62;
        File.WriteAllBytes(folder["libtorch_cpu.so"], header);
        Assert.Contains("libc10.so is missing", Message(folder.Path));

        static string Message(string path) => Assert.Throws<TorchUnavailableException>(() => TorchRuntime.Load(path)).Message;
    }

    [Fact]
    public void The_lib_folder_of_a_named_libtorch_is_found()
    {
        using TemporaryFolder folder = new();
        Directory.CreateDirectory(folder["lib"]);
        foreach (string name in (string[])["libtorch_cpu.so", "libc10.so", "libtorch.so"]) File.CreateSymbolicLink(folder[$"lib/{name}"], Path.Combine(AppContext.BaseDirectory, name));
        Assert.Equal(folder["lib"], LibraryFolders.Named(folder.Path + "/"));
    }

    [Fact]
    public void An_application_without_libtorch_says_so_and_one_with_its_own_is_not_mixed_with_another()
    {
        using TemporaryFolder folder = new();
        Assert.Contains("TorchBackend", Assert.Throws<TorchUnavailableException>(() => LibraryFolders.WithTorch([folder.Path])).Message);
        LibraryFolders.CheckNotMixed("/elsewhere", [folder.Path]);
        File.WriteAllText(folder["libtorch_cuda.so"], "");
        Assert.Contains("TorchBackend=none", Assert.Throws<TorchUnavailableException>(() => LibraryFolders.CheckNotMixed("/elsewhere", [folder.Path])).Message);
        LibraryFolders.CheckNotMixed(folder.Path, [folder.Path]);
    }

    [Fact]
    public void Threads_can_be_set_and_must_be_at_least_one()
    {
        int before = get_num_threads();
        TorchRuntime.SetThreads(1);
        Assert.Equal(1, get_num_threads());
        TorchRuntime.SetThreads(before);
        Assert.Throws<ArgumentOutOfRangeException>(() => TorchRuntime.SetThreads(0));
    }

    [Fact]
    public void RmsNorm_equals_the_formula_and_so_do_its_gradients()
    {
        using DisposeScope scope = NewDisposeScope();
        using Generator generator = new(3);
        (Tensor x, Tensor w) = (randn([2, 5, 16], generator: generator), randn([16], generator: generator));
        (Tensor x1, Tensor w1, Tensor x2, Tensor w2) = (x.clone().requires_grad_(), w.clone().requires_grad_(), x.clone().requires_grad_(), w.clone().requires_grad_());
        Tensor fast = Aten.RmsNorm(x1, w1, 1e-5);
        Tensor slow = x2 * (x2.square().mean([-1], keepdim: true) + 1e-5f).rsqrt() * w2;
        AssertClose(slow, fast, 2e-6);
        Tensor direction = randn([2, 5, 16], generator: generator);
        (fast * direction).sum().backward();
        (slow * direction).sum().backward();
        AssertClose(x2.grad!, x1.grad!, 2e-6);
        AssertClose(w2.grad!, w1.grad!, 1e-5);
        AssertClose(x * (x.square().mean([-1], keepdim: true) + 1.1920929e-7f).rsqrt(), Aten.RmsNorm(x), 2e-6);
    }

    [Theory]
    [InlineData(true, null, 2)]
    [InlineData(true, 0.31, 4)]
    [InlineData(false, 0.31, 1)]
    public void Grouped_attention_equals_the_formula_and_so_do_its_gradients(bool causal, double? scale, int groups)
    {
        using DisposeScope scope = NewDisposeScope();
        using Generator generator = new(4);
        Tensor[] inputs = [randn([2, 4, 6, 8], generator: generator), randn([2, groups, 6, 8], generator: generator), randn([2, groups, 6, 8], generator: generator)];
        Tensor[] a = [.. inputs.Select(t => t.clone().requires_grad_())], b = [.. inputs.Select(t => t.clone().requires_grad_())];

        Tensor fast = Aten.Attention(a[0], a[1], a[2], causal: causal, scale: scale, groupedQuery: true);
        Tensor scores = b[0].matmul(b[1].repeat_interleave(4 / groups, 1).transpose(-2, -1)) * (float)(scale ?? 1 / Math.Sqrt(8));
        if (causal) scores = scores.masked_fill(ones(6, 6, ScalarType.Bool).triu(1), float.NegativeInfinity);
        Tensor slow = scores.softmax(-1).matmul(b[2].repeat_interleave(4 / groups, 1));
        AssertClose(slow, fast, 2e-6);

        Tensor direction = randn([2, 4, 6, 8], generator: generator);
        (fast * direction).sum().backward();
        (slow * direction).sum().backward();
        foreach ((Tensor x, Tensor y) in a.Zip(b)) AssertClose(y.grad!, x.grad!, 1e-5);
    }

    [Fact]
    public void A_mask_hides_what_it_should()
    {
        using DisposeScope scope = NewDisposeScope();
        Tensor q = randn(1, 2, 3, 4), k = randn(1, 2, 5, 4), v = randn(1, 2, 5, 4);
        Tensor mask = tensor(new[] { true, true, false, false, false }).view(1, 5);
        Tensor seen = Aten.Attention(q, k.narrow(2, 0, 2), v.narrow(2, 0, 2));
        AssertClose(seen, Aten.Attention(q, k, v, mask), 2e-6);
    }

    [Fact]
    public void Wrong_arguments_are_named_before_libtorch_sees_them()
    {
        using DisposeScope scope = NewDisposeScope();
        Tensor q = randn(1, 4, 3, 8), k = randn(1, 2, 3, 8), ids = zeros(2, 3, ScalarType.Int64);
        Assert.Contains("floating point", Assert.Throws<ArgumentException>(() => Aten.RmsNorm(ids)).Message);
        Assert.Contains("weight of shape [3]", Assert.Throws<ArgumentException>(() => Aten.RmsNorm(q, ones(3))).Message);
        Assert.Throws<ArgumentException>(() => Aten.RmsNorm(q, ones(8, ScalarType.Float64)));
        Assert.Throws<ArgumentException>(() => Aten.RmsNorm(q, epsilon: -1));
        Assert.Contains("as many key heads", Assert.Throws<ArgumentException>(() => Aten.Attention(q, k, k)).Message);
        Assert.Contains("multiple", Assert.Throws<ArgumentException>(() => Aten.Attention(q, randn(1, 3, 3, 8), randn(1, 3, 3, 8), groupedQuery: true)).Message);
        Assert.Throws<ArgumentException>(() => Aten.Attention(q, q, q, ones(3, 3, ScalarType.Bool), causal: true));
        Assert.Throws<ArgumentException>(() => Aten.Attention(q, q, q, ones(4, 3, ScalarType.Bool)));
        Assert.Throws<ArgumentException>(() => Aten.Attention(q, q, q, dropout: double.NaN));
        Assert.Throws<ArgumentException>(() => Aten.Attention(q[0], q[0], q[0]));
        Assert.Throws<ArgumentException>(() => Aten.Attention(q, randn(1, 4, 3, 6), q));
    }

    [Fact]
    public void Thousands_of_calls_leave_no_tensor_and_no_memory_behind()
    {
        using Tensor x = randn(2, 4, 64, 64), weight = ones(64);
        void Once()
        {
            using Tensor y = Aten.RmsNorm(x, weight, 1e-5);
            using Tensor z = Aten.Attention(y, y, y, causal: true, scale: 0.2, groupedQuery: true);
        }
        for (int i = 0; i < 300; i++) Once();
        long memory = Resident();
        // Other test classes have tensors of their own at the same time: far fewer than the 12,000 that a leak would leave.
        long tensors = Tensor.TotalCount;
        for (int i = 0; i < 6000; i++) Once();
        Assert.InRange(Tensor.TotalCount - tensors, long.MinValue, 2000);
        // One leaked result a call would be 6000 x 128 KiB = 768 MiB; the classes beside this one take some 100 MiB of their own.
        Assert.InRange(Resident() - memory, long.MinValue, 384L << 20);
    }

    [Fact]
    public async Task A_fresh_process_loads_libtorch_where_the_home_folder_cannot_be_written()
    {
        using TemporaryFolder folder = new();
        File.WriteAllText(folder["home"], "a file, so that no folder can be made under it");
        string path = await LoadInProcess(folder, folder["home"]);
        Assert.Contains("libtorch 2.10.0 from ", path);
        Assert.Empty(Directory.GetFileSystemEntries(folder["tmp"], "nopegpt-native-*"));
    }

    [Fact]
    public async Task Two_fresh_processes_at_once_share_one_copy()
    {
        using TemporaryFolder folder = new();
        string[] described = await Task.WhenAll(LoadInProcess(folder, folder["data"]), LoadInProcess(folder, folder["data"]));
        Assert.Equal(described[0], described[1]);
        bool fits = described[0].Contains("fitted", StringComparison.Ordinal);
        Assert.Equal(fits ? 1 : 0, Directory.Exists(folder["data"]) ? Directory.GetFiles(folder["data"], "*", SearchOption.AllDirectories).Length : 0);
    }

    /// <summary>Runs this test assembly as a program of its own: <see cref="LoadProbe"/> answers.</summary>
    private static async Task<string> LoadInProcess(TemporaryFolder folder, string data)
    {
        Directory.CreateDirectory(folder["tmp"]);
        // The runtime that this process runs on, wherever it is installed.
        string root = Path.GetFullPath(Path.Combine(RuntimeEnvironment.GetRuntimeDirectory(), "..", "..", ".."));
        ProcessStartInfo start = new(Path.Combine(root, "dotnet"), ["exec", typeof(NativeTests).Assembly.Location])
        {
            RedirectStandardOutput = true,
            RedirectStandardError = true,
            Environment = { ["XDG_DATA_HOME"] = data, ["TMPDIR"] = folder["tmp"], [LoadProbe.Switch] = "1" },
        };
        using Process process = Process.Start(start)!;
        Task<string> output = process.StandardOutput.ReadToEndAsync(), errors = process.StandardError.ReadToEndAsync();
        await process.WaitForExitAsync();
        Assert.True(process.ExitCode == 0, await output + await errors);
        return await output;
    }

    private static long Resident() => Environment.WorkingSet;

    private static void AssertClose(Tensor expected, Tensor actual, double tolerance)
    {
        Assert.Equal(expected.shape, actual.shape);
        double difference = (expected.detach().to(ScalarType.Float64) - actual.detach().to(ScalarType.Float64)).abs().max().item<double>();
        Assert.True(difference <= tolerance, $"differs by {difference}");
    }
}

/// <summary>With the switch in its environment, the test assembly started as a program loads libtorch, says how, and ends.</summary>
internal static class LoadProbe
{
    public const string Switch = "NOPEGPT_TEST_LOAD_PROBE";

#pragma warning disable CA2255 // The one place that runs before the entry point, which the test SDK generates.
    [ModuleInitializer]
#pragma warning restore CA2255
    internal static void Run()
    {
        if (Environment.GetEnvironmentVariable(Switch) is null) return;
        TorchRuntime.Load();
        Console.WriteLine(TorchRuntime.Describe());
        Environment.Exit(0);
    }
}
