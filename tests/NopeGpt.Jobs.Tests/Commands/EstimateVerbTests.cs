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

    [Theory]
    [InlineData("cpu,cpu", 0, 1.0, 1.0, 1.0)]
    [InlineData("cpu,cpu,cpu,cpu", 2, 1.0, 0.3, 0.25)]
    [InlineData("cpu,cpu,cpu,cpu", 3, 0.3, 0.3, 0.25)]
    public async Task Memory_is_each_devices_at_its_sharding_level(string devices, int level, double weights, double gradients, double optimizer)
    {
        JsonElement one = await EstimateAsync("--device", "cpu"), several = await EstimateAsync("--device", devices, "--sharding_level", $"{level}"), uneven = await EstimateAsync("--device", "cpu,cpu,cpu");
        double Ratio(string name) => Memory(several, name) / Memory(one, name);
        Assert.Equal(devices.Split(',').Length, Memory(several, "devices"));
        Assert.Equal(optimizer, Ratio("optimizer"), 0.01);
        // Parts of the network are whole while they are needed.
        Assert.InRange(Ratio("weights"), weights, weights == 1 ? 1 : 2 * weights);
        Assert.InRange(Ratio("gradients"), gradients, gradients == 1 ? 1 : 2 * gradients);
        Assert.Equal(Memory(several, "total"), Memory(several, "weights") + Memory(several, "gradients") + Memory(several, "optimizer") + Memory(several, "activations"));
        Assert.Equal(Memory(one, "checkpoint"), Memory(several, "checkpoint"));
        // The step is the same, of all devices together; what does not divide is left out.
        Assert.Equal(8 * 8 * 256, several.GetProperty("tokens").GetProperty("per_step").GetInt64());
        Assert.Equal(6 * 8 * 256, uneven.GetProperty("tokens").GetProperty("per_step").GetInt64());
        JsonElement recomputed = await EstimateAsync("--device", devices, "--sharding_level", $"{level}", "--activation_checkpointing");
        Assert.InRange(Memory(recomputed, "activations"), 0, 0.6 * Memory(several, "activations"));

        static double Memory(JsonElement estimate, string name) => estimate.GetProperty("memory").GetProperty(name).GetDouble();

        async Task<JsonElement> EstimateAsync(params string[] more)
        {
            (int code, string output, string errors) = await NopeGptProcess.RunAsync(["estimate", "--root", prepared["store"], "--vocabulary_size", "2048", "--embedding_dimensions", "384", "--num_decoder_layers", "12",
                "--tokens_per_sample", "256", "--batch_size", "8", "--gradient_accumulation_steps", "8", "--matrix_rate", "1e11", "--json", .. more]);
            Assert.True(code == 0, errors);
            return JsonDocument.Parse(output).RootElement;
        }
    }

    [Fact]
    public async Task Every_mistake_is_named_at_once()
    {
        (int code, string output, string errors) = await NopeGptProcess.RunAsync("estimate", "--root", prepared.Store.Root, "--utilisation", "2", "--matrix_rate", "fast", "--hidden_ratio", "3");
        Assert.Equal((2, ""), (code, output));
        foreach (string says in new[] { "--utilisation = 2", "--matrix_rate = fast", "--hidden_ratio = 3", "--vocabulary_size = 0: takes the data set's" }) Assert.Contains(says, errors, StringComparison.Ordinal);
    }
}
