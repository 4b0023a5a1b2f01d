using System.Text.Json.Nodes;
using NopeGpt.Model.Native;
using NopeGpt.Model.Storage;
using NopeGpt.Tests;
using TorchSharp;
using static TorchSharp.torch;

namespace NopeGpt.Model.Tests;

/// <summary>Adapters on disk: our own, and those of Hugging Face's PEFT.</summary>
public sealed class AdapterFileTests : IDisposable
{
    private static readonly ModelConfig Tiny = new() { VocabularySize = 61, EmbeddingDimensions = 48, NumQHeads = 6, NumKvHeads = 2, NumDecoderLayers = 2 };

    private readonly TemporaryFolder _folder = new();
    private readonly DisposeScope _scope;

    public AdapterFileTests()
    {
        TorchRuntime.Load();
        _scope = NewDisposeScope();
    }

    public void Dispose()
    {
        _scope.Dispose();
        _folder.Dispose();
    }

    [Theory]
    [InlineData(true, 0, 0, false)]
    [InlineData(true, 32, 4, false)]
    [InlineData(false, 32, 4, true)]
    [InlineData(false, 0, 0, true)]
    public void An_adapter_is_read_as_it_was_written(bool tied, int multiple, int grown, bool frozen)
    {
        using Decoder model = new(Tiny with { TiedHead = tied, VocabularyMultipleOf = multiple }, 1);
        LoraConfig config = new() { Rank = 3, Alpha = 0.3, Dropout = 0.05, Projections = Projections.QProj | Projections.Linear2, FreezeTokenEmbeddings = frozen };
        using Adapter written = LoraTests.Drawn(model, config, 2, 61 + grown);
        written.Save(_folder["a"]);
        written.Save(_folder["a"]);
        Assert.Equal(["adapter.json", "adapter.safetensors"], Directory.EnumerateFileSystemEntries(_folder["a"]).Select(Path.GetFileName).Order());
        Assert.Equal([_folder["a"]], Directory.EnumerateFileSystemEntries(_folder.Path));
        using Adapter read = Adapter.Load(_folder["a"], model);
        Assert.Equal(config, read.Config);
        Assert.Equal(61 + grown, read.VocabularySize);
        Assert.Equal(written.Tensors().Select(t => t.Name), read.Tensors().Select(t => t.Name));
        foreach (((string name, Tensor expected), (_, Tensor actual)) in written.Tensors().Zip(read.Tensors()))
        {
            // The vocabulary's padding, drawn too by the test, is not in the file and comes back as zeros.
            long rows = name is Adapter.EmbeddingName or Adapter.HeadName ? written.VocabularySize : expected.shape[0];
            Assert.True(expected.narrow(0, 0, rows).equal(actual.narrow(0, 0, rows)).all().item<bool>(), name);
            Assert.Equal(0, actual.narrow(0, rows, actual.shape[0] - rows).count_nonzero().item<long>());
            Assert.Equal(expected.requires_grad, actual.requires_grad);
        }
    }

    [Fact]
    public void Adapter_json_tells_all_settings_and_the_base()
    {
        using Decoder model = new(Tiny, 1);
        using Adapter adapter = LoraTests.Drawn(model, new(), 2, 65);
        adapter.Save(_folder["a"]);
        JsonNode json = JsonNode.Parse(File.ReadAllText(_folder["a/adapter.json"]))!;
        Assert.Equal(
            """{"format_version":1,"rank":8,"alpha":2,"dropout":0,"projections":["q_proj","k_proj","v_proj","out_proj","linear1","linear2"],"freeze_token_embeddings":false,"vocabulary_size":65}""",
            new JsonObject(json.AsObject().Where(p => p.Key is not ("base" or "hashes")).Select(p => KeyValuePair.Create(p.Key, p.Value?.DeepClone()))).ToJsonString());
        Assert.Equal(model.WeightsHash(), (string?)json["base"]!["sha256"]);
        Assert.Equal(61, (int)json["base"]!["config"]!["vocabulary_size"]!);
    }

