using System.Buffers.Binary;
using System.Diagnostics;
using System.Text;
using NopeGpt.Model.Native;
using NopeGpt.Model.Storage;
using NopeGpt.Tests;
using TorchSharp;
using static TorchSharp.torch;

namespace NopeGpt.Model.Tests;

public sealed class SafetensorsTests : IDisposable
{
    private readonly TemporaryFolder folder = new();
    private readonly DisposeScope scope;

    public SafetensorsTests()
    {
        TorchRuntime.Load();
        scope = NewDisposeScope();
    }

    private string Path => folder["model.safetensors"];

    public void Dispose()
    {
        scope.Dispose();
        folder.Dispose();
    }

    [Theory]
    [InlineData(ScalarType.Float64)]
    [InlineData(ScalarType.Float32)]
    [InlineData(ScalarType.Float16)]
    [InlineData(ScalarType.BFloat16)]
    [InlineData(ScalarType.Int64)]
    [InlineData(ScalarType.Int32)]
    [InlineData(ScalarType.Int16)]
    [InlineData(ScalarType.Int8)]
    [InlineData(ScalarType.Byte)]
    [InlineData(ScalarType.Bool)]
    [InlineData(ScalarType.ComplexFloat32)]
    [InlineData(SafetensorsTypes.Float8E4M3)]
    [InlineData(SafetensorsTypes.Float8E5M2)]
    [InlineData(SafetensorsTypes.Float8E4M3Fnuz)]
    [InlineData(SafetensorsTypes.Float8E5M2Fnuz)]
    [InlineData(SafetensorsTypes.Float8E8M0)]
    [InlineData(SafetensorsTypes.Unsigned16)]
    [InlineData(SafetensorsTypes.Unsigned32)]
    [InlineData(SafetensorsTypes.Unsigned64)]
    public void Every_type_comes_back_as_it_was(ScalarType type)
    {
        Tensor tensor = randint(1, 100, [3, 5]).to(type);
        SafetensorsFile.Save(Path, [("weights", tensor), ("odd", ones(1, ScalarType.Bool)), ("scalar", tensor[1, 2]), ("turned", tensor.t()), ("none", empty([0, 4], type))]);
        using SafetensorsFile file = SafetensorsFile.Open(Path);
        Assert.Equal(type, file.Info("weights").Type);
        Assert.Equal(SafetensorsTypes.NameOf(type), file.Info("weights").Dtype);
        Assert.Equal(Bytes(tensor), Bytes(file.Load("weights")));
        Assert.Empty(file.Load("scalar").shape);
        Assert.Equal(Bytes(tensor[1, 2]), Bytes(file.Load("scalar")));
        Assert.Equal(Bytes(tensor.t().contiguous()), Bytes(file.Load("turned")));
        Assert.Equal([0L, 4L], file.Load("none").shape);
        Assert.Equal(type, file.Load("none").dtype);
    }

