using System.Text.Json.Nodes;
using NopeGpt.Model.Native;
using NopeGpt.Model.Storage;
using NopeGpt.Model.Storage.Layouts;
using NopeGpt.Tests;
using TorchSharp;
using static TorchSharp.torch;

namespace NopeGpt.Model.Tests;

/// <summary>Models that other programs have written.</summary>
public sealed class LayoutTests : IDisposable
{
    private readonly TemporaryFolder _folder = new();
    private readonly DisposeScope _scope;

    public LayoutTests()
    {
        TorchRuntime.Load();
        _scope = NewDisposeScope();
    }

    private string Folder => _folder["model"];

    public void Dispose()
    {
        _scope.Dispose();
        _folder.Dispose();
    }

    [Theory]
    [InlineData("")]
    [InlineData("without transformer.")]
    [InlineData("without a language model's head's prefix, in DataParallel and torch.compile")]
    [InlineData("with masks")]
    [InlineData("with an equal head")]
    [InlineData("with the head alone")]
    [InlineData("as the reference systems have it")]
    [InlineData("as TensorFlow has it")]
    [InlineData("as TensorFlow has it, with hparams.json")]
    public void Every_form_of_GPT_2_is_the_same_model(string form)
    {
        using Decoder model = LayoutModels.New(LayoutModels.Gpt2, 3);
        List<(string Name, Tensor Tensor)> state = LayoutModels.HuggingFaceGpt2(model);
        JsonObject config = LayoutModels.HuggingFaceGpt2Config(model.Config);
        Tensor embedding = model.Parameters()[0].Parameter;
        switch (form)
        {
            case "without transformer.": state = Renamed(n => n["transformer.".Length..]); break;
            case "without a language model's head's prefix, in DataParallel and torch.compile": state = Renamed(n => "module._orig_mod." + n); break;
            case "with masks":
                state.Add(("transformer.h.0.attn.bias", ones(12, 12, ScalarType.Bool).view(1, 1, 12, 12)));
                state.Add(("transformer.h.1.attn.masked_bias", tensor(-1e4f)));
                break;
            case "with an equal head": state.Add(("lm_head.weight", embedding)); break;
            case "with the head alone": state = Renamed(n => n == "transformer.wte.weight" ? "lm_head.weight" : n); break;
            case "as the reference systems have it":
                state = [.. state.Select(t => (t.Name, t.Tensor.dim() == 2 && t.Name.Contains(".c_") ? t.Tensor.T : t.Tensor))];
                config = new() { ["block_size"] = 12, ["vocab_size"] = 31, ["n_layer"] = 2, ["n_head"] = 4, ["n_embd"] = 16 };
                break;
            case "as TensorFlow has it": state = LayoutModels.TensorFlowGpt2(state); break;
            case "as TensorFlow has it, with hparams.json":
                state = LayoutModels.TensorFlowGpt2(state);
                config = new() { ["n_vocab"] = 31, ["n_ctx"] = 12, ["n_embd"] = 16, ["n_head"] = 4, ["n_layer"] = 2 };
                break;
        }
        LayoutModels.WriteFolder(Folder, config, state);
        if (config.ContainsKey("n_vocab")) File.Move(Path.Combine(Folder, "config.json"), Path.Combine(Folder, "hparams.json"));
        using Decoder loaded = Checkpoint.LoadModel(Folder);
        Assert.Equal(model.Config, loaded.Config);
        LayoutModels.AssertSame(model, loaded);

        List<(string, Tensor)> Renamed(Func<string, string> rename) => [.. state.Select(t => (rename(t.Name), t.Tensor))];
    }

