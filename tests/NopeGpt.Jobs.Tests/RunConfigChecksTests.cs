using NopeGpt.Jobs;
using NopeGpt.Model;
using NopeGpt.Model.Optimizers;

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

    /// <summary>The table of the reference's pretraining script, and what its optimizer and its initialisation leave to PyTorch.</summary>
    [Fact]
    public void The_references_preset_has_all_of_its_defaults_and_none_of_ours()
    {
        RunConfig config = Presets.Find("nope-gpt").Config;
        (DataConfig data, OptimizerConfig optimizer, TrainingConfig training, ModelConfig model) = (config.Data, config.Optimizer, config.Training, config.Model);
        Assert.Equal((2, 128, 4096, 20_000), (training.BatchSize, training.GradientAccumulationSteps, data.TokensPerSample, training.MaxSteps));
        Assert.Equal((OptimizerKind.Adafactor, 1e-2, LearningRateSchedule.Constant, 0, false, 10.0), (optimizer.Optimizer, optimizer.LearningRate, optimizer.Schedule, optimizer.WarmupSteps, optimizer.LowMemoryOptimizer, optimizer.MaxGradientNorm));
        Assert.Equal((-0.8, (double)float.BitIncrement(1) - 1, 1e-3, 1.0, 0.0), (optimizer.Beta2Decay, optimizer.Epsilon1, optimizer.Epsilon2, optimizer.ClippingThreshold, optimizer.AdafactorWeightDecay));
        Assert.Equal((1024, 16, 4, 16, 4, 0.0), (model.EmbeddingDimensions, model.NumQHeads, model.NumKvHeads, model.NumDecoderLayers, model.HiddenRatio, model.Dropout));
        Assert.Equal((2, 100, 2048, 100, false), (training.ShardingLevel, training.EvalInterval, data.NumEvalSamples, training.CheckpointInterval, training.ActivationCheckpointing));
        Assert.Equal(new ModelConfig { VocabularySize = 0, Initialization = Initialization.NopeGpt }, model);
    }

    [Fact]
    public void Our_recipe_is_muon_and_every_preset_of_ours_has_it()
    {
        Assert.Equal(OptimizerKind.Muon, new RunConfig().Optimizer.Optimizer);
        Assert.All(Presets.All.Where(p => p.Name != "nope-gpt"), p => Assert.Equal(new OptimizerConfig(), p.Config.Optimizer));
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

    [Fact]
    public void All_problems_of_a_prepare_run_come_at_once()
    {
        PrepareConfig prepare = new() { Dataset = "../x", Source = "hub:a:b:c:d", Columns = "text", TextColumn = "body", Kind = PrepareKind.Chat, MaxTokens = 5, EndOfText = Data.EndOfText.Before, Tokenizer = "r50k_bose", VocabularySize = 3, Workers = -1 };
        IReadOnlyList<Problem> problems = RunConfigChecks.All(new RunConfig { Kind = RunKind.Prepare, Prepare = prepare }, Store);
        string[] expected = ["columns", "dataset", "end_of_text", "max_tokens", "source", "text_column", "tokenizer", "vocabulary_size", "workers"];
        Assert.Equal(expected.Select(name => "prepare." + name), problems.Select(p => p.Field).Order(StringComparer.Ordinal));
        Assert.All(problems, p => Assert.True(p.Value.Length > 0 && p.Message.Length > 10, p.ToString()));
        Assert.Contains("r50k_base", problems.Single(p => p.Field == "prepare.tokenizer").Message, StringComparison.Ordinal);
        Assert.Contains("hub:OWNER/NAME", problems.Single(p => p.Field == "prepare.source").Message, StringComparison.Ordinal);
    }

    [Theory]
    [InlineData("huggingfacetb/smoltalk", PrepareKind.Auto, "", true)]
    [InlineData("HuggingFaceFW/fineweb", PrepareKind.Auto, "", false)]
    [InlineData("someone/else", PrepareKind.Auto, "", false)]
    [InlineData("someone/else", PrepareKind.Preference, "", true)]
    [InlineData("HuggingFaceTB/smoltalk", PrepareKind.Auto, "text=source", false)]
    public void A_bound_on_tokens_is_refused_where_it_is_known_that_conversations_come(string source, PrepareKind kind, string columns, bool refused)
    {
        RunConfig config = new() { Kind = RunKind.Prepare, Prepare = new PrepareConfig { Dataset = "x", Source = source, Kind = kind, Columns = columns, MaxTokens = 1000 } };
        Assert.Equal(refused ? ["prepare.max_tokens"] : [], RunConfigChecks.All(config, Store).Select(p => p.Field));
    }

    [Fact]
    public void Stories_are_plain_text_without_columns()
    {
        RunConfig config = new() { Kind = RunKind.Prepare, Prepare = new PrepareConfig { Dataset = "x", Kind = PrepareKind.Preference, Columns = "text=a" } };
        Assert.Equal(["prepare.kind", "prepare.columns"], config.Problems().Select(p => p.Field));
    }

    [Theory]
    [InlineData("nothing.txt")]
    [InlineData("data.xyz")]
    [InlineData("empty")]
    [InlineData("no*thing.jsonl")]
    public void A_source_that_is_not_there_is_named(string name)
    {
        Directory.CreateDirectory(folder["empty"]);
        File.WriteAllText(folder["data.xyz"], "x");
        RunConfig config = new() { Kind = RunKind.Prepare, Prepare = new PrepareConfig { Dataset = "x", Source = folder[name] } };
        Problem problem = Assert.Single(RunConfigChecks.All(config, Store));
        Assert.Equal("prepare.source", problem.Field);
        Assert.Contains("jsonl", problem.Message, StringComparison.Ordinal);
    }
}
