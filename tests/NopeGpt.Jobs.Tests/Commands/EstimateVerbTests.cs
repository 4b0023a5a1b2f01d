using System.Text.Json;
using NopeGpt.Model;
using NopeGpt.Model.Native;
using NopeGpt.Model.Optimizers;

namespace NopeGpt.Jobs.Tests.Commands;

public sealed class EstimateVerbTests(PreparedStore prepared) : IClassFixture<PreparedStore>
{
    /// <summary>The figures of the reference's sizing notebook at its defaults.</summary>
    [Fact]
    public async Task The_references_defaults_have_the_figures_of_its_sizing_notebook()
    {
        (int code, string output, string errors) = await NopeGptProcess.RunAsync("estimate", "--root", prepared["store"], "--model_preset", "nope-gpt", "--tokens_per_sample", "4096", "--batch_size", "2", "--gradient_accumulation_steps", "128",
            "--max_steps", "20000", "--matrix_rate", "1e14", "--utilisation", "0.5", "--optimizer", "adamw", "--json");
        Assert.True(code == 0, errors);
        JsonElement estimate = JsonDocument.Parse(output).RootElement;
        JsonElement Part(string group, string name) => estimate.GetProperty(group).GetProperty(name);
        Assert.Equal(227_657_728, estimate.GetProperty("parameters").GetInt64());
        Assert.Equal(8_893_451_206_656, Part("flops", "per_sample").GetDouble());
        Assert.Equal(4 * 227_657_728L, Part("memory", "weights").GetInt64());
        Assert.Equal(8 * 227_657_728L, Part("memory", "optimizer").GetInt64());
        Assert.Equal((20 * 227_657_728L, 2L * 128 * 4096 * 20_000), (Part("tokens", "advised").GetInt64(), Part("tokens", "run").GetInt64()));
        Assert.Equal(64, estimate.GetProperty("aspect_ratio").GetDouble());
        Assert.Equal(8_893_451_206_656.0 * 256 * 20_000 / 0.5e14, Part("time", "run_seconds").GetDouble(), 1.0);
    }

    /// <summary>The state of an optimizer, as it is made and as it is estimated.</summary>
    [Theory]
    [InlineData("muon", "gpt2-tiny")]
    [InlineData("muon", "lil-lm-tiny")]
    [InlineData("adafactor", "gpt2-tiny")]
    [InlineData("adamw", "nope-gpt-tiny")]
    public async Task The_optimizers_memory_is_what_it_makes(string optimizer, string preset)
    {
        (int code, string output, string errors) = await NopeGptProcess.RunAsync("estimate", "--root", prepared["store"], "--model_preset", preset, "--vocabulary_size", "512", "--tokens_per_sample", "64", "--optimizer", optimizer, "--matrix_rate", "1e11", "--json");
        Assert.True(code == 0, errors);
        TorchRuntime.Load();
        using Decoder model = new(ModelPresets.Find(preset).Config, 1);
        using Optimizer made = (optimizer switch { "muon" => (OptimizerOptions)new MuonOptions(), "adafactor" => new AdafactorOptions(), _ => new AdamWOptions() }).Create(model.Parameters());
        Assert.Equal(made.StateBytes, JsonDocument.Parse(output).RootElement.GetProperty("memory").GetProperty("optimizer").GetInt64());
    }

    [Fact]
    public async Task The_vocabulary_and_the_epochs_are_the_data_sets_and_the_machine_is_measured()
    {
        (int code, string output, string errors) = await NopeGptProcess.RunAsync("estimate", "--root", prepared.Store.Root, "--dataset", PreparedStore.Stories, "--threads", "1", "--json");
        Assert.True(code == 0, errors);
        JsonElement estimate = JsonDocument.Parse(output).RootElement;
        Assert.Equal(400 * 192, estimate.GetProperty("parts").GetProperty("embedding").GetInt64());
        Assert.True(estimate.GetProperty("tokens").GetProperty("epochs").GetDouble() > 1);
        Assert.InRange(estimate.GetProperty("time").GetProperty("matrix_rate").GetDouble(), 1e8, 1e14);
        (code, output, _) = await NopeGptProcess.RunAsync("estimate", "--root", prepared.Store.Root, "--vocabulary-size", "8192", "--matrix_rate", "1e11");
        Assert.Equal(0, code);
        Assert.Contains("tokens advised for this size", output, StringComparison.Ordinal);
    }

    [Fact]
    public async Task Every_mistake_is_named_at_once()
    {
        (int code, string output, string errors) = await NopeGptProcess.RunAsync("estimate", "--root", prepared.Store.Root, "--utilisation", "2", "--matrix_rate", "fast", "--hidden_ratio", "3");
        Assert.Equal((2, ""), (code, output));
        foreach (string says in new[] { "--utilisation = 2", "--matrix_rate = fast", "--hidden_ratio = 3", "--vocabulary_size = 0: takes the data set's" }) Assert.Contains(says, errors, StringComparison.Ordinal);
    }
}
