using System.Text.Json.Nodes;
using NopeGpt.Jobs;
using NopeGpt.Jobs.Training;
using NopeGpt.Model;
using NopeGpt.Model.Native;
using NopeGpt.Model.Storage;
using static TorchSharp.torch;

namespace NopeGpt.Tests.Training;

/// <summary>Runs that compute in a type of their own choice.</summary>
public sealed class PrecisionRunTests(PreparedStore prepared) : IClassFixture<PreparedStore>
{
    private const int Steps = 9;

    private Store Store => prepared.Store;

    [Theory]
    [InlineData(Precision.Bfloat16, false)]
    [InlineData(Precision.Bfloat16, true)]
    [InlineData(Precision.Float16, false)]
    public async Task A_run_goes_on_to_the_bit(Precision precision, bool again)
    {
        RunConfig config = Config(precision);
        config = config with { Training = config.Training with { ActivationCheckpointing = again } };
        RunFolder straight = prepared.NewRun(config), broken = prepared.NewRun(config);
        Assert.Equal(ExitCode.Done, await RunAsync(straight));
        using (CancellationTokenSource stop = new())
        {
            Assert.Equal(ExitCode.StoppedAndSaved, await TrainerProcessMain.RunAsync(broken.Path, Store, false, null, stop.Token, e =>
            {
                if (e is MetricsEvent { Step: 4 } m && m.Values.ContainsKey("train/loss")) stop.Cancel();
            }));
        }
        Assert.Equal(ExitCode.Done, await RunAsync(broken));
        foreach (string name in (string[])["model.safetensors", "optimizer.safetensors"])
            Assert.Equal(File.ReadAllBytes(Path.Combine(Newest(straight), name)), File.ReadAllBytes(Path.Combine(Newest(broken), name)));
        Assert.Equal(Standing.Numbers(straight), Standing.Numbers(broken));
        Assert.Equal(Checkpoint.TrainerState(Newest(straight))?["loss_scale"]?.ToJsonString(), Checkpoint.TrainerState(Newest(broken))?["loss_scale"]?.ToJsonString());
    }

    [Fact]
    public async Task The_scale_of_a_float16_run_is_a_metric_and_goes_on_where_it_was()
    {
        RunFolder run = prepared.NewRun(Config(Precision.Float16));
        using (CancellationTokenSource stop = new())
        {
            Assert.Equal(ExitCode.StoppedAndSaved, await TrainerProcessMain.RunAsync(run.Path, Store, false, null, stop.Token, e =>
            {
                if (e is MetricsEvent { Step: 3 } m && m.Values.ContainsKey("train/loss")) stop.Cancel();
            }));
        }
        Assert.Equal((65536, 3), Scale(run));
        Assert.Equal(ExitCode.Done, await RunAsync(run));
        // All of them were good, those before the stop too.
        Assert.Equal((65536, Steps), Scale(run));
        MetricsEvent[] steps = [.. Standing.Of(run).OfType<MetricsEvent>().Where(m => m.Values.ContainsKey("train/loss"))];
        Assert.Equal(Enumerable.Repeat(65536.0, Steps), steps.Select(m => m.Values["train/loss_scale"]));
    }

    [Theory]
    [InlineData(Precision.Float32, "computes in float32, as was asked for")]
    [InlineData(Precision.Bfloat16, "computes in bfloat16 with float32 weights, as was asked for")]
    [InlineData(Precision.Float16, "computes in float16 with float32 weights and a scale of the loss, as was asked for")]
    public async Task The_log_says_the_type_and_checkpoints_are_float32(Precision precision, string line)
    {
        List<string> log = [];
        RunFolder run = prepared.NewRun(Config(precision, 2));
        Assert.Equal(ExitCode.Done, await TrainerProcessMain.RunAsync(run.Path, Store, false, null, default, print: log.Add));
        Assert.Contains(log, l => l.Contains(line, StringComparison.Ordinal));
        bool slow = precision != Precision.Float32 && !ComputeUnits.Of(CPU).Narrow.Contains(precision);
        Assert.Equal(slow, run.Events().OfType<WarningEvent>().Any(w => w.Message.StartsWith("training.precision", StringComparison.Ordinal)));
        Assert.Equal(precision == Precision.Float16, run.Events().OfType<MetricsEvent>().Any(m => m.Values.ContainsKey("train/loss_scale")));
        using SafetensorsFile weights = SafetensorsFile.Open(Path.Combine(Newest(run), "model.safetensors"));
        Assert.All(weights.Names, n => Assert.Equal("F32", weights.Info(n).Dtype));
    }

    [Fact]
    public async Task Auto_is_chosen_by_device_and_stays_so()
    {
        RunFolder run = prepared.NewRun(Config(Precision.Auto, 2));
        List<string> log = [];
        Assert.Equal(ExitCode.Done, await TrainerProcessMain.RunAsync(run.Path, Store, false, null, default, print: log.Add));
        TorchRuntime.Load();
        Precision expected = PrecisionChoice.For(Precision.Auto, [ComputeUnits.Of(CPU)]).Precision;
        Assert.Equal(expected, run.Read().Config.Training.Precision);
        Assert.Contains(log, l => l.Contains($"computes in {expected.ToString().ToLowerInvariant()}", StringComparison.Ordinal) && l.Contains("the CPU has", StringComparison.Ordinal));
        Assert.Empty(run.Events().OfType<WarningEvent>());
    }

    [Fact]
    public async Task A_run_of_a_version_without_the_choice_goes_on_in_float32()
    {
        RunFolder run = prepared.NewRun(Config(Precision.Float32, 4));
        using (CancellationTokenSource stop = new())
        {
            await TrainerProcessMain.RunAsync(run.Path, Store, false, null, stop.Token, e =>
            {
                if (e is MetricsEvent { Step: 2 } m && m.Values.ContainsKey("train/loss")) stop.Cancel();
            });
        }
        JsonObject record = JsonNode.Parse(await File.ReadAllTextAsync(run.RecordPath))!.AsObject();
        Assert.True(record["config"]!["training"]!.AsObject().Remove("precision"));
        await File.WriteAllTextAsync(run.RecordPath, record.ToJsonString());
        Assert.Equal(ExitCode.Done, await RunAsync(run));
        Assert.Equal(Precision.Float32, run.Read().Config.Training.Precision);
    }

    private static (double Scale, int GoodSteps) Scale(RunFolder run)
    {
        JsonNode scale = Checkpoint.TrainerState(Newest(run))!["loss_scale"]!;
        return (scale["scale"]!.GetValue<double>(), scale["good_steps"]!.GetValue<int>());
    }

    private static string Newest(RunFolder run) => Checkpoint.List(run.CheckpointsPath)[0].Path;

    private Task<int> RunAsync(RunFolder run) => TrainerProcessMain.RunAsync(run.Path, Store, false, null, default);

    private static RunConfig Config(Precision precision, int steps = Steps)
    {
        RunConfig small = PreparedStore.Small(steps);
        return small with
        {
            Device = "cpu",
            Model = small.Model with { NumDecoderLayers = 1, ResidualDropout = 0.1, AttentionDropout = 0.1 },
            Optimizer = small.Optimizer with { WarmupSteps = 1 },
            Training = small.Training with { Precision = precision, EvalInterval = 5, CheckpointInterval = 4, SampleTokens = 2, GradientAccumulationSteps = 1 },
        };
    }
}
