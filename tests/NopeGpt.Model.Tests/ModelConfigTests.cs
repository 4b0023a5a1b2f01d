using System.Text.Json.Nodes;
using NopeGpt.Tests;

namespace NopeGpt.Model.Tests;

public sealed class ModelConfigTests
{
    private static readonly ModelConfig Tiny = new() { VocabularySize = 97, EmbeddingDimensions = 48, NumQHeads = 6, NumKvHeads = 2, NumDecoderLayers = 3 };

    [Theory]
    [InlineData(50_261, 1280, 20, 5, 20, 408_450_560)]
    [InlineData(50_257, 1280, 20, 5, 20, 408_445_440)]
    [InlineData(50_257, 1024, 16, 4, 16, 227_657_728)]
    public void Parameter_counts_are_the_published_ones(int vocabulary, int dimensions, int queries, int keys, int layers, long expected)
    {
        ModelConfig config = new()
        {
            VocabularySize = vocabulary, EmbeddingDimensions = dimensions, NumQHeads = queries, NumKvHeads = keys, NumDecoderLayers = layers,
        };
        Assert.Empty(config.Problems());
        Assert.Equal(expected, config.ParameterCount);
    }

    [Fact]
    public void The_training_cost_of_a_sample_is_the_published_one() =>
        Assert.Equal(8_893_451_206_656, new ModelConfig().FlopsPerToken(4096) * 4096);

    [Fact]
    public void All_problems_are_reported_at_once_with_field_value_and_cure()
    {
        ModelConfig config = new()
        {
            VocabularySize = 0, EmbeddingDimensions = 50, NumQHeads = 6, NumKvHeads = 4, NumDecoderLayers = -1, HiddenRatio = 3, Dropout = double.NaN,
        };
        Assert.Equal(
            ["vocabulary_size", "num_decoder_layers", "embedding_dimensions", "num_q_heads", "hidden_ratio", "dropout"],
            config.Problems().Select(p => p.Field));
        Assert.Contains("hidden_ratio = 3: is not a known ratio: choose 1, 2 or 4", config.Problems().Select(p => p.ToString()));
    }

    [Theory]
    [InlineData(0, 1)]
    [InlineData(1, 0)]
    [InlineData(int.MinValue, int.MinValue)]
    [InlineData(int.MaxValue, 1)]
    public void Bad_head_counts_are_problems_and_not_crashes(int queries, int keys)
    {
        ModelConfig config = Tiny with { NumQHeads = queries, NumKvHeads = keys };
        Assert.NotEmpty(config.Problems());
        _ = config.ParameterCount;
        _ = config.FlopsPerToken(1024);
    }

    [Theory]
    [InlineData(1.0)]
    [InlineData(-0.1)]
    [InlineData(double.PositiveInfinity)]
    public void Dropout_is_a_probability_below_one(double dropout) =>
        Assert.Equal("dropout", Assert.Single((Tiny with { Dropout = dropout }).Problems()).Field);

    [Fact]
    public void The_largest_allowed_sizes_do_not_overflow()
    {
        ModelConfig config = new()
        {
            VocabularySize = 1 << 24, EmbeddingDimensions = 1 << 16, NumQHeads = 1 << 16, NumKvHeads = 1 << 16, NumDecoderLayers = 1 << 12,
        };
        Assert.Empty(config.Problems());
        Assert.True(config.ParameterCount > 200_000_000_000_000);
    }

    [Fact]
    public void A_config_is_written_with_the_keys_of_the_reference_and_read_back()
    {
        using TemporaryFolder folder = new();
        Tiny.Write(folder["config.json"]);
        JsonObject json = (JsonObject)JsonNode.Parse(File.ReadAllText(folder["config.json"]))!;
        Assert.Equal(
            ["vocabulary_size", "embedding_dimensions", "num_q_heads", "num_kv_heads", "num_decoder_layers", "hidden_ratio", "dropout"],
            json.Select(p => p.Key));
        Assert.Equal(Tiny, ModelConfig.Read(folder["config.json"]));
    }