    [Fact]
    public void A_GPT_2_without_config_has_heads_of_64()
    {
        ModelConfig config = LayoutModels.Gpt2 with { EmbeddingDimensions = 128, NumQHeads = 2, NumKvHeads = 2 };
        using Decoder model = LayoutModels.New(config, 4);
        LayoutModels.WriteFolder(Folder, null, LayoutModels.TensorFlowGpt2(LayoutModels.HuggingFaceGpt2(model)));
        using Decoder loaded = Checkpoint.LoadModel(Folder);
        Assert.Equal(config, loaded.Config);
        LayoutModels.AssertSame(model, loaded);

        using Decoder narrow = LayoutModels.New(LayoutModels.Gpt2, 4);
        LayoutModels.WriteFolder(Folder, null, LayoutModels.HuggingFaceGpt2(narrow));
        Assert.Contains("no config.json", Refused());
    }

    [NeedsTheory(Needs.SharedData)]
    [InlineData("hugging face")]
    [InlineData("tensorflow")]
    public void The_references_GPT_2_has_the_same_logits_in_other_forms(string form)
    {
        string folder = Needs.Data("parity/gpt2");
        using Decoder model = Checkpoint.LoadModel(folder);
        List<(string Name, Tensor Tensor)> state = LayoutModels.HuggingFaceGpt2(model);
        LayoutModels.WriteFolder(Folder, LayoutModels.HuggingFaceGpt2Config(model.Config), form == "tensorflow" ? LayoutModels.TensorFlowGpt2(state) : state);
        AssertLogits(folder);
    }

    [NeedsFact(Needs.SharedData)]
    public void The_references_lilLM_has_the_same_logits_under_Llamas_names()
    {
        string folder = Needs.Data("parity/lil-lm");
        using Decoder model = Checkpoint.LoadModel(folder);
        LayoutModels.WriteFolder(Folder, LayoutModels.HuggingFaceLlamaConfig(model.Config), LayoutModels.HuggingFaceLlama(model));
        AssertLogits(folder);
    }

    [Theory]
    [InlineData("")]
    [InlineData("tables of angles")]
    [InlineData("the body alone")]
    [InlineData("rope_parameters")]
    public void Every_form_of_Llama_is_the_same_model(string form)
    {
        using Decoder model = LayoutModels.New(LayoutModels.Llama with { TiedHead = form == "the body alone" }, 5);
        List<(string Name, Tensor Tensor)> state = LayoutModels.HuggingFaceLlama(model);
        JsonObject config = LayoutModels.HuggingFaceLlamaConfig(model.Config);
        if (form == "tables of angles") state.Add(("model.layers.0.self_attn.rotary_emb.inv_freq", ones(3)));
        if (form == "the body alone") state = [.. state.Select(t => (t.Name["model.".Length..], t.Tensor))];
        if (form == "rope_parameters")
        {
            config.Remove("rope_theta");
            config.Remove("rope_scaling");
            config["rope_parameters"] = new JsonObject { ["rope_theta"] = model.Config.RopeTheta, ["rope_type"] = "default" };
        }
        LayoutModels.WriteFolder(Folder, config, state);
        using Decoder loaded = Checkpoint.LoadModel(Folder);
        Assert.Equal(model.Config, loaded.Config);
        LayoutModels.AssertSame(model, loaded);
        Assert.Equal("llama", HubLayout.Recognise(Folder).Layout);
    }

    [Fact]
    public void A_head_that_safetensors_kept_for_the_embedding_is_the_embedding()
    {
        using Decoder model = LayoutModels.New(LayoutModels.Nope, 6);
        Directory.CreateDirectory(Folder);
        model.Config.Write(Path.Combine(Folder, "config.json"));
        SafetensorsFile.Save(
            Path.Combine(Folder, "model.safetensors"),
            model.Parameters().Select(p => (p.Name.Replace("token_embeddings.weight", "token_classifier.linear.weight"), p.Parameter)),
            new Dictionary<string, string> { ["format"] = "pt", ["token_embeddings.weight"] = "token_classifier.linear.weight" });
        using Decoder loaded = Checkpoint.LoadModel(Folder);
        LayoutModels.AssertSame(model, loaded);
    }