    /// <summary>Bytes and values by the definitions of the formats (IEEE 754, bfloat16, OCP 8-bit floats, OCP microscaling, and the "fnuz" forms of Noune et al. 2022).</summary>
    [Theory]
    [InlineData("F64", "000000000000F03F000000000000E0BF", new[] { 1f, -0.5f })]
    [InlineData("F32", "0000803F0000C0BF0000807F", new[] { 1f, -1.5f, float.PositiveInfinity })]
    [InlineData("F16", "003C00C0FF7B0100", new[] { 1f, -2f, 65504f, 5.9604645e-8f })]
    [InlineData("BF16", "803F20C1", new[] { 1f, -10f })]
    [InlineData("F8_E4M3", "00387E7F01B8FE", new[] { 0f, 1f, 448f, float.NaN, 0.001953125f, -1f, -448f })]
    [InlineData("F8_E5M2", "003C7B7C7D01BCFC", new[] { 0f, 1f, 57344f, float.PositiveInfinity, float.NaN, 1.5258789e-5f, -1f, float.NegativeInfinity })]
    [InlineData("F8_E4M3FNUZ", "00407F8001C0", new[] { 0f, 1f, 240f, float.NaN, 0.0009765625f, -1f })]
    [InlineData("F8_E5M2FNUZ", "00407F8001C0", new[] { 0f, 1f, 57344f, float.NaN, 7.6293945e-6f, -1f })]
    [InlineData("F8_E8M0", "7F807EFF8A", new[] { 1f, 2f, 0.5f, float.NaN, 2048f })]
    [InlineData("I64", "0100000000000000FFFFFFFFFFFFFFFF", new[] { 1f, -1f })]
    [InlineData("I32", "01000000FEFFFFFF", new[] { 1f, -2f })]
    [InlineData("I16", "0001FDFF", new[] { 256f, -3f })]
    [InlineData("I8", "7F80", new[] { 127f, -128f })]
    [InlineData("U64", "02000000000000000000000000000080", new[] { 2f, 9223372036854775808f })]
    [InlineData("U32", "0300000000000080", new[] { 3f, 2147483648f })]
    [InlineData("U16", "0400FFFF", new[] { 4f, 65535f })]
    [InlineData("U8", "00FF", new[] { 0f, 255f })]
    [InlineData("BOOL", "0001", new[] { 0f, 1f })]
    public void Hand_made_bytes_of_every_type_have_the_values_of_its_definition(string dtype, string hex, float[] values)
    {
        byte[] data = Convert.FromHexString(hex);
        System.IO.File.WriteAllBytes(Path, SafetensorsBytes.File($$$"""{"a":{"dtype":"{{{dtype}}}","shape":[{{{values.Length}}}],"data_offsets":[0,{{{data.Length}}}]}}""", data));
        using SafetensorsFile file = SafetensorsFile.Open(Path);
        Assert.Equal(dtype, file.Info("a").Dtype);
        Tensor wide = zeros(values.Length), strided = zeros(values.Length, 2).select(1, 0);
        file.CopyInto("a", wide);
        file.CopyInto("a", strided);
        Assert.Equal(values, wide.data<float>().ToArray());
        Assert.Equal(values, strided.contiguous().data<float>().ToArray());
        SafetensorsFile.Save(folder["again.safetensors"], [("a", file.Load("a"))]);
        Assert.Equal(data, System.IO.File.ReadAllBytes(folder["again.safetensors"])[^data.Length..]);
    }

    [Fact]
    public void Complex_numbers_keep_both_parts_and_are_not_made_real()
    {
        System.IO.File.WriteAllBytes(Path, SafetensorsBytes.File("""{"a":{"dtype":"C64","shape":[1],"data_offsets":[0,8]}}""", Convert.FromHexString("0000803F00000040")));
        using SafetensorsFile file = SafetensorsFile.Open(Path);
        Tensor wide = zeros(1, ScalarType.ComplexFloat64);
        file.CopyInto("a", wide);
        Assert.Equal((1d, 2d), (wide.real.item<double>(), wide.imag.item<double>()));
        string message = Assert.Throws<InvalidDataException>(() => file.CopyInto("a", zeros(1))).Message;
        Assert.Contains($"{Path}: tensor a is C64 and would lose its imaginary parts as F32", message);
        SafetensorsFile.Save(folder["conjugate.safetensors"], [("a", file.Load("a").conj())]);
        using SafetensorsFile conjugate = SafetensorsFile.Open(folder["conjugate.safetensors"]);
        Assert.Equal(-2f, conjugate.Load("a").imag.item<float>());
    }

    [Fact]
    public void Four_bit_floats_are_kept_as_pairs_and_counted_singly_in_the_file()
    {
        System.IO.File.WriteAllBytes(Path, SafetensorsBytes.File("""{"a":{"dtype":"F4","shape":[2,6],"data_offsets":[0,6]}}""", [1, 2, 3, 4, 5, 6]));
        using SafetensorsFile file = SafetensorsFile.Open(Path);
        Tensor pairs = file.Load("a");
        Assert.Equal([2L, 3], file.Info("a").Shape);
        Assert.Equal([1, 2, 3, 4, 5, 6], Bytes(pairs));
        SafetensorsFile.Save(folder["again.safetensors"], [("a", pairs)]);
        Assert.Contains("\"shape\":[2,6]", Encoding.UTF8.GetString(System.IO.File.ReadAllBytes(folder["again.safetensors"])));
        Assert.Contains("tensor a is F4 and libtorch has no conversion of it to F32", Assert.Throws<InvalidDataException>(() => file.CopyInto("a", zeros(2, 3))).Message);
        Assert.Contains("F4", Assert.Throws<ArgumentException>(() => SafetensorsFile.Save(Path, [("a", pairs[0, 0])])).Message);
    }