    [Theory]
    [InlineData("", "not a valid config.json")]
    [InlineData("[]", "not a JSON object")]
    [InlineData("null", "not a JSON object")]
    [InlineData("""{"vocabulary_size": 97}""", "lacks embedding_dimensions")]
    [InlineData("""{"vocabulary_size": "97", "embedding_dimensions": 48, "num_q_heads": 6, "num_kv_heads": 2, "num_decoder_layers": 3, "hidden_ratio": 4, "dropout": 0}""", "vocabulary_size")]
    [InlineData("""{"vocabulary_size": 97, "embedding_dimensions": 48, "num_q_heads": 6, "num_kv_heads": 2, "num_decoder_layers": 3, "hidden_ratio": 4, "dropout": 0, "rope_teta": 1}""", "has the unknown rope_teta: did you mean rope_theta?")]
    [InlineData("""{"vocabulary_size": 97, "embedding_dimensions": 47, "num_q_heads": 6, "num_kv_heads": 2, "num_decoder_layers": 3, "hidden_ratio": 4, "dropout": 0}""", "embedding_dimensions = 47")]
    public void A_bad_file_is_refused_with_its_path_and_the_reason(string text, string reason)
    {
        using TemporaryFolder folder = new();
        File.WriteAllText(folder["config.json"], text);
        InvalidDataException error = Assert.Throws<InvalidDataException>(() => ModelConfig.Read(folder["config.json"]));
        Assert.StartsWith(folder["config.json"] + ": ", error.Message);
        Assert.Contains(reason, error.Message);
    }

    [Fact]
    public void Options_are_written_only_where_they_are_not_the_defaults_and_read_back()
    {
        using TemporaryFolder folder = new();
        ModelConfig config = Tiny with
        {
            Positions = Positions.Rope, NormEpsilon = 1e-6, Mlp = Mlp.Swiglu, HiddenMultipleOf = 16, TiedHead = false, Initialization = Initialization.LilLm, AttentionDropout = 0.1,
        };
        config.Write(folder["config.json"]);
        JsonObject json = (JsonObject)JsonNode.Parse(File.ReadAllText(folder["config.json"]))!;
        Assert.Equal(["positions", "norm_epsilon", "mlp", "hidden_multiple_of", "tied_head", "attention_dropout", "initialization"], json.Select(p => p.Key).Skip(7));
        Assert.Equal("rope", (string?)json["positions"]);
        Assert.Equal("lil_lm", (string?)json["initialization"]);
        Assert.Equal(config, ModelConfig.Read(folder["config.json"]));
    }

    [Fact]
    public void Random_configs_are_read_back_as_written()
    {
        using TemporaryFolder folder = new();
        int first = Random.Shared.Next();
        for (int seed = first; seed < first + 200; seed++)
        {
            Random random = new(seed);
            ModelConfig config = Tiny with
            {
                Dropout = random.NextDouble(), Positions = (Positions)random.Next(3), ContextLength = random.Next(1, 5000), RopeTheta = random.NextDouble() * 1e6 + 1,
                Norm = Norm.LayerNorm, NormBias = random.Next(2) == 0, NormEpsilon = random.NextDouble() + 1e-9, Mlp = (Mlp)random.Next(3), HiddenSize = random.Next(2) * 77,
                LinearBias = random.Next(2) == 0, TiedHead = random.Next(2) == 0, VocabularyMultipleOf = random.Next(200), ResidualDropout = random.NextDouble(),
                Initialization = (Initialization)random.Next(5),
            };
            config.Write(folder["config.json"]);
            Assert.True(config == ModelConfig.Read(folder["config.json"]), $"seed {seed}");
        }
    }

