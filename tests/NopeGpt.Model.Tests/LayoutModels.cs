using System.Text.Json.Nodes;
using NopeGpt.Model.Storage;
using NopeGpt.Model.Storage.Layouts;
using TorchSharp;
using static TorchSharp.torch;

namespace NopeGpt.Model.Tests;

/// <summary>Tiny models of every layout, and their files written the way other programs write them: by this code alone, index by index,
/// so that it can judge the product's.</summary>
internal static class LayoutModels
{
    public static readonly ModelConfig Nope = new() { VocabularySize = 31, EmbeddingDimensions = 16, NumQHeads = 4, NumKvHeads = 2, NumDecoderLayers = 2, HiddenRatio = 2 };

    public static readonly ModelConfig Gpt2 = new()
    {
        VocabularySize = 31, EmbeddingDimensions = 16, NumQHeads = 4, NumKvHeads = 4, NumDecoderLayers = 2, Positions = Positions.Learned, ContextLength = 12,
        Norm = Norm.LayerNorm, NormBias = true, NormEpsilon = 1e-5, Mlp = Mlp.Gelu, LinearBias = true,
    };

    public static readonly ModelConfig LilLm = new()
    {
        VocabularySize = 31, EmbeddingDimensions = 24, NumQHeads = 4, NumKvHeads = 2, NumDecoderLayers = 2, Positions = Positions.Rope, ContextLength = 12,
        NormEpsilon = 1e-6, Mlp = Mlp.Swiglu, HiddenMultipleOf = 5,
    };

    public static readonly ModelConfig Llama = LilLm with { HiddenMultipleOf = 0, HiddenSize = 20, TiedHead = false, RopeTheta = 5e5, LinearBias = true };

    public static readonly ModelConfig Llama2C = LilLm with { HiddenMultipleOf = 0, HiddenSize = 20, TiedHead = false, NormEpsilon = 1e-5 };

    public static ModelConfig Of(string layout) => layout switch
    {
        "nope-gpt" => Nope, "gpt2" => Gpt2, "lil-lm" => LilLm, "llama" => Llama, "llama2.c" => Llama2C, _ => throw new ArgumentOutOfRangeException(nameof(layout)),
    };

    /// <summary>Draws every parameter, the norms and biases too, which a new model has at 1 and 0.</summary>
    public static Decoder New(ModelConfig config, int seed)
    {
        Decoder model = new(config, (ulong)seed);
        using Generator generator = new((ulong)seed, CPU);
        using (no_grad())
            foreach ((_, Tensor parameter) in model.Parameters()) parameter.add_(randn(parameter.shape, generator: generator).mul_(0.1));
        return model;
    }

    public static void WriteFolder(string folder, JsonNode? config, IEnumerable<(string Name, Tensor Tensor)> tensors)
    {
        if (Directory.Exists(folder)) Directory.Delete(folder, recursive: true);
        Directory.CreateDirectory(folder);
        if (config is not null) File.WriteAllText(Path.Combine(folder, "config.json"), config.ToJsonString());
        SafetensorsFile.Save(Path.Combine(folder, "model.safetensors"), tensors, new Dictionary<string, string> { ["format"] = "pt" });
    }

    /// <summary>GPT-2's state as Hugging Face has it: the query, key and value projections side by side, every projection as [in, out].</summary>
    public static List<(string Name, Tensor Tensor)> HuggingFaceGpt2(Decoder model)
    {
        Dictionary<string, Tensor> p = model.Parameters().ToDictionary(x => x.Name, x => x.Parameter.detach());
        List<(string Name, Tensor Tensor)> tensors = [("transformer.wte.weight", p["token_embeddings.weight"]), ("transformer.wpe.weight", p["position_embeddings.weight"])];
        for (int i = 0; i < model.Config.NumDecoderLayers; i++)
        {
            string ours = $"decoder.layers.{i}.", theirs = $"transformer.h.{i}.";
            foreach ((string norm, string name) in ((string, string)[])[("norm1", "ln_1"), ("norm2", "ln_2")])
                foreach (string kind in (string[])["weight", "bias"]) tensors.Add(($"{theirs}{name}.{kind}", p[$"{ours}{norm}.{kind}"]));
            foreach ((string part, string name) in ((string, string)[])[("stage1.out_proj", "attn.c_proj"), ("stage2.linear1", "mlp.c_fc"), ("stage2.linear2", "mlp.c_proj")])
            {
                tensors.Add(($"{theirs}{name}.weight", p[$"{ours}{part}.weight"].T.contiguous()));
                tensors.Add(($"{theirs}{name}.bias", p[$"{ours}{part}.bias"]));
            }
            string[] qkv = [.. new[] { "q", "k", "v" }.Select(x => $"{ours}stage1.{x}_proj.")];
            tensors.Add(($"{theirs}attn.c_attn.weight", hstack([.. qkv.Select(x => p[x + "weight"].T)])));
            tensors.Add(($"{theirs}attn.c_attn.bias", hstack([.. qkv.Select(x => p[x + "bias"])])));
        }
        tensors.Add(("transformer.ln_f.weight", p["token_classifier.norm.weight"]));
        tensors.Add(("transformer.ln_f.bias", p["token_classifier.norm.bias"]));
        return tensors;
    }

