using System.Text.Json.Nodes;
using NopeGpt.Model.Native;
using NopeGpt.Model.Storage;
using NopeGpt.Model.Storage.Layouts;
using NopeGpt.Tests;
using TorchSharp;
using static TorchSharp.torch;

namespace NopeGpt.Model.Tests;

/// <summary>What cannot be loaded, and what is said about it.</summary>
public sealed class LayoutRefusalTests : IDisposable
{
    private readonly TemporaryFolder _folder = new();
    private readonly DisposeScope _scope;

    public LayoutRefusalTests()
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
    [InlineData("gpt2", "activation_function", "\"relu\"", "is not GELU in its tanh form")]
    [InlineData("gpt2", "model_type", "\"bloom\"", "is another network")]
    [InlineData("gpt2", "architectures", "[\"GPT2ForSequenceClassification\"]", "is no language model")]
    [InlineData("gpt2", "scale_attn_by_inverse_layer_idx", "true", "scales the attention's scores")]
    [InlineData("gpt2", "add_cross_attention", "true", "attends to an encoder")]
    [InlineData("gpt2", "pruned_heads", "{\"0\": [1]}", "leaves out heads")]
    [InlineData("gpt2", "quantization_config", "{\"bits\": 4}", "has quantised weights")]
    [InlineData("gpt2", "n_head", "3", "n_embd = 16: does not divide among n_head = 3")]
    [InlineData("gpt2", "n_head", "\"4\"", "is not a whole number")]
    [InlineData("gpt2", "n_layer", "2.5", "is not a whole number")]
    [InlineData("gpt2", "n_layer", "1000000", "n_layer = 1000000: is out of range")]
    [InlineData("gpt2", "n_layer", "4000", "h.2.ln_1.weight is missing")]
    [InlineData("gpt2", "n_layer", "4096", " more; use the two files of one model")]
    [InlineData("gpt2", "n_layer", null, "n_layer = (absent): is missing")]
    [InlineData("gpt2", "n_ctx", "13", "n_ctx = 13: differs from n_positions = 12")]
    [InlineData("gpt2", "n_positions", "16777216", "n_ctx = 12: differs from n_positions = 16777216")]
    [InlineData("gpt2", "vocab_size", "16777216", "wte.weight has the shape [31, 16] in place of [16777216, 16]")]
    [InlineData("gpt2", "vocab_size", "99999999999", "vocab_size = 99999999999: is not a whole number of 32 bits")]
    [InlineData("gpt2", "n_inner", "65", "has the shape [16, 64] in place of [16, 65]")]
    [InlineData("gpt2", "embd_pdrop", "0.5", "embd_pdrop = 0.5: differs from resid_pdrop = 0")]
    [InlineData("gpt2", "attn_pdrop", "1.5", "attn_pdrop = 1.5: is not a probability")]
    [InlineData("gpt2", "layer_norm_epsilon", "0", "layer_norm_epsilon = 0: ")]
    [InlineData("gpt2", "rotary_dim", "8", "rotary_dim = 8: is unknown")]
    [InlineData("gpt2", "bias", "\"\\ud800\"", "is neither true nor false")]
    [InlineData("gpt2", "activation_function", "\"\\ud800\"", "is not valid text")]
    [InlineData("llama", "hidden_act", "\"gelu\"", "is not SiLU")]
    [InlineData("llama", "model_type", "\"mistral\"", "is another network")]
    [InlineData("llama", "rope_scaling", "{\"rope_type\": \"llama3\", \"factor\": 8.0}", "changes the rotary angles")]
    [InlineData("llama", "rope_scaling", "{\"type\": \"linear\", \"factor\": 2.0}", "changes the rotary angles")]
    [InlineData("llama", "rope_scaling", "\"linear\"", "is not an object")]
    [InlineData("llama", "rope_theta", "-1", "rope_theta = -1: ")]
    [InlineData("llama", "head_dim", "8", "head_dim = 8: differs from hidden_size / num_attention_heads = 6")]
    [InlineData("llama", "attention_bias", "false", "mlp_bias = true: stands alone")]
    [InlineData("llama", "mlp_bias", "false", "attention_bias = true: stands alone")]
    [InlineData("llama", "num_attention_heads", "0", "num_attention_heads = 0: ")]
    [InlineData("llama", "num_attention_heads", "8", "gives heads of the odd width 3")]
    [InlineData("llama", "num_key_value_heads", "3", "num_attention_heads = 4: does not divide among num_key_value_heads = 3")]
    [InlineData("llama", "num_key_value_heads", "1", "self_attn.k_proj.weight has the shape [12, 24] in place of [6, 24]")]
    [InlineData("llama", "intermediate_size", "0", "intermediate_size = 0: is not positive")]
    [InlineData("llama", "tie_word_embeddings", "true", "lm_head.weight differs from model.embed_tokens.weight")]
    [InlineData("llama", "num_hidden_layers", "1", "model.layers.1.self_attn.q_proj.weight is unknown")]
    [InlineData("llama", "sliding_window", "4096", "attends to a window only")]
    public void A_config_that_cannot_be_represented_is_refused_with_key_value_and_reason(string layout, string key, string? value, string problem)
    {
        (JsonObject config, List<(string Name, Tensor Tensor)> state) = Model(layout);
        config.Remove(key);
        LayoutModels.WriteFolder(Folder, config, state);
        string path = Path.Combine(Folder, "config.json"), text = File.ReadAllText(path);
        if (value is not null) File.WriteAllText(path, $"{{\"{key}\": {value}, {text.TrimStart()[1..]}");
        string message = Assert.Throws<InvalidDataException>(() => Checkpoint.LoadModel(Folder)).Message;
        Assert.StartsWith(Folder, message);
        Assert.Contains(problem, message);
    }