    [Theory]
    [InlineData("\"positions\": \"rotary\"", "positions = \"rotary\": must be one of none, rope, learned")]
    [InlineData("\"norm\": 1", "norm = 1: must be one of rms_norm, layer_norm")]
    [InlineData("\"mlp\": null", "mlp = null: must be one of silu, swiglu, gelu")]
    [InlineData("\"initialization\": \"gpt2, lil_lm\"", "must be one of default, nope_gpt, light_gpt, lil_lm, gpt2")]
    [InlineData("\"tied_head\": 1", "tied_head = 1: must be true or false")]
    [InlineData("\"rope_theta\": \"10000\"", "rope_theta = \"10000\": must be a number")]
    [InlineData("\"hidden_size\": 1.5", "hidden_size = 1.5: must be a whole number")]
    [InlineData("\"rope_theta\": 1e999", "rope_theta = Infinity")]
    [InlineData("\"dropout\": 0.1", "dropout is there twice")]
    [InlineData("\"\\ud800\": 1", "not a valid config.json")]
    [InlineData("\"mlp\": \"\\ud800\"", "not a valid config.json")]
    [InlineData("\"positoins\": \"rope\"", "has the unknown positoins: did you mean positions?")]
    [InlineData("\"attn_implementation\": \"sdpa\"", "has the unknown attn_implementation: known are vocabulary_size, ")]
    [InlineData("\"positions\": \"learned\"", "context_length = 0: leaves no room for positions = learned")]
    public void A_bad_option_is_refused_with_its_value_and_what_it_must_be(string option, string reason)
    {
        using TemporaryFolder folder = new();
        File.WriteAllText(folder["config.json"], """{"vocabulary_size": 97, "embedding_dimensions": 48, "num_q_heads": 6, "num_kv_heads": 2, "num_decoder_layers": 3, "hidden_ratio": 4, "dropout": 0, """ + option + "}");
        InvalidDataException error = Assert.Throws<InvalidDataException>(() => ModelConfig.Read(folder["config.json"]));
        Assert.StartsWith(folder["config.json"] + ": ", error.Message);
        Assert.Contains(reason, error.Message);
    }

    [Fact]
    public void All_mistakes_of_a_file_are_reported_at_once()
    {
        using TemporaryFolder folder = new();
        File.WriteAllText(folder["config.json"], """{"vocabulary_size": "97", "positions": "rotary", "num_qheads": 6, "norm": "rms_norm", "norm": "rms_norm"}""");
        string message = Assert.Throws<InvalidDataException>(() => ModelConfig.Read(folder["config.json"])).Message;
        Assert.All(
            ["lacks embedding_dimensions, num_q_heads, num_kv_heads, num_decoder_layers, hidden_ratio, dropout", "vocabulary_size = \"97\"", "positions = \"rotary\"", "did you mean num_q_heads?", "norm is there twice"],
            reason => Assert.Contains(reason, message));
    }

    [Fact]
    public void Mutated_files_are_refused_in_words_or_read_as_a_valid_config()
    {
        using TemporaryFolder folder = new();
        string path = folder["config.json"];
        ModelPresets.Find("gpt2-padded").Config.Write(path);
        byte[] whole = File.ReadAllBytes(path);
        byte[] signs = [.. "0123456789{}[]\",:.-etfn\\ "u8];
        int seed = Random.Shared.Next(), refused = 0;
        Random random = new(seed);
        for (int i = 0; i < 3000; i++)
        {
            byte[] bytes = [.. whole];
            for (int change = random.Next(1, 4); change > 0; change--)
            {
                int at = random.Next(bytes.Length);
                if (random.Next(3) == 0) bytes = [.. bytes[..at], .. bytes[Math.Min(bytes.Length, at + random.Next(1, 9))..]];
                else bytes[at] = random.Next(2) == 0 ? (byte)random.Next(256) : signs[random.Next(signs.Length)];
                if (bytes.Length == 0) bytes = [0];
            }
            File.WriteAllBytes(path, bytes);
            try { Assert.Empty(ModelConfig.Read(path).Problems()); }
            catch (InvalidDataException e)
            {
                Assert.True(e.Message.StartsWith(path + ": ", StringComparison.Ordinal) && e.Message.Length > path.Length + 20, $"seed {seed}: {e.Message}");
                refused++;
            }
        }
        Assert.InRange(refused, 1000, 2999);
    }