    public static JsonObject HuggingFaceGpt2Config(ModelConfig c) => new()
    {
        ["model_type"] = "gpt2", ["architectures"] = new JsonArray("GPT2LMHeadModel"), ["activation_function"] = "gelu_new", ["n_embd"] = c.EmbeddingDimensions, ["n_layer"] = c.NumDecoderLayers,
        ["n_head"] = c.NumQHeads, ["n_positions"] = c.ContextLength, ["n_ctx"] = c.ContextLength, ["vocab_size"] = c.VocabularySize, ["layer_norm_epsilon"] = c.NormEpsilon,
        ["attn_pdrop"] = 0.0, ["resid_pdrop"] = 0.0, ["embd_pdrop"] = 0.0, ["initializer_range"] = 0.02, ["summary_type"] = "cls_index", ["bos_token_id"] = 30, ["eos_token_id"] = 30,
        ["task_specific_params"] = new JsonObject { ["text-generation"] = new JsonObject { ["do_sample"] = true, ["max_length"] = 50 } },
    };

    /// <summary>The names of OpenAI's variables for those of Hugging Face, and their convolutions' first dimension.</summary>
    public static List<(string Name, Tensor Tensor)> TensorFlowGpt2(IEnumerable<(string Name, Tensor Tensor)> huggingFace) =>
    [
        .. huggingFace.Select(t =>
        {
            string[] parts = t.Name["transformer.".Length..].Split('.');
            string last = parts[^1] == "bias" ? "/b" : parts[0] is "wte" or "wpe" ? "" : parts[^2].StartsWith("ln_", StringComparison.Ordinal) ? "/g" : "/w";
            string path = parts[0] == "h" ? $"h{parts[1]}/{string.Join('/', parts[2..^1])}" : string.Join('/', parts[..^1]);
            return ($"model/{path}{last}", last == "/w" ? t.Tensor.unsqueeze(0) : t.Tensor);
        }),
    ];

    /// <summary>Llama's state as Hugging Face has it: of each head's rows of queries and keys, first the even ones and then the odd ones.</summary>
    public static List<(string Name, Tensor Tensor)> HuggingFaceLlama(Decoder model)
    {
        ModelConfig c = model.Config;
        int width = c.EmbeddingDimensions / c.NumQHeads;
        List<(string Name, Tensor Tensor)> tensors = [];
        foreach ((string name, Tensor parameter) in model.Parameters())
        {
            string theirs = name.Replace("decoder.layers.", "model.layers.").Replace("token_embeddings", "model.embed_tokens").Replace("token_classifier.norm", "model.norm")
                .Replace("token_classifier.linear", "lm_head").Replace("stage1.out_proj", "self_attn.o_proj").Replace("stage1.", "self_attn.").Replace("norm1", "input_layernorm")
                .Replace("norm2", "post_attention_layernorm").Replace("stage2.linear1", "mlp.gate_proj").Replace("stage2.linear2", "mlp.down_proj").Replace("stage2.linear3", "mlp.up_proj");
            Tensor tensor = parameter.detach();
            if (name.Contains("q_proj") || name.Contains("k_proj"))
            {
                long[] rows = [.. Enumerable.Range(0, (int)tensor.shape[0]).Select(r => (long)((r / width * width) + (r % width < width / 2 ? 2 * (r % width) : (2 * (r % width)) - width + 1)))];
                tensor = tensor.index_select(0, torch.tensor(rows));
            }
            tensors.Add((theirs, tensor));
        }
        return tensors;
    }

    public static JsonObject HuggingFaceLlamaConfig(ModelConfig c) => new()
    {
        ["model_type"] = "llama", ["architectures"] = new JsonArray("LlamaForCausalLM"), ["hidden_act"] = "silu", ["hidden_size"] = c.EmbeddingDimensions, ["intermediate_size"] = c.HiddenDimensions,
        ["num_hidden_layers"] = c.NumDecoderLayers, ["num_attention_heads"] = c.NumQHeads, ["num_key_value_heads"] = c.NumKvHeads, ["vocab_size"] = c.VocabularySize, ["rms_norm_eps"] = c.NormEpsilon,
        ["rope_theta"] = c.RopeTheta, ["rope_scaling"] = null, ["tie_word_embeddings"] = c.TiedHead, ["max_position_embeddings"] = c.ContextLength, ["attention_bias"] = c.LinearBias,
        ["mlp_bias"] = c.LinearBias, ["bos_token_id"] = 1, ["eos_token_id"] = new JsonArray(2, 3), ["pretraining_tp"] = 1, ["use_cache"] = true, ["torch_dtype"] = "float32",
    };

    public static void AssertSame(Decoder expected, Decoder actual)
    {
        Assert.Equal(expected.Parameters().Select(p => p.Name), actual.Parameters().Select(p => p.Name));
        foreach (((string name, Tensor one), (_, Tensor other)) in expected.Parameters().Zip(actual.Parameters()))
            Assert.True(one.equal(other).all().item<bool>(), name);
    }
}
