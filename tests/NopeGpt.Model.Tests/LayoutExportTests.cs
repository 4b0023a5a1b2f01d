using System.Text.Json.Nodes;
using NopeGpt.Model.Native;
using NopeGpt.Model.Storage;
using NopeGpt.Model.Storage.Layouts;
using NopeGpt.Tests;
using TorchSharp;
using static TorchSharp.torch;

namespace NopeGpt.Model.Tests;

/// <summary>Models written for other programs.</summary>
public sealed class LayoutExportTests : IDisposable
{
    private readonly TemporaryFolder _folder = new();
    private readonly DisposeScope _scope;

    public LayoutExportTests()
    {
        TorchRuntime.Load();
        _scope = NewDisposeScope();
    }

    public static TheoryData<string> Layouts => [.. HubLayout.Names];

    private string Out => _folder["out"];

    public void Dispose()
    {
        _scope.Dispose();
        _folder.Dispose();
    }

    [Theory]
    [MemberData(nameof(Layouts))]
    public void What_is_exported_loads_as_the_same_model_bit_for_bit(string layout)
    {
        using Decoder model = LayoutModels.New(LayoutModels.Of(layout), 41);
        HubLayout.Export(model, layout, Out);
        RecognisedModel recognised = HubLayout.Recognise(Out);
        Assert.Equal(layout, recognised.Layout);
        using Decoder loaded = Checkpoint.LoadModel(Out);
        Assert.Equal(model.Config, loaded.Config);
        LayoutModels.AssertSame(model, loaded);
        HubLayout.Export(loaded, layout, _folder["again"]);
        foreach (string file in Directory.EnumerateFiles(Out)) Assert.Equal(File.ReadAllBytes(file), File.ReadAllBytes(_folder[$"again/{Path.GetFileName(file)}"]));
        Assert.Equal(["again", "out"], Directory.EnumerateFileSystemEntries(_folder.Path).Select(Path.GetFileName).Order());
    }

    [Fact]
    public void The_Python_package_finds_its_seven_keys_and_every_parameter_once()
    {
        using Decoder model = LayoutModels.New(LayoutModels.Nope with { VocabularyMultipleOf = 16, AttentionDropout = 0.1 }, 42);
        HubLayout.Export(model, "nope-gpt", Out);
        JsonObject config = JsonNode.Parse(File.ReadAllText(Path.Combine(Out, "config.json")))!.AsObject();
        Assert.Equal(["vocabulary_size", "embedding_dimensions", "num_q_heads", "num_kv_heads", "num_decoder_layers", "hidden_ratio", "dropout"], config.Select(p => p.Key));
        Assert.Equal([31, 16, 4, 2, 2, 2], config.Take(6).Select(p => (int)p.Value!));
        using SafetensorsFile file = SafetensorsFile.Open(Path.Combine(Out, "model.safetensors"));
        Assert.Equal("pt", file.Metadata["format"]);
        Assert.Equal(model.Parameters().Select(p => p.Name).Order(), file.Names.Order());
        // The padding would be drawn in Python.
        Assert.Equal([31, 16], file.Info("token_embeddings.weight").Shape);
        Assert.True(file.Load("token_embeddings.weight").equal(model.Parameters()[0].Parameter[..31]).all().item<bool>());
    }

    [Fact]
    public void GPT_2_is_written_with_the_names_and_the_orientation_of_Hugging_Face()
    {
        using Decoder model = LayoutModels.New(LayoutModels.Gpt2 with { ResidualDropout = 0.1, AttentionDropout = 0.2 }, 43);
        HubLayout.Export(model, "gpt2", Out, new ExportOptions { BeginningId = 30, EndOfTextId = 30 });
        AssertTensors(LayoutModels.HuggingFaceGpt2(model));
        JsonObject config = JsonNode.Parse(File.ReadAllText(Path.Combine(Out, "config.json")))!.AsObject();
        foreach ((string key, string value) in ((string, string)[])[("architectures", "[\"GPT2LMHeadModel\"]"), ("model_type", "\"gpt2\""), ("activation_function", "\"gelu_new\""),
            ("n_positions", "12"), ("n_embd", "16"), ("n_layer", "2"), ("n_head", "4"), ("vocab_size", "31"), ("layer_norm_epsilon", "1E-05"), ("n_inner", "null"), ("eos_token_id", "30"),
            ("resid_pdrop", "0.1"), ("embd_pdrop", "0.1"), ("attn_pdrop", "0.2"), ("tie_word_embeddings", "true"), ("torch_dtype", "\"float32\"")])
            Assert.Equal(value, config[key]?.ToJsonString() ?? "null");
        Assert.Equal(model.Config, HubLayout.Recognise(Out).Config);
    }

    [Fact]
    public void Llama_is_written_with_the_names_and_the_rotary_pairs_of_Hugging_Face()
    {
        using Decoder model = LayoutModels.New(LayoutModels.Llama, 44);
        HubLayout.Export(model, "llama", Out);
        AssertTensors(LayoutModels.HuggingFaceLlama(model));
        JsonObject config = JsonNode.Parse(File.ReadAllText(Path.Combine(Out, "config.json")))!.AsObject();
        foreach ((string key, JsonNode? value) in LayoutModels.HuggingFaceLlamaConfig(model.Config).Where(p => p.Key is not ("bos_token_id" or "eos_token_id" or "pretraining_tp" or "use_cache")))
            Assert.True(JsonNode.DeepEquals(value, config[key]), key);
    }