    [Fact]
    public void On_another_base_an_adapter_is_refused_with_both_hashes()
    {
        using Decoder model = new(Tiny, 1), other = new(Tiny, 2), deeper = new(Tiny with { NumDecoderLayers = 3 }, 1);
        using Adapter adapter = LoraTests.Drawn(model, new(), 2);
        adapter.Save(_folder["a"]);
        string message = Assert.Throws<InvalidDataException>(() => Adapter.Load(_folder["a"], other)).Message;
        Assert.Contains(model.WeightsHash(), message);
        Assert.Contains(other.WeightsHash(), message);
        Assert.Contains("num_decoder_layers 2 in place of 3", Assert.Throws<InvalidDataException>(() => Adapter.Load(_folder["a"], deeper)).Message);
        model.ResizeVocabulary(62, 1);
        Assert.Contains("vocabulary_size 61 in place of 62", Assert.Throws<InvalidDataException>(() => Adapter.Load(_folder["a"], model)).Message);
    }

    [Theory]
    [InlineData("rank", "0", "rank = 0")]
    [InlineData("rank", "65536", "decoder.layers.0.stage1.q_proj.lora_a has the shape [8, 48] in place of [65536, 48]")]
    [InlineData("rank", "\"8\"", "rank")]
    [InlineData("alpha", "-1", "alpha = -1")]
    [InlineData("dropout", "1.5", "dropout = 1.5")]
    [InlineData("projections", "[]", "projections")]
    [InlineData("projections", "[\"q_proj\",\"head\"]", "projections must be a list of q_proj")]
    [InlineData("projections", "[\"q_proj\",\"linear3\"]", "linear3")]
    [InlineData("projections", "[\"q_proj\"]", "stage1.k_proj.lora_a is unknown")]
    [InlineData("freeze_token_embeddings", "null", "lacks freeze_token_embeddings")]
    [InlineData("vocabulary_size", "60", "vocabulary_size = 60")]
    [InlineData("vocabulary_size", "64", "token_embeddings.weight has the shape [61, 48] in place of [64, 48]")]
    [InlineData("vocabulary_size", "1e30", "vocabulary_size = 1e30: must be a whole number")]
    [InlineData("format_version", "2", "newer")]
    [InlineData("base", "7", "base = 7: must be an object")]
    [InlineData("hashes", "{\"adapter.safetensors\":\"00\"}", "SHA-256")]
    public void A_changed_setting_is_named(string key, string value, string expected)
    {
        using Decoder model = new(Tiny, 1);
        using Adapter adapter = LoraTests.Drawn(model, new(), 2);
        adapter.Save(_folder["a"]);
        JsonNode json = JsonNode.Parse(File.ReadAllText(_folder["a/adapter.json"]))!;
        json[key] = JsonNode.Parse(value);
        File.WriteAllText(_folder["a/adapter.json"], json.ToJsonString());
        string message = Assert.Throws<InvalidDataException>(() => Adapter.Load(_folder["a"], model)).Message;
        Assert.Contains(expected, message);
        Assert.StartsWith(_folder["a/adapter."], message);
    }

    [Fact]
    public void A_missing_or_damaged_file_is_named()
    {
        using Decoder model = new(Tiny, 1);
        using Adapter adapter = LoraTests.Drawn(model, new(), 2);
        adapter.Save(_folder["a"]);
        Assert.Contains("no such adapter", Refused("nothing"));
        Directory.CreateDirectory(_folder["empty"]);
        Assert.Contains("adapter_config.json", Refused("empty"));

        byte[] tensors = File.ReadAllBytes(_folder["a/adapter.safetensors"]);
        tensors[^1] ^= 1;
        File.WriteAllBytes(_folder["a/adapter.safetensors"], tensors);
        Assert.Contains("SHA-256", Refused("a"));
        File.WriteAllBytes(_folder["a/adapter.safetensors"], tensors[..^1]);
        Assert.Contains("adapter.safetensors", Refused("a"));
        File.Delete(_folder["a/adapter.safetensors"]);
        Assert.Contains("adapter.safetensors", Refused("a"));
        File.WriteAllText(_folder["a/adapter.json"], "{");
        Assert.Contains("not valid JSON", Refused("a"));
        File.WriteAllText(_folder["a/adapter.json"], "[]");
        Assert.Contains("not a JSON object", Refused("a"));
        File.WriteAllText(_folder["a/adapter.json"], """{"rank":1,"rank":2}""");
        Assert.Contains("rank", Refused("a"));

        string Refused(string folder) => Assert.Throws<InvalidDataException>(() => Adapter.Load(_folder[folder], model)).Message;
    }

