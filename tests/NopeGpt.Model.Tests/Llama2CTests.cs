using System.Buffers.Binary;
using System.Text;
using NopeGpt.Model.Native;
using NopeGpt.Model.Storage;
using NopeGpt.Model.Storage.Layouts;
using NopeGpt.Tests;
using TorchSharp;
using static TorchSharp.torch;

namespace NopeGpt.Model.Tests;

public sealed class Llama2CTests : IDisposable
{
    private readonly TemporaryFolder _folder = new();
    private readonly DisposeScope _scope;

    public Llama2CTests()
    {
        TorchRuntime.Load();
        _scope = NewDisposeScope();
    }

    public void Dispose()
    {
        _scope.Dispose();
        _folder.Dispose();
    }

    // What llama2.c's own test expects of its reader in C, at temperature 0.
    [NeedsFact(Needs.SharedData)]
    public void The_published_model_tells_the_story_that_it_tells_in_C()
    {
        const string story = "Once upon a time, there was a little girl named Lily. She loved to play outside in the park. One day, she saw a big, red ball. She wanted to play with it, but it was too high.\n" +
            "Lily's mom said, \"Lily, let's go to the park.\" Lily was sad and didn't know what to do.";
        string path = Needs.Data("weights/stories260K.bin");
        using Decoder model = Checkpoint.LoadModel(path);
        Assert.Equal(172, model.Config.HiddenDimensions);
        Assert.Equal(512, model.Config.ContextLength);
        Assert.Equal("llama2.c", HubLayout.Recognise(path).Layout);
        byte[][] pieces = Pieces(Needs.Data("weights/tok512.bin"), model.Config.VocabularySize);
        using KeyValueCache cache = new(model.Config, 1, model.Config.ContextLength);
        List<byte> text = [];
        long token = 1;
        while (text.Count <= story.Length)
        {
            token = model.Forward(tensor(new long[] { token }).view(1, 1), cache).argmax(-1).item<long>();
            text.AddRange(pieces[token]);
        }
        Assert.StartsWith(story, Encoding.UTF8.GetString([.. text]).TrimStart(' '));
    }

    [Theory]
    [InlineData(0, true)]
    [InlineData(0, false)]
    [InlineData(1, true)]
    [InlineData(1, false)]
    public void Both_versions_load_with_either_head(int version, bool tied)
    {
        using Decoder model = LayoutModels.New(LayoutModels.Llama2C with { TiedHead = tied }, 21);
        string path = Write(model, version);
        using Decoder loaded = Checkpoint.LoadModel(path);
        Assert.Equal(model.Config, loaded.Config);
        LayoutModels.AssertSame(model, loaded);
        LayoutModels.AssertSame(model, Checkpoint.LoadModel(_folder.Path));
    }

    [Fact]
    public void A_width_whose_bytes_begin_as_a_pickle_loads()
    {
        // 640 is 80 02 00 00, and a pickle of protocol 2 begins with 80 02.
        using Decoder model = LayoutModels.New(LayoutModels.Llama2C with { EmbeddingDimensions = 640, NumQHeads = 80, NumKvHeads = 1, HiddenSize = 2, NumDecoderLayers = 1 }, 22);
        using Decoder loaded = Checkpoint.LoadModel(Write(model, 0));
        LayoutModels.AssertSame(model, loaded);
    }

    [Theory]
    [InlineData(0, 0, "dim = 0: ")]
    [InlineData(0, -24, "dim = -24: ")]
    [InlineData(0, int.MaxValue, "dim = 2147483647: ")]
    [InlineData(1, 0, "hidden_dim = 0: ")]
    [InlineData(1, 1 << 30, "hidden_dim = 1073741824: ")]
    [InlineData(2, 1_000_000, "n_layers = 1000000: ")]
    [InlineData(2, 3, "n_layers = 3")]
    [InlineData(3, 5, "dim = 24: does not divide among n_heads = 5")]
    [InlineData(4, 3, "n_heads = 4: does not divide among n_kv_heads = 3")]
    [InlineData(4, 1, "n_kv_heads = 1")]
    [InlineData(5, int.MinValue, "vocab_size = -2147483648: ")]
    [InlineData(5, 31, "vocab_size = 31")]
    [InlineData(6, -1, "seq_len = -1: ")]
    [InlineData(6, 0, "seq_len = 0: ")]
    public void A_number_that_does_not_fit_is_named(int index, int value, string problem)
    {
        using Decoder model = LayoutModels.New(LayoutModels.Llama2C, 23);
        string path = Write(model, 0);
        byte[] bytes = File.ReadAllBytes(path);
        BinaryPrimitives.WriteInt32LittleEndian(bytes.AsSpan(4 * index), value);
        File.WriteAllBytes(path, bytes);
        string message = Assert.Throws<InvalidDataException>(() => Checkpoint.LoadModel(path)).Message;
        Assert.StartsWith(path, message);
        Assert.Contains(problem, message);
    }