    [Fact]
    public void A_file_that_is_far_too_large_is_refused_unread()
    {
        using TemporaryFolder folder = new();
        using (FileStream file = File.Create(folder["config.json"])) file.SetLength(1L << 40);
        Assert.Contains("1099511627776 bytes", Assert.Throws<InvalidDataException>(() => ModelConfig.Read(folder["config.json"])).Message);
    }

    public static TheoryData<string, ModelConfig> Misfits => new()
    {
        { "context_length", Tiny with { Positions = Positions.Learned } },
        { "context_length", Tiny with { ContextLength = -1 } },
        { "embedding_dimensions", Tiny with { Positions = Positions.Rope, EmbeddingDimensions = 42 } },
        { "norm_bias", Tiny with { NormBias = true } },
        { "hidden_multiple_of", Tiny with { HiddenMultipleOf = 8, HiddenSize = 64 } },
        { "hidden_multiple_of", Tiny with { HiddenMultipleOf = -8 } },
        { "hidden_size", Tiny with { HiddenSize = -1 } },
        { "vocabulary_multiple_of", Tiny with { VocabularyMultipleOf = -64 } },
        { "rope_theta", Tiny with { RopeTheta = 0 } },
        { "rope_theta", Tiny with { RopeTheta = double.NaN } },
        { "norm_epsilon", Tiny with { NormEpsilon = 0 } },
        { "norm_epsilon", Tiny with { NormEpsilon = double.PositiveInfinity } },
        { "attention_dropout", Tiny with { AttentionDropout = 1 } },
        { "residual_dropout", Tiny with { ResidualDropout = -0.1 } },
        { "hidden_ratio", Tiny with { HiddenRatio = 3, HiddenMultipleOf = 8 } },
    };

    [Theory]
    [MemberData(nameof(Misfits))]
    public void Options_that_do_not_fit_are_problems_of_their_field(string field, ModelConfig config) => Assert.Equal(field, Assert.Single(config.Problems()).Field);

    [Theory]
    [InlineData(512, 128, 1408)]
    [InlineData(256, 128, 768)]
    [InlineData(48, 16, 128)]
    [InlineData(288, 32, 768)]
    [InlineData(64, 4, 172)]
    [InlineData(4096, 256, 11008)]
    public void The_hidden_layer_by_lilLMs_and_Llamas_rule(int dimensions, int multiple, int expected) =>
        Assert.Equal(expected, (Tiny with { EmbeddingDimensions = dimensions, HiddenMultipleOf = multiple }).HiddenDimensions);

    [Fact]
    public void The_vocabulary_is_padded_to_the_multiple()
    {
        Assert.Equal(50_304, (Tiny with { VocabularySize = 50_257, VocabularyMultipleOf = 128 }).PaddedVocabularySize);
        Assert.Equal(128, (Tiny with { VocabularySize = 128, VocabularyMultipleOf = 128 }).PaddedVocabularySize);
        Assert.Equal(97, Tiny.PaddedVocabularySize);
    }

    [Fact]
    public void A_hidden_size_needs_no_known_ratio()
    {
        ModelConfig config = Tiny with { HiddenRatio = 3, HiddenSize = 100 };
        Assert.Empty(config.Problems());
        Assert.Equal(100, config.HiddenDimensions);
    }

    [Fact]
    public void A_missing_file_is_refused_with_its_path() =>
        Assert.StartsWith("/nowhere/config.json: ", Assert.Throws<InvalidDataException>(() => ModelConfig.Read("/nowhere/config.json")).Message);
}