    [Fact]
    public void A_folder_with_other_files_is_never_replaced()
    {
        using Decoder model = new(Tiny, 1);
        using Adapter adapter = LoraTests.Drawn(model, new(), 2);
        Directory.CreateDirectory(_folder["a"]);
        File.WriteAllText(_folder["a/thesis.txt"], "years");
        Assert.Contains("thesis.txt", Assert.Throws<IOException>(() => adapter.Save(_folder["a"])).Message);
        Assert.Equal("years", File.ReadAllText(_folder["a/thesis.txt"]));
    }

    [Fact]
    public void Mutated_files_are_loaded_or_refused_and_never_more()
    {
        using Decoder model = new(Tiny, 1);
        using Adapter adapter = LoraTests.Drawn(model, new() { Rank = 1, Projections = Projections.KProj, FreezeTokenEmbeddings = true }, 2);
        adapter.Save(_folder["a"]);
        byte[] whole = File.ReadAllBytes(_folder["a/adapter.json"]);
        int seed = Random.Shared.Next(), refused = 0;
        Random random = new(seed);
        long before = DisposeScopeManager.Statistics.ThreadTotalLiveCount;
        for (int i = 0; i < 200; i++)
        {
            byte[] mutated = [.. whole];
            for (int changes = random.Next(1, 4); changes > 0; changes--) mutated[random.Next(mutated.Length)] = (byte)(random.Next(2) == 0 ? random.Next(256) : "0123456789{}[]\",:-e"[random.Next(19)]);
            File.WriteAllBytes(_folder["a/adapter.json"], mutated);
            try
            {
                Adapter.Load(_folder["a"], model).Dispose();
            }
            catch (InvalidDataException)
            {
                refused++;
            }
            catch (Exception e)
            {
                Assert.Fail($"seed {seed}, mutation {i}: {e}");
            }
        }
        Assert.InRange(refused, 1, 200);
        Assert.Equal(before, DisposeScopeManager.Statistics.ThreadTotalLiveCount);
    }

    [Fact]
    public void Pefts_adapter_of_a_Llama_shaped_model_is_read()
    {
        using Decoder model = new(ModelPresets.Find("lil-lm-tiny").Config, 1);
        using Adapter expected = LoraTests.Drawn(model, new() { Rank = 4, Alpha = 8.0 / 4, Dropout = 0.1, FreezeTokenEmbeddings = true }, 2);
        Dictionary<string, string> names = new()
        {
            ["stage1.q_proj"] = "self_attn.q_proj", ["stage1.k_proj"] = "self_attn.k_proj", ["stage1.v_proj"] = "self_attn.v_proj", ["stage1.out_proj"] = "self_attn.o_proj",
            ["stage2.linear1"] = "mlp.gate_proj", ["stage2.linear2"] = "mlp.down_proj", ["stage2.linear3"] = "mlp.up_proj",
        };
        int half = model.Config.HeadDimensions / 2;
        Save("llama", """{"peft_type":"LORA","r":4,"lora_alpha":8,"lora_dropout":0.1,"bias":"none","target_modules":["q_proj"],"use_dora":false,"rank_pattern":{}}""", expected.Products.SelectMany(p =>
        {
            string name = $"base_model.model.model.layers.{p.Target.Layer}.{names[string.Join('.', p.Target.Name.Split('.')[^2..])]}";
            // Channel 2i of a head is i in Llama's files, and 2i + 1 is i + D/2.
            Tensor b = p.Target.Projection is Projections.QProj or Projections.KProj ? p.B_or.view(-1, half, 2, 4).transpose(1, 2).reshape(-1, 4) : p.B_or;
            return ((string, Tensor)[])[(name + ".lora_A.weight", p.A_ri), (name + ".lora_B.weight", b)];
        }));
        using Adapter read = Adapter.Load(_folder["llama"], model);
        Assert.Equal(0.1, read.Config.Dropout);
        AssertSameProducts(model, expected, read);
    }

