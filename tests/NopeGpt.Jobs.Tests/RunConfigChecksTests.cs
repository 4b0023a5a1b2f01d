using NopeGpt.Jobs;
using NopeGpt.Model;

namespace NopeGpt.Tests;

public sealed class RunConfigChecksTests : IDisposable
{
    private readonly TemporaryFolder folder = new();

    private Store Store => new(folder["root"]);

    public void Dispose() => folder.Dispose();

    [Fact]
    public void Every_preset_and_every_quickstart_run_is_sound()
    {
        Assert.All(Presets.All, p => Assert.Empty(p.Config.Problems()));
        Assert.All(Quickstart.Sizes.SelectMany(Quickstart.Runs), c => Assert.Empty(c.Problems()));
    }

    [Fact]
    public void An_unknown_preset_names_the_nearest()
    {
        UserException e = Assert.Throws<UserException>(() => Presets.Find("storys"));
        Assert.Contains("did you mean stories?", e.Message, StringComparison.Ordinal);
        Assert.Equal(ExitCode.BadConfiguration, e.ExitCode);
    }

    [Fact]
    public void All_problems_come_at_once_each_with_field_value_and_cure()
    {
        RunConfig config = Presets.Find("stories").Config with
        {
            Name = "a\nb",
            Device = "gpu",
            Model = new ModelConfig { VocabularySize = 0, EmbeddingDimensions = 100, NumQHeads = 7, NumKvHeads = 2, NumDecoderLayers = 0, HiddenRatio = 3, Dropout = double.NaN },
            Data = new DataConfig { Dataset = "", TokensPerSample = 0 },
            Optimizer = new OptimizerConfig { LearningRate = double.NaN, WarmupSteps = 5000 },
        };
        string[] fields = [.. config.Problems().Select(p => p.Field)];
        foreach (string field in new[] { "name", "device", "model.embedding_dimensions", "model.num_q_heads", "model.num_decoder_layers", "model.hidden_ratio", "model.dropout", "data.dataset", "data.tokens_per_sample", "optimizer.learning_rate", "optimizer.warmup_steps" })
            Assert.Contains(field, fields);
        Assert.All(config.Problems(), p => Assert.False(string.IsNullOrWhiteSpace(p.Message)));
    }

    [Theory]
    [InlineData("missing-set")]
    [InlineData("../outside")]
    [InlineData("/no/such/file.bin")]
    [InlineData("a\0b")]
    public void A_data_set_that_is_not_there_is_named(string dataset)
    {
        RunConfig config = Presets.Find("stories").Config with { Data = new DataConfig { Dataset = dataset } };
        Problem problem = Assert.Single(RunConfigChecks.All(config, Store));
        Assert.Equal(("data.dataset", dataset), (problem.Field, problem.Value));
    }

    [Theory]
    [InlineData("../evil")]
    [InlineData("a/b")]
    [InlineData("")]
    [InlineData(".hidden")]
    [InlineData("a\0b")]
    [InlineData("name\n")]
    public void A_data_set_name_cannot_leave_the_store(string name)
    {
        RunConfig config = new() { Kind = RunKind.Prepare, Prepare = new PrepareConfig { Dataset = name } };
        Assert.Contains(config.Problems(), p => p.Field == "prepare.dataset");
        Assert.Throws<ArgumentException>(() => Store.DatasetFolder(name));
    }
}
