using System.Text.Json;
using NopeGpt.Jobs;
using NopeGpt.Jobs.Configuration;
using NopeGpt.Model;
using NopeGpt.Model.Optimizers;

namespace NopeGpt.Tests.Configuration;

public sealed class SettingsTests
{
    [Fact]
    public void Every_setting_has_a_description_and_every_number_a_range_or_a_check_of_its_own()
    {
        Assert.NotEmpty(Settings.All);
        Assert.All(Settings.All, s => Assert.False(string.IsNullOrWhiteSpace(s.Description), s.Path));
        string[] checkedElsewhere = ["seed"];
        Assert.All(
            Settings.All.Where(s => s.Type.IsValueType && !s.Type.IsEnum && s.Type != typeof(bool) && s.Section != "model" && !checkedElsewhere.Contains(s.Path)),
            s => Assert.True(s.Minimum < s.Maximum, s.Path));
        Assert.Equal(Settings.All.Count, Settings.All.Select(s => s.Path).Distinct().Count());
    }

    [Fact]
    public void What_is_set_is_what_is_got_and_the_original_stays()
    {
        RunConfig start = new();
        RunConfig changed = Settings.Set(start, "model.num_q_heads", 12);
        Assert.Equal(12, changed.Model.NumQHeads);
        Assert.Equal(6, start.Model.NumQHeads);
        Assert.Equal(12, Settings.Get(changed, "model.num_q_heads"));
        Assert.Equal(start.Training, changed.Training);
    }

    [Theory]
    [InlineData("""{"kind": "pretrain", "training": {"max_steps": 7}}""")]
    [InlineData("""{"Kind": "Pretrain", "Training": {"maxSteps": 7}}""")]
    [InlineData("""{"kind": "pretrain", "training": {"max-steps": 7}}""")]
    public void Names_are_read_in_any_usual_case(string json)
    {
        List<Problem> problems = [];
        RunConfig config = Settings.Bind(JsonDocument.Parse(json).RootElement, problems);
        Assert.Empty(problems);
        Assert.Equal(7, config.Training.MaxSteps);
    }

    [Fact]
    public void A_config_survives_its_own_json()
    {
        RunConfig config = Presets.Find("stories-tiny").Config with { Seed = ulong.MaxValue, Name = "\"<b>&\"" };
        List<Problem> problems = [];
        RunConfig read = Settings.Bind(JsonDocument.Parse(JsonSerializer.Serialize(config, Settings.Json)).RootElement, problems);
        Assert.Empty(problems);
        Assert.Equal(JsonSerializer.Serialize(config, Settings.Json), JsonSerializer.Serialize(read, Settings.Json));
    }

    [Fact]
    public void Every_option_of_the_architecture_survives_json_and_text()
    {
        foreach (ModelPreset preset in ModelPresets.All)
        {
            RunConfig config = new() { Model = preset.Config with { TiedHead = false, AttentionDropout = 0.1, ResidualDropout = 0.25, Initialization = Initialization.LilLm } };
            List<Problem> problems = [];
            Assert.Equal(config.Model, Settings.Bind(JsonDocument.Parse(JsonSerializer.Serialize(config, Settings.Json)).RootElement, problems).Model);
            RunConfig texts = new();
            foreach (Setting setting in Settings.All.Where(s => s.Section == "model"))
                texts = Settings.BindText(texts, setting.Path, Convert.ToString(Settings.Get(config, setting), System.Globalization.CultureInfo.InvariantCulture)!, problems);
            Assert.Equal(config.Model, texts.Model);
            Assert.Empty(problems);
        }
    }

    [Fact]
    public void The_architectures_choices_are_in_words_and_a_wrong_one_names_them()
    {
        RunConfig config = new() { Model = new() { Norm = Norm.LayerNorm, Initialization = Initialization.LilLm } };
        string json = JsonSerializer.Serialize(config, Settings.Json);
        Assert.Contains("\"norm\": \"layer_norm\"", json, StringComparison.Ordinal);
        Assert.Contains("\"initialization\": \"lil_lm\"", json, StringComparison.Ordinal);
        List<Problem> problems = [];
        Settings.BindText(config, "positions", "rotary", problems);
        Settings.Bind(JsonDocument.Parse("""{"model": {"mlp": "relu", "norm": 1}}""").RootElement, problems);
        Assert.Equal(["model.positions", "model.mlp", "model.norm"], problems.Select(p => p.Field));
        Assert.Equal(["must be one of none, rope, learned", "must be one of silu, swiglu, gelu", "must be one of rms_norm, layer_norm"], problems.Select(p => p.Message));
    }