    [Fact]
    public void Pefts_adapter_of_GPT_2_is_read_with_its_fused_projections()
    {
        using Decoder model = new(ModelPresets.Find("gpt2-tiny").Config, 1);
        using Adapter expected = LoraTests.Drawn(model, new() { Rank = 4, Alpha = 3 / Math.Sqrt(4), FreezeTokenEmbeddings = true }, 2);
        List<(string, Tensor)> tensors = [];
        foreach (IGrouping<int, Adapter.Factors> block in expected.Products.GroupBy(p => p.Target.Layer))
        {
            Adapter.Factors[] p = [.. block];
            using (no_grad()) foreach (Adapter.Factors other in p[1..3]) other.A_ri.copy_(p[0].A_ri);
            string layer = $"base_model.model.transformer.h.{block.Key}.";
            Add("attn.c_attn", p[0].A_ri, cat([p[0].B_or, p[1].B_or, p[2].B_or]));
            Add("attn.c_proj", p[3].A_ri, p[3].B_or);
            Add("mlp.c_fc", p[4].A_ri, p[4].B_or);
            Add("mlp.c_proj", p[5].A_ri, p[5].B_or);

            void Add(string name, Tensor a, Tensor b) => tensors.AddRange([($"{layer}{name}.lora_A.weight", a), ($"{layer}{name}.lora_B.weight", b)]);
        }
        Save("gpt2", """{"peft_type":"LORA","r":4,"lora_alpha":3,"use_rslora":true,"fan_in_fan_out":true,"target_modules":"c_.*"}""", tensors);
        using Adapter read = Adapter.Load(_folder["gpt2"], model);
        AssertSameProducts(model, expected, read);
    }

    [Fact]
    public void Pefts_adapter_with_a_grown_embedding_and_our_names_is_read()
    {
        using Decoder model = new(Tiny with { VocabularyMultipleOf = 32, TiedHead = false }, 1);
        using Adapter expected = LoraTests.Drawn(model, new() { Rank = 2, Alpha = 0.5, Projections = Projections.QProj }, 2, 66);
        Save("own", """{"peft_type":"LORA","r":2,"lora_alpha":1}""",
        [
            .. expected.Products.SelectMany(p => ((string, Tensor)[])[($"base_model.model.{p.Target.Name}.lora_A.weight", p.A_ri), ($"base_model.model.{p.Target.Name}.lora_B.weight", p.B_or)]),
            ("base_model.model.token_embeddings.weight", expected.Embedding_Pd![..66]), ("base_model.model.lm_head.weight", expected.Head_Pd![..66]),
        ]);
        using Adapter read = Adapter.Load(_folder["own"], model);
        Assert.Equal(66, read.VocabularySize);
        AssertSameProducts(model, expected, read);
    }

