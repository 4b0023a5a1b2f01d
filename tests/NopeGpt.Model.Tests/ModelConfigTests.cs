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
    public void A_missing_file_is_refused_with_its_path() =>
        Assert.StartsWith("/nowhere/config.json: ", Assert.Throws<InvalidDataException>(() => ModelConfig.Read("/nowhere/config.json")).Message);
}