    [Fact]
    public void All_problems_of_a_config_are_named_at_once()
    {
        (JsonObject config, List<(string Name, Tensor Tensor)> state) = Model("llama");
        config["hidden_act"] = "gelu";
        config["num_hidden_layers"] = "two";
        config["surprise"] = 1;
        config.Remove("vocab_size");
        LayoutModels.WriteFolder(Folder, config, state);
        string message = Assert.Throws<InvalidDataException>(() => HubLayout.Recognise(Folder)).Message;
        foreach (string key in (string[])["hidden_act = \"gelu\"", "num_hidden_layers = \"two\"", "surprise = 1", "vocab_size = (absent)"]) Assert.Contains(key, message);
    }

    [Theory]
    [InlineData("")]
    [InlineData("[]")]
    [InlineData("{\"n_embd\": 16")]
    [InlineData("{\"n_embd\": 16, \"n_embd\": 16}")]
    [InlineData("{\"\\ud800\": 16}")]
    public void A_config_that_is_no_JSON_object_is_refused(string text)
    {
        (JsonObject config, List<(string Name, Tensor Tensor)> state) = Model("gpt2");
        LayoutModels.WriteFolder(Folder, config, state);
        File.WriteAllText(Path.Combine(Folder, "config.json"), text);
        Assert.StartsWith(Path.Combine(Folder, "config.json"), Assert.Throws<InvalidDataException>(() => Checkpoint.LoadModel(Folder)).Message);
    }

    [Theory]
    [InlineData("llama")]
    [InlineData("lil-lm")]
    public void A_model_whose_heads_no_shape_tells_needs_its_config(string layout)
    {
        LayoutModels.WriteFolder(Folder, null, Model(layout).State);
        string message = Assert.Throws<InvalidDataException>(() => Checkpoint.LoadModel(Folder)).Message;
        Assert.Contains(layout, message);
        Assert.Contains("no config.json lies beside it", message);
    }

    [Fact]
    public void Tensors_of_no_layout_are_refused_with_the_layouts_that_are_known()
    {
        LayoutModels.WriteFolder(Folder, new JsonObject { ["d_ff"] = 3 }, [("encoder.block.0.weight", ones(2))]);
        string message = Assert.Throws<InvalidDataException>(() => Checkpoint.LoadModel(Folder)).Message;
        Assert.Contains("encoder.block.0.weight", message);
        foreach (string layout in HubLayout.Names) Assert.Contains(layout, message);
    }

    [Theory]
    [InlineData("pytorch_model.bin", "PK\u0003\u0004archive/data.pkl")]
    [InlineData("model.pt", "\u0080\u0002}q\0.")]
    [InlineData("model.pth", "\u0080\u0002\u008a\nl\u00fc\u009cF\u00f9 j\u00a8P\u0019.")]
    [InlineData("last.ckpt", "\u0080\u0004\u0095\0\0")]
    [InlineData("model.safetensors", "PK\u0003\u0004archive/data.pkl")]
    [InlineData("model.anything", "\u0080\u0005\u0095\0\0")]
    [InlineData("old.pt", "cos\nsystem\n(S'true'\ntR.")]
    public void A_pickle_is_refused_with_the_line_that_converts_it(string name, string content)
    {
        Directory.CreateDirectory(Folder);
        string path = Path.Combine(Folder, name);
        File.WriteAllBytes(path, [.. content.Select(c => (byte)c)]);
        File.WriteAllText(Path.Combine(Folder, "config.json"), "{}");
        AssertConverts(path);
        if (!name.EndsWith(".anything")) AssertConverts(Folder);

        void AssertConverts(string asked)
        {
            string message = Assert.Throws<InvalidDataException>(() => Checkpoint.LoadModel(asked)).Message;
            Assert.StartsWith(path + ": this is a Python pickle, which can run code", message);
            Assert.Contains("save_file", message);
            Assert.Contains($"'{path}'", message);
            Assert.Equal(message, Assert.Throws<InvalidDataException>(() => HubLayout.Recognise(asked)).Message);
        }
    }