    [Fact]
    public void Quantised_and_unknown_versions_and_short_files_are_refused_with_a_cure()
    {
        using Decoder model = LayoutModels.New(LayoutModels.Llama2C, 24);
        string path = Write(model, 1);
        byte[] bytes = File.ReadAllBytes(path);
        AssertRefused(bytes[..^4], "take");
        AssertRefused(bytes[..100], "fewer than the header");
        AssertRefused([1, 2, 3], "fewer than the header");
        bytes[4] = 2;
        AssertRefused(bytes, "version = 2: its weights are quantised to 8 bits; export the model again");
        bytes[4] = 9;
        AssertRefused(bytes, "version = 9");
        (bytes[4], bytes[36]) = (1, 7);
        AssertRefused(bytes, "shared_classifier = 7");

        void AssertRefused(byte[] content, string reason)
        {
            File.WriteAllBytes(path, content);
            Assert.Contains(reason, Assert.Throws<InvalidDataException>(() => Checkpoint.LoadModel(path)).Message);
        }
    }

    [Fact]
    public void A_thousand_mutated_headers_end_with_an_error_or_a_load()
    {
        const int seed = 77;
        Random random = new(seed);
        using Decoder model = LayoutModels.New(LayoutModels.Llama2C, 25);
        byte[][] files = [File.ReadAllBytes(Write(model, 0)), File.ReadAllBytes(Write(model, 1))];
        int[] odd = [0, 1, -1, 2, 64, 512, 1 << 16, 1 << 20, 1 << 30, int.MaxValue, int.MinValue, 0x616b3432];
        string path = _folder["mutated.bin"];
        int loads = 0;
        for (int i = 0; i < 1000; i++)
        {
            byte[] bytes = [.. files[i % 2]];
            for (int n = random.Next(1, 4); n > 0; n--)
            {
                if (random.Next(3) == 0) bytes[random.Next(40)] ^= (byte)(1 << random.Next(8));
                else BinaryPrimitives.WriteInt32LittleEndian(bytes.AsSpan(4 * random.Next(10)), random.Next(2) == 0 ? odd[random.Next(odd.Length)] : random.Next(-100, 100));
            }
            if (random.Next(4) == 0) bytes = bytes[..random.Next(bytes.Length)];
            File.WriteAllBytes(path, bytes);
            try
            {
                using Decoder loaded = Checkpoint.LoadModel(path);
                Assert.True(4 * loaded.CountParameters() <= bytes.Length, $"mutation {i} of seed {seed} takes more memory than its file has");
                loads++;
            }
            catch (InvalidDataException e)
            {
                Assert.True(e.Message.StartsWith(path), $"mutation {i} of seed {seed}: {e.Message}");
            }
            catch (Exception e) when (e is not Xunit.Sdk.XunitException)
            {
                Assert.Fail($"mutation {i} of seed {seed}: {e}");
            }
        }
        Assert.NotEqual(0, loads);
    }

    private string Write(Decoder model, int version)
    {
        ModelConfig c = model.Config;
        Dictionary<string, Tensor> p = model.Parameters().ToDictionary(x => x.Name, x => x.Parameter);
        using MemoryStream stream = new();
        using BinaryWriter writer = new(stream);
        if (version == 1) foreach (int number in (int[])[0x616b3432, 1]) writer.Write(number);
        foreach (int number in (int[])[c.EmbeddingDimensions, c.HiddenSize, c.NumDecoderLayers, c.NumQHeads, c.NumKvHeads, version == 0 && !c.TiedHead ? -c.VocabularySize : c.VocabularySize, c.ContextLength])
            writer.Write(number);
        if (version == 1)
        {
            writer.Write((byte)(c.TiedHead ? 1 : 0));
            writer.Write(new byte[256 - stream.Length]);
        }
        string[] attention = ["stage1.q_proj", "stage1.k_proj", "stage1.v_proj", "stage1.out_proj"], mlp = ["stage2.linear1", "stage2.linear2", "stage2.linear3"];
        string[] names = version == 1
            ? ["norm1", "norm2", "token_classifier.norm.weight", "token_embeddings.weight", .. attention, .. mlp]
            : ["token_embeddings.weight", "norm1", .. attention, "norm2", .. mlp, "token_classifier.norm.weight", "angles"];
        foreach (string name in names)
        {
            if (name == "angles") writer.Write(new byte[4 * c.ContextLength * c.HeadDimensions]);
            else if (name.EndsWith(".weight")) Put(p[name]);
            else for (int i = 0; i < c.NumDecoderLayers; i++) Put(p[$"decoder.layers.{i}.{name}.weight"]);
        }
        if (!c.TiedHead) Put(p["token_classifier.linear.weight"]);
        string path = _folder["stories.bin"];
        File.WriteAllBytes(path, stream.ToArray());
        return path;

        void Put(Tensor tensor)
        {
            foreach (float value in tensor.detach().contiguous().data<float>()) writer.Write(value);
        }
    }

    private static byte[][] Pieces(string path, int count)
    {
        using BinaryReader reader = new(File.OpenRead(path));
        reader.ReadInt32();
        byte[][] pieces = new byte[count][];
        for (int i = 0; i < count; i++)
        {
            reader.ReadSingle();
            pieces[i] = reader.ReadBytes(reader.ReadInt32());
            string text = Encoding.UTF8.GetString(pieces[i]);
            if (text.Length == 6 && text.StartsWith("<0x")) pieces[i] = [Convert.ToByte(text[3..5], 16)];
        }
        return pieces;
    }
}