    [Theory]
    [InlineData(ScalarType.BFloat16, "bfloat16")]
    [InlineData(ScalarType.Float16, "float16")]
    public void Half_precision_halves_the_file(ScalarType type, string name)
    {
        using Decoder model = LayoutModels.New(LayoutModels.Llama, 45);
        HubLayout.Export(model, "llama", Out, new ExportOptions { Type = type });
        Assert.Equal(2 * model.CountParameters(), HubLayout.Recognise(Out).WeightBytes);
        Assert.Equal(name, (string)JsonNode.Parse(File.ReadAllText(Path.Combine(Out, "config.json")))!["torch_dtype"]!);
        using Decoder loaded = Checkpoint.LoadModel(Out);
        foreach (((string parameter, Tensor expected), (_, Tensor actual)) in model.Parameters().Zip(loaded.Parameters()))
            Assert.True(actual.equal(expected.to(type).to(ScalarType.Float32)).all().item<bool>(), parameter);
    }

    [Fact]
    public void Shards_are_no_larger_than_asked_and_load_as_the_same_model()
    {
        using Decoder model = LayoutModels.New(LayoutModels.Gpt2, 46);
        HubLayout.Export(model, "gpt2", Out, new ExportOptions { MaxShardBytes = 6000 });
        Assert.True(File.Exists(Path.Combine(Out, "model.safetensors.index.json")));
        RecognisedModel recognised = HubLayout.Recognise(Out);
        Assert.InRange(recognised.WeightFiles.Count, 4, 20);
        foreach (string path in recognised.WeightFiles)
        {
            using SafetensorsFile shard = SafetensorsFile.Open(path);
            Assert.InRange(shard.Names.Sum(n => shard.Info(n).Length), 1, 6000);
            Assert.Equal("pt", shard.Metadata["format"]);
        }
        using Decoder loaded = Checkpoint.LoadModel(Out);
        LayoutModels.AssertSame(model, loaded);
    }

    [Fact]
    public void Every_option_that_a_layout_cannot_express_is_named()
    {
        AssertObstacles(LayoutModels.Gpt2 with { TiedHead = false }, "nope-gpt", "positions = learned", "norm = layer_norm", "norm_epsilon = 1E-05", "mlp = gelu", "linear_bias = true", "tied_head = false");
        AssertObstacles(LayoutModels.Nope with { HiddenSize = 5 }, "nope-gpt", "hidden_size = 5");
        AssertObstacles(LayoutModels.LilLm, "gpt2", "positions = rope", "norm = rms_norm", "mlp = swiglu", "linear_bias = false", "num_kv_heads = 2");
        AssertObstacles(LayoutModels.Gpt2 with { NormBias = false }, "gpt2", "norm_bias = false");
        AssertObstacles(LayoutModels.Nope, "llama", "positions = none", "mlp = silu", "context_length = 0");
        AssertObstacles(LayoutModels.Llama, "lil-lm", "rope_theta = 500000", "linear_bias = true", "tied_head = false");
        AssertObstacles(LayoutModels.Llama, "llama2.c", "rope_theta = 500000", "linear_bias = true", "norm_epsilon = 1E-06");
        AssertObstacles(LayoutModels.Nope, "gguf", "nope-gpt, gpt2, lil-lm, llama, llama2.c");
        Assert.False(Directory.Exists(Out));
    }

    [Fact]
    public void A_folder_with_files_and_a_failure_leave_everything_as_it_was()
    {
        using Decoder model = LayoutModels.New(LayoutModels.Nope, 47);
        Directory.CreateDirectory(Out);
        File.WriteAllText(Path.Combine(Out, "notes.txt"), "mine");
        Assert.Contains(Out, Assert.Throws<IOException>(() => HubLayout.Export(model, "nope-gpt", Out)).Message);
        Assert.Equal("mine", File.ReadAllText(Path.Combine(Out, "notes.txt")));
        Assert.Throws<IOException>(() => HubLayout.Export(model, "nope-gpt", _folder["new"], new ExportOptions { AddFiles = _ => throw new IOException("full") }));
        Assert.Throws<ArgumentException>(() => HubLayout.Export(model, "nope-gpt", _folder["new"], new ExportOptions { MaxShardBytes = 0 }));
        Assert.Throws<ArgumentException>(() => HubLayout.Export(model, "nope-gpt", _folder["new"], new ExportOptions { Type = ScalarType.Int8 }));
        Assert.Throws<ArgumentException>(() => HubLayout.Export(model, "nope-gpt", _folder["new"], new ExportOptions { EndOfTextId = 31 }));
        Assert.Equal(["out"], Directory.EnumerateFileSystemEntries(_folder.Path).Select(Path.GetFileName));
        HubLayout.Export(model, "nope-gpt", _folder["new"], new ExportOptions { AddFiles = aside => File.WriteAllText(Path.Combine(aside, "tokenizer.json"), "{}") });
        Assert.Equal(["config.json", "model.safetensors", "tokenizer.json"], Directory.EnumerateFiles(_folder["new"]).Select(Path.GetFileName).Order());
    }

    private void AssertObstacles(ModelConfig config, string layout, params string[] options)
    {
        using Decoder model = new(config, 1);
        string message = Assert.Throws<ArgumentException>(() => HubLayout.Export(model, layout, Out)).Message;
        foreach (string option in options) Assert.Contains(option, message);
    }

    private void AssertTensors(IReadOnlyList<(string Name, Tensor Tensor)> expected)
    {
        using SafetensorsFile file = SafetensorsFile.Open(Path.Combine(Out, "model.safetensors"));
        Assert.Equal("pt", file.Metadata["format"]);
        Assert.Equal(expected.Select(t => t.Name).Order(), file.Names.Order());
        foreach ((string name, Tensor tensor) in expected)
        {
            Tensor written = file.Load(name);
            Assert.Equal(tensor.shape, written.shape);
            Assert.True(written.equal(tensor).all().item<bool>(), name);
        }
    }
}