    [Fact]
    public void A_large_tensor_is_converted_piece_by_piece_to_the_same_values()
    {
        Tensor source = arange(5_000_001, ScalarType.Float32), target = zeros(5_000_001, ScalarType.Float64);
        SafetensorsFile.Save(Path, [("offset", ones(3, ScalarType.Byte)), ("w", source)]);
        using SafetensorsFile file = SafetensorsFile.Open(Path);
        file.CopyInto("w", target);
        Assert.True(target.equal(source.to(ScalarType.Float64)).all().item<bool>());
        Assert.True(source.equal(file.Load("w")).all().item<bool>());
    }

    [Fact]
    public void Metadata_names_and_ranges_are_kept_and_data_is_aligned()
    {
        SafetensorsFile.Save(Path, [("b.ß\"\\", ones(3, ScalarType.Byte)), ("a", ones(2, 2))], new Dictionary<string, string> { ["format"] = "pt", ["note"] = "ü\n" });
        using SafetensorsFile file = SafetensorsFile.Open(Path);
        Assert.Equal(["a", "b.ß\"\\"], file.Names);
        Assert.Equal("ü\n", file.Metadata["note"]);
        Assert.Equal(0, file.Info("a").Offset % 8);
        Assert.Equal(16, file.Info("a").Length);
        Assert.Equal(new FileInfo(Path).Length, file.Info("b.ß\"\\").Offset + 3);
        Assert.Single(Directory.GetFiles(folder.Path));
        Assert.Contains("no tensor c", Assert.Throws<InvalidDataException>(() => file.Info("c")).Message);
    }

    [Fact]
    public void A_tensor_that_is_a_transposed_view_is_written_in_its_own_order()
    {
        Tensor matrix = arange(6, ScalarType.Float32).view(2, 3);
        SafetensorsFile.Save(Path, [("t", matrix.t())]);
        using SafetensorsFile file = SafetensorsFile.Open(Path);
        Assert.Equal([0f, 3, 1, 4, 2, 5], file.Load("t").data<float>().ToArray());
    }

    [Fact]
    public void Copying_into_a_tensor_converts_its_type_and_checks_its_shape()
    {
        Tensor source = randn(4, 3);
        SafetensorsFile.Save(Path, [("w", source)]);
        using SafetensorsFile file = SafetensorsFile.Open(Path);
        Tensor same = zeros(4, 3), wide = zeros(4, 3, ScalarType.Float64), view = zeros(3, 4).t(), leaf = zeros(4, 3).requires_grad_();
        foreach (Tensor target in (Tensor[])[same, wide, view, leaf])
        {
            file.CopyInto("w", target);
            Assert.True(source.equal(target.detach().to(ScalarType.Float32)).all().item<bool>());
        }
        Assert.True(leaf.requires_grad && leaf.is_leaf);
        Assert.Contains("[3, 4] is needed", Assert.Throws<InvalidDataException>(() => file.CopyInto("w", zeros(3, 4))).Message);
    }

    [Fact]
    public void The_bytes_of_a_file_are_those_of_the_format()
    {
        byte[] expected = SafetensorsBytes.File("""{"x":{"dtype":"I16","shape":[2],"data_offsets":[0,4]}}  """, [1, 0, 255, 255]);
        SafetensorsFile.Save(Path, [("x", tensor(new short[] { 1, -1 }))]);
        Assert.Equal(expected, System.IO.File.ReadAllBytes(Path));
    }