    [Fact]
    public void A_pickle_beside_safetensors_is_left_alone()
    {
        (JsonObject config, List<(string Name, Tensor Tensor)> state) = Model("gpt2");
        LayoutModels.WriteFolder(Folder, config, state);
        File.WriteAllText(Path.Combine(Folder, "pytorch_model.bin"), "PK\u0003\u0004");
        Checkpoint.LoadModel(Folder).Dispose();
    }

    [Fact]
    public void Folders_without_weights_or_with_several_are_refused()
    {
        Directory.CreateDirectory(Folder);
        Assert.Contains("no weights are there", Assert.Throws<InvalidDataException>(() => Checkpoint.LoadModel(Folder)).Message);
        foreach (string name in (string[])["one.safetensors", "two.safetensors"]) SafetensorsFile.Save(Path.Combine(Folder, name), [("a", ones(1))]);
        Assert.Contains("several files with weights (one.safetensors, two.safetensors)", Assert.Throws<InvalidDataException>(() => Checkpoint.LoadModel(Folder)).Message);
        File.WriteAllText(Path.Combine(Folder, "notes.txt"), "hello");
        Assert.Contains("no file of a model", Assert.Throws<InvalidDataException>(() => Checkpoint.LoadModel(Path.Combine(Folder, "notes.txt"))).Message);
    }

    [Fact]
    public void Five_thousand_mutated_configs_end_with_an_error_or_a_load()
    {
        const int seed = 78;
        Random random = new(seed);
        string[] layouts = ["nope-gpt", "gpt2", "lil-lm", "llama"];
        string[] texts = new string[layouts.Length];
        for (int i = 0; i < layouts.Length; i++)
        {
            using Decoder model = LayoutModels.New(LayoutModels.Of(layouts[i]), i);
            HubLayout.Export(model, layouts[i], _folder[layouts[i]]);
            texts[i] = File.ReadAllText(_folder[$"{layouts[i]}/config.json"]);
        }
        int loads = 0;
        for (int i = 0; i < 5000; i++)
        {
            int which = i % layouts.Length;
            string folder = _folder[layouts[which]], path = Path.Combine(folder, "config.json");
            File.WriteAllBytes(path, ConfigMutation.Of(texts[which], random));
            try
            {
                using Decoder loaded = Checkpoint.LoadModel(folder);
                Assert.True(4 * loaded.CountParameters() <= new FileInfo(Path.Combine(folder, "model.safetensors")).Length, $"mutation {i} of seed {seed} takes more memory than its file has");
                loads++;
            }
            catch (InvalidDataException e)
            {
                Assert.True(e.Message.StartsWith(folder), $"mutation {i} of seed {seed}: {e.Message}");
            }
            catch (Exception e) when (e is not Xunit.Sdk.XunitException)
            {
                Assert.Fail($"mutation {i} of seed {seed}, {File.ReadAllText(path)}: {e}");
            }
        }
        Assert.InRange(loads, 1, 4999);
    }

    private static (JsonObject Config, List<(string Name, Tensor Tensor)> State) Model(string layout)
    {
        using Decoder model = LayoutModels.New(LayoutModels.Of(layout), 31);
        return layout switch
        {
            "gpt2" => (LayoutModels.HuggingFaceGpt2Config(model.Config), [.. LayoutModels.HuggingFaceGpt2(model).Select(Copy)]),
            "llama" => (LayoutModels.HuggingFaceLlamaConfig(model.Config), [.. LayoutModels.HuggingFaceLlama(model).Select(Copy)]),
            _ => ([], [.. HubLayout.Tensors(Layout.All.Single(l => l.Name == layout), model.Config, model.Parameters()).Select(Copy)]),
        };

        static (string, Tensor) Copy((string Name, Tensor Tensor) t) => (t.Name, t.Tensor.clone());
    }
}