    [Theory]
    [InlineData("""{"peft_type":"IA3","r":2,"lora_alpha":1}""", "peft_type")]
    [InlineData("""{"peft_type":"LORA","r":2}""", "lora_alpha = missing")]
    [InlineData("""{"peft_type":"LORA","r":0,"lora_alpha":1}""", "r = 0")]
    [InlineData("""{"peft_type":"LORA","r":2,"lora_alpha":0}""", "lora_alpha = 0")]
    [InlineData("""{"peft_type":"LORA","r":2,"lora_alpha":1,"use_dora":true}""", "use_dora = true")]
    [InlineData("""{"peft_type":"LORA","r":2,"lora_alpha":1,"rank_pattern":{"q":1}}""", "rank_pattern")]
    [InlineData("""{"peft_type":"LORA","r":2,"lora_alpha":1,"bias":"all"}""", "bias")]
    [InlineData("""{"peft_type":"LORA","r":3,"lora_alpha":1}""", "has the shape [2, 48] in place of [3, 48]")]
    public void What_an_adapter_of_Peft_has_beyond_ours_is_refused(string config, string expected)
    {
        using Decoder model = new(Tiny, 1);
        Save("peft", config, Products(model, layers: 2));
        string message = Assert.Throws<InvalidDataException>(() => Adapter.Load(_folder["peft"], model)).Message;
        Assert.Contains(expected, message);
        Assert.StartsWith(_folder["peft/adapter_"], message);
    }

    [Fact]
    public void Tensors_of_Peft_that_do_not_fit_are_named()
    {
        const string config = """{"peft_type":"LORA","r":2,"lora_alpha":1}""";
        using Decoder model = new(Tiny, 1);
        Assert.Contains("is in block 2 of a base with 2", Refused(Products(model, layers: 3)));
        Assert.Contains("block 1 has no product for q_proj", Refused(Products(model, layers: 1)));
        Assert.Contains("base_model.model.lm_head.lora_A.weight is unknown", Refused([.. Products(model, layers: 2), ("base_model.model.lm_head.lora_A.weight", zeros(2, 48))]));
        Assert.Contains("no product", Refused([("something", zeros(1))]));
        Assert.Contains("lora_B.weight is missing", Refused(Products(model, layers: 2).Where(t => !t.Name.EndsWith("1.stage1.q_proj.lora_B.weight", StringComparison.Ordinal))));
        Assert.Contains("mlp = swiglu", Refused([("base_model.model.model.layers.0.mlp.up_proj.lora_A.weight", zeros(2, 48)), ("base_model.model.model.layers.0.mlp.up_proj.lora_B.weight", zeros(192, 2))]));
        File.Delete(_folder["peft/adapter_model.safetensors"]);
        File.WriteAllText(_folder["peft/adapter_model.bin"], "PK");
        Assert.Contains("pickle", Assert.Throws<InvalidDataException>(() => Adapter.Load(_folder["peft"], model)).Message);

        string Refused(IEnumerable<(string, Tensor)> tensors)
        {
            Save("peft", config, tensors);
            return Assert.Throws<InvalidDataException>(() => Adapter.Load(_folder["peft"], model)).Message;
        }
    }

    private static IEnumerable<(string Name, Tensor)> Products(Decoder model, int layers) => Enumerable.Range(0, layers).SelectMany(i => ((string, Tensor)[])
    [
        ($"base_model.model.decoder.layers.{i}.stage1.q_proj.lora_A.weight", zeros(2, model.Config.EmbeddingDimensions)),
        ($"base_model.model.decoder.layers.{i}.stage1.q_proj.lora_B.weight", zeros(model.Config.EmbeddingDimensions, 2)),
    ]);

    private static void AssertSameProducts(Decoder model, Adapter expected, Adapter read)
    {
        Assert.Equal(expected.Config.Alpha, read.Config.Alpha, 1e-12);
        Assert.Equal(model.WeightsHash(), read.BaseHash);
        (Tensor tokens_BT, _) = LoraTests.Batch(expected.VocabularySize, 3);
        model.eval();
        model.Attach(expected);
        Tensor logits_BTV = model.Forward(tokens_BT);
        model.AttachOnly([new(read)]);
        Assert.True(model.Forward(tokens_BT).equal(logits_BTV).all().item<bool>());
    }

    private void Save(string folder, string config, IEnumerable<(string, Tensor)> tensors)
    {
        Directory.CreateDirectory(_folder[folder]);
        File.WriteAllText(_folder[folder + "/adapter_config.json"], config);
        SafetensorsFile.Save(_folder[folder + "/adapter_model.safetensors"], tensors);
    }
}