    [Fact]
    public void A_head_that_is_not_the_embedding_is_refused_where_it_is_tied()
    {
        using Decoder model = LayoutModels.New(LayoutModels.Gpt2, 7);
        List<(string Name, Tensor Tensor)> state = [.. LayoutModels.HuggingFaceGpt2(model), ("lm_head.weight", model.Parameters()[0].Parameter + 1)];
        JsonObject config = LayoutModels.HuggingFaceGpt2Config(model.Config);
        LayoutModels.WriteFolder(Folder, config, state);
        Assert.Contains("lm_head.weight differs from transformer.wte.weight", Refused());

        config["tie_word_embeddings"] = false;
        LayoutModels.WriteFolder(Folder, config, state);
        using Decoder loaded = Checkpoint.LoadModel(Folder);
        Assert.False(loaded.Config.TiedHead);
        Assert.True(loaded.Parameters().Single(p => p.Name == "token_classifier.linear.weight").Parameter.equal(state[^1].Tensor).all().item<bool>());
    }

    [Theory]
    [InlineData(ScalarType.BFloat16)]
    [InlineData(ScalarType.Float16)]
    [InlineData(ScalarType.Float64)]
    public void Other_widths_of_floating_point_become_float32(ScalarType type)
    {
        using Decoder model = LayoutModels.New(LayoutModels.Gpt2, 8);
        LayoutModels.WriteFolder(Folder, LayoutModels.HuggingFaceGpt2Config(model.Config), LayoutModels.HuggingFaceGpt2(model).Select(t => (t.Name, t.Tensor.to(type))));
        using Decoder loaded = Checkpoint.LoadModel(Folder);
        foreach (((string name, Tensor expected), (_, Tensor actual)) in model.Parameters().Zip(loaded.Parameters()))
        {
            Assert.Equal(ScalarType.Float32, actual.dtype);
            Assert.True(actual.equal(expected.to(type).to(ScalarType.Float32)).all().item<bool>(), name);
        }
    }

    [Fact]
    public void Shards_with_their_index_and_single_files_load()
    {
        using Decoder model = LayoutModels.New(LayoutModels.Gpt2, 9);
        List<(string Name, Tensor Tensor)> state = LayoutModels.HuggingFaceGpt2(model);
        Directory.CreateDirectory(Folder);
        File.WriteAllText(Path.Combine(Folder, "config.json"), LayoutModels.HuggingFaceGpt2Config(model.Config).ToJsonString());
        JsonObject map = [];
        for (int i = 0; i < 2; i++)
        {
            string name = $"model-0000{i + 1}-of-00002.safetensors";
            (string Name, Tensor Tensor)[] part = [.. state.Where((_, index) => index % 2 == i)];
            SafetensorsFile.Save(Path.Combine(Folder, name), part);
            foreach ((string tensor, _) in part) map[tensor] = name;
        }
        Assert.Contains("several files with weights (model-00001-of-00002.safetensors, model-00002-of-00002.safetensors)", Refused());
        File.WriteAllText(Path.Combine(Folder, "model.safetensors.index.json"), new JsonObject { ["metadata"] = new JsonObject { ["total_size"] = 1 }, ["weight_map"] = map }.ToJsonString());
        foreach (string path in (string[])[Folder, Path.Combine(Folder, "model.safetensors.index.json")])
        {
            using Decoder loaded = Checkpoint.LoadModel(path);
            LayoutModels.AssertSame(model, loaded);
        }
        RecognisedModel recognised = HubLayout.Recognise(Folder);
        Assert.Equal(2, recognised.WeightFiles.Count);
        Assert.Equal(4 * model.CountParameters(), recognised.WeightBytes);
        Assert.Equal(Path.Combine(Folder, "config.json"), recognised.ConfigPath);

        string single = Path.Combine(Folder, "tiny.safetensors");
        SafetensorsFile.Save(single, state);
        using Decoder alone = Checkpoint.LoadModel(single);
        LayoutModels.AssertSame(model, alone);
    }