    [Fact]
    public void Opening_a_large_file_and_reading_a_small_tensor_costs_neither_time_nor_memory()
    {
        const long gigabyte = 1L << 30;
        byte[] head = SafetensorsBytes.File($$$"""{"large":{"dtype":"F32","shape":[{{{gigabyte / 4}}}],"data_offsets":[0,{{{gigabyte}}}]},"small":{"dtype":"F32","shape":[1024],"data_offsets":[{{{gigabyte}}},{{{gigabyte + 4096}}}]}}""", []);
        using (FileStream stream = new(Path, FileMode.CreateNew))
        {
            stream.Write(head);
            stream.SetLength(head.Length + gigabyte + 4096); // a hole of the file system: it takes no disk
        }
        TimeSpan fastest = TimeSpan.MaxValue; // other tests run beside this one
        for (int i = 0; i < 5; i++)
        {
            long start = Stopwatch.GetTimestamp(), managed = GC.GetAllocatedBytesForCurrentThread();
            using SafetensorsFile file = SafetensorsFile.Open(Path);
            fastest = TimeSpan.FromTicks(Math.Min(fastest.Ticks, Stopwatch.GetElapsedTime(start).Ticks));
            Assert.Equal(0, file.Load("small").sum().item<float>());
            Assert.InRange(GC.GetAllocatedBytesForCurrentThread() - managed, 0, 100_000);
            Assert.InRange(Resident(Path), 4, 16);
        }
        Assert.InRange(fastest.TotalMilliseconds, 0, 50);
    }

    [Fact]
    public void A_small_tensor_of_a_file_that_is_not_in_memory_brings_in_its_own_pages_alone()
    {
        // Written past the page cache, so that reading it is reading the disk; where the file system has no such writes, nothing is read at all.
        for (int i = 0; i < 2; i++) // the first time the program's own code comes from the disk too
        {
            SafetensorsFile.Save(Path, [("before", zeros(4 << 20)), ("small", ones(1024)), ("after", zeros(4 << 20))]);
            long before = ReadFromDisk();
            using SafetensorsFile file = SafetensorsFile.Open(Path);
            Assert.Equal(1024, file.Load("small").sum().item<float>());
            if (i > 0) Assert.InRange(ReadFromDisk() - before, 0, 16 << 10); // one page of header, two of data
        }
    }

    [Fact]
    public void A_file_that_was_cut_while_it_was_open_ends_a_read_with_an_error_and_not_the_process()
    {
        SafetensorsFile.Save(Path, [("a", zeros(3_000_000))]);
        using SafetensorsFile file = SafetensorsFile.Open(Path);
        using (FileStream stream = new(Path, FileMode.Open, FileAccess.Write, FileShare.ReadWrite)) stream.SetLength(5_000_000);
        Assert.Contains($"{Path}: tensor a cannot be read: it has become shorter", Assert.Throws<InvalidDataException>(() => file.Load("a")).Message);
    }

    [Fact]
    public void A_file_of_several_blocks_is_written_whole_whatever_its_length()
    {
        // Blocks of 4 MiB go past the page cache, the rest through it.
        foreach (int size in (int[])[(4 << 20) - 88, (4 << 20) - 72, (8 << 20) - 64, 30_000_001])
        {
            Tensor bytes = randint(0, 256, [size], ScalarType.Byte);
            SafetensorsFile.Save(Path, [("a", bytes)]);
            using SafetensorsFile file = SafetensorsFile.Open(Path);
            Assert.True(bytes.equal(file.Load("a")).all().item<bool>(), $"{size}");
        }
        Assert.Single(Directory.GetFiles(folder.Path));
    }

    [Fact]
    public void A_boolean_of_two_is_damage()
    {
        System.IO.File.WriteAllBytes(Path, SafetensorsBytes.File("""{"a":{"dtype":"BOOL","shape":[2],"data_offsets":[0,2]}}""", [1, 2]));
        using SafetensorsFile file = SafetensorsFile.Open(Path);
        Assert.Contains("tensor a is BOOL", Assert.Throws<InvalidDataException>(() => file.Load("a")).Message);
    }

