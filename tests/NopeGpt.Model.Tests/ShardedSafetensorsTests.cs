using System.Text.Json.Nodes;
using NopeGpt.Model.Native;
using NopeGpt.Model.Storage;
using NopeGpt.Tests;
using TorchSharp;
using static TorchSharp.torch;

namespace NopeGpt.Model.Tests;

public sealed class ShardedSafetensorsTests : IDisposable
{
    private static readonly string[] Three = ["model-00001-of-00003.safetensors", "model-00002-of-00003.safetensors", "model-00003-of-00003.safetensors"];

    private readonly TemporaryFolder folder = TemporaryFolder.InMemory();
    private readonly DisposeScope scope;

    public ShardedSafetensorsTests()
    {
        TorchRuntime.Load();
        scope = NewDisposeScope();
    }

    private string Index => folder[TensorSource.IndexName];

    public void Dispose()
    {
        scope.Dispose();
        folder.Dispose();
    }

    [Fact]
    public void Shards_and_index_are_named_as_on_the_Hub_and_come_back_as_one_source()
    {
        (string, Tensor)[] tensors = Save();
        Assert.Equal([.. Three, TensorSource.IndexName], Files());
        JsonNode index = JsonNode.Parse(File.ReadAllText(Index))!;
        Assert.Equal(24 + 40 + 8 + 4, (int)index["metadata"]!["total_size"]!);
        Assert.Equal(["a", "b", "c", "d"], index["weight_map"]!.AsObject().Select(p => p.Key));
        Assert.Equal([Three[0], Three[1], Three[2], Three[2]], index["weight_map"]!.AsObject().Select(p => (string)p.Value!));
        foreach (string path in (string[])[folder.Path, Index])
        {
            using TensorSource source = TensorSource.Open(path);
            Assert.Equal(Index, source.Path);
            Assert.Equal(["a", "b", "c", "d"], source.Names);
            Assert.Equal("pt", source.Metadata["format"]);
            Assert.True(source.Contains("c") && !source.Contains("e"));
            foreach ((string name, Tensor tensor) in tensors)
            {
                Assert.Equal(tensor.shape, source.Info(name).Shape);
                Assert.True(tensor.equal(source.Load(name)).all().item<bool>());
                Tensor copy = zeros(tensor.shape, ScalarType.Float64);
                source.CopyInto(name, copy);
                Assert.True(copy.equal(tensor.to(ScalarType.Float64)).all().item<bool>());
            }
            Assert.Contains($"{Index} has no tensor e", Assert.Throws<InvalidDataException>(() => source.Load("e")).Message);
        }
    }

    [Theory]
    [InlineData(1, 4)]
    [InlineData(39, 3)]
    [InlineData(40, 3)]
    [InlineData(64, 2)]
    [InlineData(75, 2)]
    [InlineData(76, 1)]
    [InlineData(long.MaxValue, 1)]
    public void A_shard_has_at_most_its_size_unless_one_tensor_alone_is_larger(long size, int files)
    {
        string path = ShardedSafetensors.Save(folder.Path, Tensors(), size);
        Assert.Equal(files, Files().Count(f => f.EndsWith(".safetensors", StringComparison.Ordinal)));
        Assert.Equal(files == 1 ? folder[TensorSource.SingleName] : Index, path);
        Assert.Equal(files > 1, File.Exists(Index));
        using TensorSource source = TensorSource.Open(folder.Path);
        Assert.Equal(4, source.Names.Count);
        if (source is not ShardedSafetensors sharded) return;
        foreach (string shard in sharded.Shards)
        {
            using SafetensorsFile file = SafetensorsFile.Open(shard);
            Assert.True(file.Names.Count == 1 || file.Names.Sum(n => file.Info(n).Length) <= size);
        }
    }