    [Fact]
    public void Everything_that_does_not_fit_is_named_under_the_files_own_names()
    {
        using Decoder model = LayoutModels.New(LayoutModels.Gpt2, 10);
        List<(string Name, Tensor Tensor)> state = LayoutModels.HuggingFaceGpt2(model);
        state.RemoveAll(t => t.Name is "transformer.h.1.ln_1.bias" or "transformer.h.0.mlp.c_fc.weight");
        int attention = state.FindIndex(t => t.Name == "transformer.h.1.attn.c_attn.weight");
        state[attention] = (state[attention].Name, ones(16, 47));
        int norm = state.FindIndex(t => t.Name == "transformer.ln_f.weight");
        state[norm] = (state[norm].Name, ones(16, ScalarType.Int64));
        state.Add(("transformer.h.2.ln_1.weight", ones(16)));
        LayoutModels.WriteFolder(Folder, LayoutModels.HuggingFaceGpt2Config(model.Config), state);
        string message = Refused();
        Assert.StartsWith(Path.Combine(Folder, "model.safetensors"), message);
        Assert.Contains("h.1.ln_1.bias is missing", message);
        Assert.Contains("h.0.mlp.c_fc.weight is missing", message);
        Assert.Contains("transformer.h.1.attn.c_attn.weight has the shape [16, 47] in place of [16, 48]", message);
        Assert.Contains("transformer.ln_f.weight is I64", message);
        Assert.Contains("transformer.h.2.ln_1.weight is unknown", message);
    }

    [Fact]
    public void A_tensor_under_two_prefixes_is_refused()
    {
        using Decoder model = LayoutModels.New(LayoutModels.Gpt2, 11);
        LayoutModels.WriteFolder(Folder, LayoutModels.HuggingFaceGpt2Config(model.Config), [.. LayoutModels.HuggingFaceGpt2(model), ("wte.weight", ones(31, 16))]);
        Assert.Contains("is the same parameter as", Refused());
    }

    [Theory]
    [InlineData(true)]
    [InlineData(false)]
    public void Loading_leaves_no_tensors_behind(bool fits)
    {
        using Decoder model = LayoutModels.New(LayoutModels.Gpt2, 12);
        JsonObject config = LayoutModels.HuggingFaceGpt2Config(model.Config);
        if (!fits) config["n_layer"] = 1_000_000;
        LayoutModels.WriteFolder(Folder, config, [.. LayoutModels.HuggingFaceGpt2(model), ("lm_head.weight", model.Parameters()[0].Parameter)]);
        using DisposeScope inner = NewDisposeScope();
        if (fits) Checkpoint.LoadModel(Folder).Dispose();
        else Assert.Throws<InvalidDataException>(() => Checkpoint.LoadModel(Folder));
        Assert.Equal(0, inner.DisposablesCount);
    }

    private string Refused()
    {
        string message = Assert.Throws<InvalidDataException>(() => Checkpoint.LoadModel(Folder)).Message;
        Assert.Equal(message, Assert.Throws<InvalidDataException>(() => { HubLayout.Recognise(Folder); using Decoder _ = Checkpoint.LoadModel(Folder); }).Message);
        return message;
    }

    private void AssertLogits(string parityFolder)
    {
        using Decoder loaded = Checkpoint.LoadModel(Folder);
        using SafetensorsFile file = SafetensorsFile.Open(Path.Combine(parityFolder, "expected.safetensors"));
        long[][] rows = [.. JsonNode.Parse(File.ReadAllText(Path.Combine(parityFolder, "batch.json")))!["tokens"]!.AsArray().Select(r => r!.AsArray().Select(id => (long)id!).ToArray())];
        Tensor tokens_BT = tensor([.. rows.SelectMany(r => r)], [rows.Length, rows[0].Length], ScalarType.Int64);
        Assert.InRange(loaded.Forward(tokens_BT).sub(file.Load("logits")).abs().max().item<float>(), 0, 1e-4f);
    }
}