    [Fact]
    public void What_cannot_be_saved_is_named_and_leaves_the_old_file_alone()
    {
        SafetensorsFile.Save(Path, [("a", ones(1))]);
        byte[] before = System.IO.File.ReadAllBytes(Path);
        Assert.Contains("a is there twice", Assert.Throws<ArgumentException>(() => SafetensorsFile.Save(Path, [("a", ones(1)), ("a", ones(1))])).Message);
        Assert.Contains("ComplexFloat64", Assert.Throws<ArgumentException>(() => SafetensorsFile.Save(Path, [("a", zeros(1, ScalarType.ComplexFloat64))])).Message);
        Assert.Contains("surrogate", Assert.Throws<ArgumentException>(() => SafetensorsFile.Save(Path, [("\ud800", ones(1))])).Message);
        Assert.Contains("surrogate", Assert.Throws<ArgumentException>(() => SafetensorsFile.Save(Path, [("a", ones(1))], new Dictionary<string, string> { ["k"] = "\udc00" })).Message);
        Assert.Contains("64", Assert.Throws<ArgumentException>(() => SafetensorsFile.Save(Path, [("a", ones([.. Enumerable.Repeat(1L, 65)]))])).Message);
        Assert.Contains("sparse", Assert.Throws<ArgumentException>(() => SafetensorsFile.Save(Path, [("a", ones(2, 2).to_sparse())])).Message);
        Assert.Contains("__metadata__", Assert.Throws<ArgumentException>(() => SafetensorsFile.Save(Path, [("__metadata__", ones(1))])).Message);
        Assert.Equal(before, System.IO.File.ReadAllBytes(Path));
        Assert.Single(Directory.GetFiles(folder.Path));
    }

    [Fact]
    public void A_closed_file_is_refused_and_one_being_replaced_stays_readable()
    {
        SafetensorsFile.Save(Path, [("a", full([2], 5f))]);
        SafetensorsFile file = SafetensorsFile.Open(Path);
        SafetensorsFile.Save(Path, [("a", full([2], 6f))]);
        Assert.Equal(10, file.Load("a").sum().item<float>());
        file.Dispose();
        Assert.Throws<ObjectDisposedException>(() => file.Load("a"));
    }

    [NeedsTheory(Needs.SharedData)]
    [InlineData("parity/nope-gpt-0/model.safetensors")]
    [InlineData("parity/gpt2/expected.safetensors")]
    public void Files_written_by_the_formats_own_library_are_read_and_written_back(string relative)
    {
        using SafetensorsFile original = SafetensorsFile.Open(Needs.Data(relative));
        Assert.NotEmpty(original.Names);
        SafetensorsFile.Save(Path, original.Names.Select(n => (n, original.Load(n))), original.Metadata);
        using SafetensorsFile copy = SafetensorsFile.Open(Path);
        Assert.Equal(original.Names.Order(StringComparer.Ordinal), copy.Names.Order(StringComparer.Ordinal));
        Assert.All(original.Names, n => Assert.True(original.Load(n).equal(copy.Load(n)).all().item<bool>(), n));
    }

    private static byte[] Bytes(Tensor tensor)
    {
        byte[] bytes = new byte[tensor.numel() * tensor.element_size()];
        System.Runtime.InteropServices.Marshal.Copy(Dispatcher.DataPointer(tensor), bytes, 0, bytes.Length);
        return bytes;
    }

    private static long ReadFromDisk() => Number(System.IO.File.ReadLines("/proc/thread-self/io").First(l => l.StartsWith("read_bytes", StringComparison.Ordinal)));

    /// <summary>Kilobytes of a mapped file that are in this process's memory.</summary>
    private static long Resident(string path) =>
        System.IO.File.ReadLines("/proc/self/smaps").SkipWhile(l => !l.EndsWith(path, StringComparison.Ordinal)).Where(l => l.StartsWith("Rss:", StringComparison.Ordinal)).Select(Number).First();

    private static long Number(string line) => long.Parse(string.Concat(line.Where(char.IsAsciiDigit)), System.Globalization.CultureInfo.InvariantCulture);
}
