using System.Buffers.Binary;
using NopeGpt.Model.Storage;
using NopeGpt.Tests;

namespace NopeGpt.Model.Tests;

/// <summary>What is wrong with a header is said: file, tensor, reason and cure.</summary>
public sealed class SafetensorsHeaderTests : IDisposable
{
    private readonly TemporaryFolder folder = TemporaryFolder.InMemory();

    private string Path => folder["model.safetensors"];

    public void Dispose() => folder.Dispose();

    [Theory]
    [InlineData("""[]""", 0, "does not begin with {")]
    [InlineData("""{"a":1}""", 0, "tensor a: its entry is not an object")]
    [InlineData("""{"a":{"dtype":"F6_E2M3","shape":[4],"data_offsets":[0,3]}}""", 3, "tensor a: its dtype is F6_E2M3, readable are F64, F32")]
    [InlineData("""{"a":{"dtype":"f32","shape":[1],"data_offsets":[0,4]}}""", 4, "tensor a: its dtype is f32, readable are F64")]
    [InlineData("""{"a":{"dtype":7,"shape":[1],"data_offsets":[0,4]}}""", 4, "tensor a: its dtype is no string")]
    [InlineData("""{"a":{"dtype":"F4","shape":[],"data_offsets":[0,0]}}""", 0, "tensor a: it is F4, of which libtorch keeps pairs")]
    [InlineData("""{"a":{"dtype":"F4","shape":[2,3],"data_offsets":[0,3]}}""", 3, "its last size is not even")]
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
    [InlineData("""{"a":{"dtype":"U8","shape":[-0],"data_offsets":[0,0]}}""", 0, "its shape has something other than whole numbers")]
    [InlineData("""{"a":{"dtype":"U8","shape":[1e0],"data_offsets":[0,1]}}""", 1, "its shape has something other than whole numbers")]
    [InlineData("""{"a":{"dtype":"U8","shape":[1.0],"data_offsets":[0,1]}}""", 1, "its shape has something other than whole numbers")]
    [InlineData("""{"a":{"dtype":"U8","shape":[9223372036854775808],"data_offsets":[0,1]}}""", 1, "its shape has something other than whole numbers")]
    [InlineData("""{"a":{"dtype":"U8","shape":["1"],"data_offsets":[0,1]}}""", 1, "its shape has something other than whole numbers")]
    [InlineData("""{"a":{"dtype":"U8","shape":[null],"data_offsets":[0,1]}}""", 1, "its shape has something other than whole numbers")]
    [InlineData("""{"a":{"dtype":"U8","shape":[01],"data_offsets":[0,1]}}""", 1, "tensor a: the header is not JSON")]
    [InlineData("""{"a":{"dtype":"U8","shape":[[[[[[[[[[1]]]]]]]]]],"data_offsets":[0,1]}}""", 1, "tensor a: its shape has something other")]
    [InlineData("""{"a":{"dtype":"U8","shape":1,"data_offsets":[0,1]}}""", 1, "tensor a: its shape is not a list")]
    [InlineData("""{"a":{"dtype":"U8","shape":[1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1],"data_offsets":[0,1]}}""", 1, "its shape has more than 64 numbers")]
    [InlineData("""{"a":{"dtype":"U8","shape":[1],"data_offsets":[0]}}""", 1, "tensor a: it needs a dtype, a shape and two data_offsets")]
    [InlineData("""{"a":{"dtype":"U8","shape":[],"data_offsets":[0,0]}}""", 0, "does not take the 0 bytes")]
    [InlineData("""{"a":{"dtype":"U8","shape":[4],"data_offsets":[0,4]},"b":{"dtype":"U8","shape":[0],"data_offsets":[2,2]}}""", 4, "tensor b: it overlaps another tensor")]
    [InlineData("""{"a":{"dtype":"U8","shape":[1],"shape":[1],"data_offsets":[0,1]}}""", 1, "tensor a: its shape is there twice")]
    [InlineData("""{"a":{"dtype":"U8","shape":[1],"data_offsets":[0,1],"data_offsets":[0,1]}}""", 1, "tensor a: its data_offsets is there twice")]
    [InlineData("""{"a":{"dtype":"U8","shape":[1],"data_offsets":[0,1],"scale":2}}""", 1, "tensor a: its scale is no field of the format")]
    [InlineData("""{"__metadata__":[]}""", 0, "__metadata__ is not an object")]
    [InlineData("""{"__metadata__":{"a":{"b":{"c":{"d":{"e":{"f":{"g":{}}}}}}}}}""", 0, "__metadata__ has a, which is not a string")]
    [InlineData("""{"__metadata__":{"a":"\ud800"}}""", 0, "__metadata__: the header has a string that is not text")]
    [InlineData("""{"a":{"dtype":"U8","shape":[1],"data_offsets":[0,1]""", 1, "tensor a: the header is not JSON")]
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
        System.IO.File.WriteAllBytes(Path, SafetensorsBytes.File(header, new byte[data]));
        string message = Assert.Throws<InvalidDataException>(() => SafetensorsFile.Open(Path)).Message;
        Assert.StartsWith(Path, message);
        Assert.Contains(reason, message);
        Assert.EndsWith("download it again, or write it again.", message);
    }

    [Theory]
    [InlineData("7B22FF223A7B7D7D")] // {"\xFF":{}}
    [InlineData("7B22C0AF223A7B7D7D")] // an overlong slash
    [InlineData("7B22EDA080223A7B7D7D")] // half a surrogate pair in UTF-8
    [InlineData("EFBBBF7B7D")] // a byte order mark
    [InlineData("7B7D00")]
    [InlineData("20207B7D")]
    public void A_header_that_is_not_text_or_not_only_the_object_is_refused(string hex)
    {
        byte[] json = Convert.FromHexString(hex), length = new byte[8];
        BinaryPrimitives.WriteInt64LittleEndian(length, json.Length);
        System.IO.File.WriteAllBytes(Path, [.. length, .. json]);
        Assert.StartsWith(Path, Assert.Throws<InvalidDataException>(() => SafetensorsFile.Open(Path)).Message);
    }

    [Fact]
    public void A_name_of_many_or_odd_characters_is_shown_in_one_short_line()
    {
        string name = new string('x', 99) + "\U0001F600" + "rest", control = "a\nb";
        foreach ((string written, string shown) in ((string, string)[])[(name, new string('x', 99) + "…"), (control, "a\uFFFDb")])
        {
            System.IO.File.WriteAllBytes(Path, SafetensorsBytes.File($$$"""{{{{System.Text.Json.JsonSerializer.Serialize(written)}}}:{}}""", []));
            Assert.Contains($"tensor {shown}: it needs a dtype", Assert.Throws<InvalidDataException>(() => SafetensorsFile.Open(Path)).Message);
        }
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
}
