using System.Buffers.Binary;
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
    public void Every_type_comes_back_as_it_was(ScalarType type)
    {
        Tensor tensor = randint(0, 100, [3, 5]).to(type);
        SafetensorsFile.Save(Path, [("weights", tensor), ("odd", ones(1, ScalarType.Bool)), ("scalar", tensor[1, 2]), ("none", zeros([0, 4], type))]);
        using SafetensorsFile file = SafetensorsFile.Open(Path);
        Assert.Equal(type, file.Info("weights").Type);
        Assert.True(tensor.equal(file.Load("weights")).all().item<bool>());
        Assert.Empty(file.Load("scalar").shape);
        Assert.True(tensor[1, 2].equal(file.Load("scalar")).all().item<bool>());
        Assert.Equal([0L, 4L], file.Load("none").shape);
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
        byte[] expected = File("""{"x":{"dtype":"I16","shape":[2],"data_offsets":[0,4]}}  """, [1, 0, 255, 255]);
        SafetensorsFile.Save(Path, [("x", tensor(new short[] { 1, -1 }))]);
        Assert.Equal(expected, System.IO.File.ReadAllBytes(Path));
    }

    [Theory]
    [InlineData("""[]""", 0, "does not begin with {")]
    [InlineData("""{"a":1}""", 0, "tensor a: its entry is not an object")]
    [InlineData("""{"a":{"dtype":"F8_E4M3","shape":[4],"data_offsets":[0,4]}}""", 4, "tensor a: its dtype is F8_E4M3, readable are F64")]
    [InlineData("""{"a":{"dtype":"F32","shape":[1],"data_offsets":[0,8]}}""", 8, "tensor a: its shape [1] of F32 does not take the 8 bytes")]
    [InlineData("""{"a":{"dtype":"F32","shape":[2],"data_offsets":[0,8]}}""", 4, "bytes 0 to 8 lie outside the 4 bytes")]
    [InlineData("""{"a":{"dtype":"F32","shape":[1],"data_offsets":[8,4]}}""", 8, "bytes 8 to 4 lie outside")]
    [InlineData("""{"a":{"dtype":"U8","shape":[4],"data_offsets":[0,4]},"b":{"dtype":"U8","shape":[4],"data_offsets":[2,6]}}""", 6, "tensor b: it overlaps another tensor")]
    [InlineData("""{"a":{"dtype":"U8","shape":[4],"data_offsets":[0,4]},"b":{"dtype":"U8","shape":[4],"data_offsets":[5,9]}}""", 9, "tensor b: there is a hole of 1 bytes before it")]
    [InlineData("""{"a":{"dtype":"U8","shape":[4],"data_offsets":[0,4]}}""", 5, "1 bytes at the end belong to no tensor")]
    [InlineData("""{"a":{"dtype":"U8","shape":[1],"data_offsets":[0,1]},"a":{"dtype":"U8","shape":[1],"data_offsets":[1,2]}}""", 2, "tensor a is there twice")]
    [InlineData("""{"a":{"dtype":"U8","shape":[4294967296,4294967296],"data_offsets":[0,0]}}""", 0, "does not take")]
    [InlineData("""{"a":{"dtype":"U8","shape":[0,4294967296,4294967296],"data_offsets":[0,0]}}""", 0, "does not take")]
    [InlineData("""{"a":{"dtype":"F64","shape":[2305843009213693952],"data_offsets":[0,0]}}""", 0, "does not take")]
    [InlineData("""{"a":{"dtype":"U8","shape":[-1],"data_offsets":[0,1]}}""", 1, "its shape has something other than whole numbers")]
    [InlineData("""{"a":{"dtype":"U8","shape":[1.5],"data_offsets":[0,1]}}""", 1, "its shape has something other than whole numbers")]
    [InlineData("""{"a":{"dtype":"U8","shape":[1],"data_offsets":[0,99999999999999999999]}}""", 1, "its data_offsets has something other than whole numbers")]
    [InlineData("""{"a":{"dtype":"U8","shape":[1],"data_offsets":[0,1,2]}}""", 1, "its data_offsets has more than 2")]
    [InlineData("""{"a":{"dtype":"U8","shape":[1]}}""", 1, "tensor a: it needs a dtype")]
    [InlineData("""{"a":{"dtype":"U8","dtype":"U8","shape":[1],"data_offsets":[0,1]}}""", 1, "its dtype is there twice")]
    [InlineData("""{"__metadata__":{"a":1}}""", 0, "__metadata__ has a, which is not a string")]
    [InlineData("""{"__metadata__":{"a":"1","a":"2"}}""", 0, "__metadata__ has a twice")]
    [InlineData("""{"__metadata__":{},"__metadata__":{}}""", 0, "__metadata__ is there twice")]
    [InlineData("""{"a":[[[[[[[[[[]]]]]]]]]]}""", 0, "tensor a")]
    [InlineData("""{} x""", 0, "not JSON")]
    [InlineData("""{"\ud800":{}}""", 0, "not text")]
    public void A_malformed_header_is_refused_with_file_tensor_and_reason(string header, int data, string reason)
    {
        System.IO.File.WriteAllBytes(Path, File(header, new byte[data]));
        string message = Assert.Throws<InvalidDataException>(() => SafetensorsFile.Open(Path)).Message;
        Assert.StartsWith(Path, message);
        Assert.Contains(reason, message);
    }

    [Fact]
    public void A_header_longer_than_the_file_or_the_limit_is_refused_before_it_is_read()
    {
        foreach ((ulong length, string reason) in ((ulong, string)[])[(ulong.MaxValue, "the most is 100000000"), (100_000_001, "the most is"), (3, "the file has 10"), (1UL << 63, "the most is")])
        {
            byte[] bytes = new byte[10];
            BinaryPrimitives.WriteUInt64LittleEndian(bytes, length);
            System.IO.File.WriteAllBytes(Path, bytes);
            long before = GC.GetAllocatedBytesForCurrentThread();
            Assert.Contains(reason, Assert.Throws<InvalidDataException>(() => SafetensorsFile.Open(Path)).Message);
            Assert.InRange(GC.GetAllocatedBytesForCurrentThread() - before, 0, 1 << 20);
        }
        System.IO.File.WriteAllBytes(Path, new byte[7]);
        Assert.Contains("7 bytes", Assert.Throws<InvalidDataException>(() => SafetensorsFile.Open(Path)).Message);
        System.IO.File.WriteAllBytes(Path, []);
        Assert.Throws<InvalidDataException>(() => SafetensorsFile.Open(Path));
        Assert.Throws<FileNotFoundException>(() => SafetensorsFile.Open(folder["nowhere"]));
    }

    [Fact]
    public void A_boolean_of_two_is_damage()
    {
        System.IO.File.WriteAllBytes(Path, File("""{"a":{"dtype":"BOOL","shape":[2],"data_offsets":[0,2]}}""", [1, 2]));
        using SafetensorsFile file = SafetensorsFile.Open(Path);
        Assert.Contains("tensor a is BOOL", Assert.Throws<InvalidDataException>(() => file.Load("a")).Message);
    }

    [Fact]
    public void Two_thousand_damaged_files_end_with_an_error_or_a_load()
    {
        SafetensorsFile.Save(Path, [("a", randn(2, 3)), ("b", ones(5, ScalarType.Bool)), ("c", zeros(0, 2)), ("d", tensor(7L))], new Dictionary<string, string> { ["k"] = "v" });
        byte[] good = System.IO.File.ReadAllBytes(Path);
        int header = (int)BinaryPrimitives.ReadInt64LittleEndian(good) + 8;
        Random random = new(2024);
        (int loads, int errors) = (0, 0);
        for (int i = 0; i < 2000; i++)
        {
            System.IO.File.WriteAllBytes(Path, Damage(good, header, random));
            try
            {
                using SafetensorsFile file = SafetensorsFile.Open(Path);
                foreach (string name in file.Names)
                {
                    using Tensor tensor = file.Load(name);
                    Assert.Equal(file.Info(name).Length, tensor.numel() * tensor.element_size());
                    Assert.Equal(file.Info(name).Shape, tensor.shape);
                }
                loads++;
            }
            catch (InvalidDataException)
            {
                errors++;
            }
        }
        Assert.Equal(2000, loads + errors);
        Assert.True(loads > 50 && errors > 500, $"{loads} loads, {errors} errors");
    }

    [Fact]
    public void What_cannot_be_saved_is_named_and_leaves_the_old_file_alone()
    {
        SafetensorsFile.Save(Path, [("a", ones(1))]);
        byte[] before = System.IO.File.ReadAllBytes(Path);
        Assert.Contains("a is there twice", Assert.Throws<ArgumentException>(() => SafetensorsFile.Save(Path, [("a", ones(1)), ("a", ones(1))])).Message);
        Assert.Contains("ComplexFloat32", Assert.Throws<ArgumentException>(() => SafetensorsFile.Save(Path, [("a", zeros(1, ScalarType.ComplexFloat32))])).Message);
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

    private static byte[] File(string header, byte[] data)
    {
        byte[] json = Encoding.UTF8.GetBytes(header), length = new byte[8];
        BinaryPrimitives.WriteInt64LittleEndian(length, json.Length);
        return [.. length, .. json, .. data];
    }

    private static byte[] Damage(byte[] good, int header, Random random)
    {
        byte[] bytes = (byte[])good.Clone();
        switch (random.Next(5))
        {
            case 0: // any byte of the file
                bytes[random.Next(bytes.Length)] = (byte)random.Next(256);
                break;
            case 1: // a digit of the header
                int[] digits = [.. Enumerable.Range(8, header - 8).Where(i => char.IsAsciiDigit((char)bytes[i]))];
                bytes[digits[random.Next(digits.Length)]] = (byte)('0' + random.Next(10));
                break;
            case 2: // cut
                return bytes[..random.Next(bytes.Length)];
            case 3: // longer
                return [.. bytes, .. new byte[random.Next(1, 20)]];
            default: // a piece copied elsewhere
                int size = random.Next(1, 20);
                Array.Copy(good, random.Next(good.Length - size), bytes, random.Next(header - size), size);
                break;
        }
        return bytes;
    }
}