    [Fact]
    public void A_model_saved_over_another_leaves_nothing_of_it()
    {
        File.WriteAllText(folder["model-notes.safetensors"], "not ours");
        Save();
        ShardedSafetensors.Save(folder.Path, [("x", ones(3))]);
        Assert.Equal(["model-notes.safetensors", TensorSource.SingleName], Files());
        using (TensorSource source = TensorSource.Open(folder.Path)) Assert.Equal(["x"], source.Names);
        ShardedSafetensors.Save(folder.Path, [("y", ones(3)), ("z", ones(3))], 12);
        Assert.Equal(["model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors", "model-notes.safetensors", TensorSource.IndexName], Files());
        ShardedSafetensors.Save(folder.Path, [("y", zeros(3)), ("z", ones(3))], 12);
        using (TensorSource source = TensorSource.Open(folder.Path)) Assert.Equal(0, source.Load("y").sum().item<float>());
        Save();
        Assert.Equal([.. Three, "model-notes.safetensors", TensorSource.IndexName], Files());
    }

    [Fact]
    public void What_cannot_be_saved_changes_nothing()
    {
        Save();
        Dictionary<string, byte[]> before = Files().ToDictionary(f => f, f => File.ReadAllBytes(folder[f]));
        Assert.Contains("a is there twice", Assert.Throws<ArgumentException>(() => ShardedSafetensors.Save(folder.Path, [("a", ones(1)), ("b", ones(1)), ("a", ones(1))], 4)).Message);
        Assert.Throws<ArgumentOutOfRangeException>(() => ShardedSafetensors.Save(folder.Path, [("a", ones(1))], 0));
        Assert.Equal(before.Keys, Files());
        Assert.All(before, b => Assert.Equal(b.Value, File.ReadAllBytes(folder[b.Key])));
    }

    [Fact]
    public void The_single_file_comes_before_the_index_and_a_folder_without_weights_says_what_is_missing()
    {
        Save();
        SafetensorsFile.Save(folder[TensorSource.SingleName], [("x", ones(1))]);
        using (TensorSource source = TensorSource.Open(folder.Path)) Assert.Equal(["x"], source.Names);
        string message = Assert.Throws<FileNotFoundException>(() => TensorSource.Open(Directory.CreateDirectory(folder["empty"]).FullName)).Message;
        Assert.Contains("neither model.safetensors nor model.safetensors.index.json", message);
    }

    [Theory]
    [InlineData("""{"a":"S1","b":"S2","c":"S3","d":"S3","e":"S3"}""", "tensor e: the weight_map says S3, which has no such tensor")]
    [InlineData("""{"a":"S1","b":"S2","c":"S3"}""", "tensor d: it is in F/S3 and not in the weight_map")]
    [InlineData("""{"a":"S1","b":"S2","c":"S3","d":"S1"}""", "tensor d: it is in F/S3, the weight_map says S1")]
    [InlineData("""{"a":"S1","b":"S2","c":"S3","d":"lost.safetensors"}""", "F/lost.safetensors is missing, and ")]
    [InlineData("""{"a":"S1","b":"S2","c":"S3","d":"empty.safetensors"}""", "F/empty.safetensors is not a usable safetensors file: it has 0 bytes")]
    [InlineData("""{"a":"S1","b":"S2","c":"S3","d":"sub"}""", "F/sub is a folder")]
    [InlineData("""{"a":"S1","b":"S2","c":"S3","d":"twice.safetensors"}""", "tensor d: it is in F/S3 and in F/twice.safetensors")]
    [InlineData("""{"a":"../S1"}""", "tensor a: its file ../S1 is not the name of a file in the folder of the index")]
    [InlineData("""{"a":"sub/../../S1"}""", "is not the name of a file in the folder")]
    [InlineData("""{"a":"/etc/passwd"}""", "is not the name of a file in the folder")]
    [InlineData("""{"a":"..\\S1"}""", "is not the name of a file in the folder")]
    [InlineData("""{"a":"./S1"}""", "is not the name of a file in the folder")]
    [InlineData("""{"a":""}""", "is not the name of a file in the folder")]
    [InlineData("""{"a":"S1\u0000"}""", "is not the name of a file in the folder")]
    [InlineData("""{"a":1}""", "tensor a: its file is not a string")]
    [InlineData("""{"a":"S1","a":"S1"}""", "tensor a is there twice")]
    [InlineData("""{"\ud800":"S1"}""", "a string that is not text")]
    [InlineData("""{}""", "its weight_map is empty")]
    [InlineData("""[]""", "its weight_map is not an object")]
    [InlineData("""{"a":"S1"},"weight_map":{"a":"S1"}""", "weight_map is there twice")]
    [InlineData("""{"a":"S1"}} x {""", "it is not JSON")]
    [InlineData("""{"a":{"a":{"a":{"a":{"a":{"a":{"a":{"a":1}}}}}}}}""", "tensor a: its file is not a string")]
    [InlineData("""{"a":"S1"},"metadata":[[[[[[[[[[]]]]]]]]]]""", "it is not JSON")]
    public void An_index_that_its_shards_contradict_is_refused_with_file_tensor_and_reason(string map, string reason)
    {
        Save();
        File.WriteAllBytes(folder["empty.safetensors"], []);
        Directory.CreateDirectory(folder["sub"]);
        SafetensorsFile.Save(folder["twice.safetensors"], [("d", ones(1))]);
        File.WriteAllText(Index, $$"""{"weight_map":{{Filled(map, "")}}}""");
        string message = Assert.Throws<InvalidDataException>(() => TensorSource.Open(folder.Path)).Message;
        Assert.Contains(Filled(reason, folder.Path), message);
        Assert.Contains(folder.Path, message);
    }