    [Fact]
    public void Everything_wrong_is_told_at_once_with_the_nearest_name()
    {
        List<Problem> problems = [];
        Settings.Bind(JsonDocument.Parse("""
            {"kind": "dance", "training": {"max_stepps": 7, "batch_size": "eight"}, "model": {"num_q_heads": 1.5}, "optimizer": [], "seed": -1, "name": null}
            """).RootElement, problems);
        Assert.Equal(["kind", "training.max_stepps", "training.batch_size", "model.num_q_heads", "optimizer", "seed", "name"], problems.Select(p => p.Field));
        Assert.Contains("did you mean training.max_steps?", problems[1].Message, StringComparison.Ordinal);
        Assert.Contains("prepare, pretrain, evaluate", problems[0].Message, StringComparison.Ordinal);
    }

    [Theory]
    [InlineData("[]")]
    [InlineData("7")]
    [InlineData("\"text\"")]
    [InlineData("null")]
    public void Json_that_is_no_object_is_one_problem(string json)
    {
        List<Problem> problems = [];
        Settings.Bind(JsonDocument.Parse(json).RootElement, problems);
        Assert.Single(problems);
    }

    [Fact]
    public void Texts_bind_by_name_or_path_with_hyphens_or_underscores()
    {
        List<Problem> problems = [];
        RunConfig config = Settings.BindText(new RunConfig(), "max-steps", "9", problems);
        config = Settings.BindText(config, "optimizer.learning_rate", "1e-3", problems);
        config = Settings.BindText(config, "schedule", "warmup_stable_decay", problems);
        config = Settings.BindText(config, "sample_prompts", "One day | Once", problems);
        Assert.Empty(problems);
        Assert.Equal((9, 1e-3, LearningRateSchedule.WarmupStableDecay), (config.Training.MaxSteps, config.Optimizer.LearningRate, config.Optimizer.Schedule));
        Assert.Equal(["One day", "Once"], config.Training.SamplePrompts);
        Settings.BindText(config, "max_steps", "many", problems);
        Assert.Equal("must be a whole number", Assert.Single(problems).Message);
    }

    [Fact]
    public void A_preset_is_a_start_that_the_rest_changes_and_an_unknown_one_names_the_nearest()
    {
        List<Problem> problems = [];
        RunConfig config = Settings.Bind(JsonDocument.Parse("""{"preset": "stories-tiny", "training": {"max_steps": 5}}""").RootElement, problems);
        Assert.Empty(problems);
        Assert.Equal((5, 48, "stories-tiny"), (config.Training.MaxSteps, config.Model.EmbeddingDimensions, config.Data.Dataset));
        Settings.Bind(JsonDocument.Parse("""{"preset": "storys"}""").RootElement, problems);
        Problem problem = Assert.Single(problems);
        Assert.Equal(("preset", "storys"), (problem.Field, problem.Value));
        Assert.Contains("did you mean stories?", problem.Message, StringComparison.Ordinal);
    }

    [Fact]
    public void A_model_preset_is_an_architecture_that_the_rest_changes_with_the_data_sets_vocabulary()
    {
        List<Problem> problems = [];
        RunConfig config = Settings.Bind(JsonDocument.Parse("""{"model": {"num_decoder_layers": 6, "preset": "lil-lm"}}""").RootElement, problems);
        Assert.Empty(problems);
        Assert.Equal(ModelPresets.Find("lil-lm").Config with { VocabularySize = 0, NumDecoderLayers = 6 }, config.Model);
        Settings.Bind(JsonDocument.Parse("""{"model": {"preset": "lilm"}}""").RootElement, problems);
        Problem problem = Assert.Single(problems);
        Assert.Equal(("model.preset", "lilm"), (problem.Field, problem.Value));
        Assert.Contains("did you mean lil-lm?", problem.Message, StringComparison.Ordinal);
    }
}
