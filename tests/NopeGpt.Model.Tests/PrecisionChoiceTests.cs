using System.Text.Json;
using NopeGpt.Model.Native;
using static TorchSharp.torch;

namespace NopeGpt.Model.Tests;

public sealed class PrecisionChoiceTests
{
    [Theory]
    [InlineData("flags\t\t: fpu avx2 avx512f", false, "no units")]
    [InlineData("", false, "no units")]
    [InlineData("processor\t: 0\nflags\t\t: fpu avx512_bf16 avx512f\n", true, "avx512_bf16; bfloat16, asked for, is faster")]
    [InlineData("flags\t\t: amx_bf16 avx512_bf16 avx512_fp16", true, "amx_bf16, avx512_bf16, avx512_fp16; bfloat16, asked for, is faster")]
    [InlineData("flags\t\t: avx512_bf16x", false, "no units")]
    public void Auto_takes_float32_on_CPUs_and_says_where_bfloat16_is_faster(string facts, bool units, string why)
    {
        ComputeUnits cpu = ComputeUnits.OfCpu(facts);
        PrecisionChoice choice = PrecisionChoice.For(Precision.Auto, [cpu, cpu]), narrow = PrecisionChoice.For(Precision.Bfloat16, [cpu]);
        Assert.Equal((Precision.Float32, null), (choice.Precision, choice.Warning));
        Assert.StartsWith("computes in float32, as the CPU has", choice.ToString(), StringComparison.Ordinal);
        Assert.Contains(why, choice.ToString(), StringComparison.Ordinal);
        Assert.Equal((Precision.Bfloat16, units), (narrow.Precision, narrow.Warning is null));
    }

    [Theory]
    [InlineData(9, 0, Precision.Bfloat16)]
    [InlineData(8, 6, Precision.Bfloat16)]
    [InlineData(8, 0, Precision.Bfloat16)]
    [InlineData(7, 5, Precision.Float16)]
    [InlineData(7, 0, Precision.Float16)]
    [InlineData(6, 1, Precision.Float32)]
    public void Auto_takes_what_a_GPU_has_tensor_cores_for(int major, int minor, Precision expected)
    {
        PrecisionChoice choice = PrecisionChoice.For(Precision.Auto, [ComputeUnits.OfCuda("cuda:0", major, minor)]);
        Assert.Equal((expected, null), (choice.Precision, choice.Warning));
        Assert.Contains($"computes in {expected.ToString().ToLowerInvariant()}", choice.ToString(), StringComparison.Ordinal);
        Assert.Contains($"cuda:0 has compute capability {major}.{minor}", choice.ToString(), StringComparison.Ordinal);
    }

    [Fact]
    public void Of_several_devices_the_type_is_one_that_all_are_fast_in()
    {
        ComputeUnits ampere = ComputeUnits.OfCuda("cuda:0", 8, 0), turing = ComputeUnits.OfCuda("cuda:1", 7, 5), pascal = ComputeUnits.OfCuda("cuda:2", 6, 1);
        Assert.Equal(Precision.Bfloat16, PrecisionChoice.For(Precision.Auto, [ampere, ampere]).Precision);
        PrecisionChoice choice = PrecisionChoice.For(Precision.Auto, [ampere, turing]);
        Assert.Equal(Precision.Float16, choice.Precision);
        Assert.Contains("8.0 and cuda:1 has compute capability 7.5", choice.Reason, StringComparison.Ordinal);
        Assert.Equal(Precision.Float32, PrecisionChoice.For(Precision.Auto, [ampere, turing, pascal]).Precision);
    }

    [Theory]
    [InlineData(Precision.Float32, null)]
    [InlineData(Precision.Bfloat16, "cuda:0 has no units for bfloat16, which is slow there: float16 or float32 is faster")]
    [InlineData(Precision.Float16, null)]
    public void What_is_asked_for_is_done_with_a_warning_where_it_is_slow(Precision asked, string? warning)
    {
        PrecisionChoice choice = PrecisionChoice.For(asked, [ComputeUnits.OfCuda("cuda:0", 7, 5)]);
        Assert.Equal((asked, warning), (choice.Precision, choice.Warning));
        Assert.Contains("asked for", choice.ToString(), StringComparison.Ordinal);
        Assert.Contains("float32 is faster", PrecisionChoice.For(Precision.Float16, [ComputeUnits.OfCpu("flags : avx2")]).Warning, StringComparison.Ordinal);
    }

    [Fact]
    public void This_machines_CPU_says_what_it_has()
    {
        TorchRuntime.Load();
        ComputeUnits units = ComputeUnits.Of(CPU);
        Assert.Equal("the CPU", units.Name);
        Assert.Equal(File.Exists("/proc/cpuinfo") && File.ReadAllText("/proc/cpuinfo").Contains("_bf16", StringComparison.Ordinal), units.Narrow.Contains(Precision.Bfloat16));
    }

    [Fact]
    public void Names_in_files_are_the_types_own()
    {
        Assert.Equal("[\"auto\",\"float32\",\"bfloat16\",\"float16\"]", JsonSerializer.Serialize(Enum.GetValues<Precision>()));
        Assert.Throws<JsonException>(() => JsonSerializer.Deserialize<Precision>("2"));
    }

    [Fact]
    public void A_type_that_is_none_is_refused() =>
        Assert.Contains("choose auto", Assert.Throws<ArgumentException>(() => PrecisionChoice.For((Precision)9, [ComputeUnits.OfCpu("")])).Message, StringComparison.Ordinal);
}