    [Theory]
    [InlineData("")]
    [InlineData("[]")]
    [InlineData("null")]
    [InlineData("{}")]
    [InlineData("""{"metadata":{"total_size":4}}""")]
    public void A_file_that_is_no_index_is_refused(string json)
    {
        File.WriteAllText(Index, json);
        Assert.StartsWith($"{Index} is not a usable index", Assert.Throws<InvalidDataException>(() => TensorSource.Open(Index)).Message);
    }

    [Fact]
    public void An_index_beyond_the_limit_is_not_read()
    {
        using (FileStream stream = new(Index, FileMode.CreateNew)) stream.SetLength(100_000_001);
        long before = GC.GetAllocatedBytesForCurrentThread();
        Assert.Contains("the most is 100000000", Assert.Throws<InvalidDataException>(() => TensorSource.Open(Index)).Message);
        Assert.InRange(GC.GetAllocatedBytesForCurrentThread() - before, 0, 1 << 20);
        Assert.Throws<FileNotFoundException>(() => TensorSource.Open(folder["nowhere.json"]));
    }

    [Fact]
    public void A_wrong_total_size_links_and_folders_below_are_no_damage()
    {
        Save();
        Directory.CreateDirectory(folder["blobs"]);
        File.Move(folder[Three[1]], folder["blobs/two"]);
        File.CreateSymbolicLink(folder[Three[1]], folder["blobs/two"]);
        File.Move(folder[Three[2]], folder["blobs/three"]);
        File.WriteAllText(Index, Filled("""{"metadata":{"total_size":1.5e10,"by":[1,{}]},"weight_map":{"a":"S1","b":"S2","c":"blobs/three","d":"blobs/three"}}""", ""));
        using TensorSource source = TensorSource.Open(folder.Path);
        Assert.Equal(10, source.Load("b").sum().item<float>());
        Assert.Equal(2, source.Load("c").sum().item<float>());
    }

    private static string Filled(string text, string path) =>
        text.Replace("F/", path + "/", StringComparison.Ordinal).Replace("S1", Three[0], StringComparison.Ordinal).Replace("S2", Three[1], StringComparison.Ordinal).Replace("S3", Three[2], StringComparison.Ordinal);

    private static (string, Tensor)[] Tensors() => [("a", randn(2, 3)), ("b", ones(10)), ("c", ones(2)), ("d", zeros([], ScalarType.Int32))];

    private (string, Tensor)[] Save()
    {
        (string, Tensor)[] tensors = Tensors();
        Assert.Equal(Index, ShardedSafetensors.Save(folder.Path, tensors, 40, new Dictionary<string, string> { ["format"] = "pt" }));
        return tensors;
    }

    private string[] Files() => [.. Directory.GetFiles(folder.Path).Select(f => System.IO.Path.GetFileName(f)).Order(StringComparer.Ordinal)];
}
