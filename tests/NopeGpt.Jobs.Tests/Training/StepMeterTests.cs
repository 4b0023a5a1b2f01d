using NopeGpt.Jobs;
using NopeGpt.Jobs.Training;
using NopeGpt.Model;
using NopeGpt.Model.Native;
using static TorchSharp.torch;

namespace NopeGpt.Tests.Training;

public sealed class StepMeterTests
{
    private static readonly RunConfig Config = PreparedStore.Small(10) with { Model = new ModelConfig { VocabularySize = 400, EmbeddingDimensions = 32, NumQHeads = 4, NumKvHeads = 2, NumDecoderLayers = 2 } };

    [Fact]
    public void A_steps_time_is_split_and_evaluations_are_none_of_it()
    {
        TorchRuntime.Load();
        Clock clock = new();
        StepMeter meter = new(Config, clock, 0, [CPU, CPU], matrixRate: _ => 1e9);
        clock.Pass(5000);
        meter.Begin();
        clock.Pass(200);
        meter.Take(new(Milliseconds(2), Milliseconds(42), Milliseconds(84), Milliseconds(5), Milliseconds(3)));
        MetricsEvent first = meter.Step(new Progress { Step = 1, Tokens = 256 }, 5.5, 1.25, 1e-3);
        IReadOnlyDictionary<string, double> values = first.Values;
        Assert.Equal([2, 42, 84, 8, 64, 200], new[] { "data", "forward", "backward", "optimizer", "other", "step" }.Select(n => Math.Round(values[$"time/{n}_ms"], 6)));
        Assert.Equal((5.5, 1.25, 1e-3), (values["train/loss"], values["train/gradient_norm"], values["train/learning_rate"]));
        // 4 x 2 samples of 32 tokens in 0.2 s.
        Assert.Equal(1280, values["train/tokens_per_second"], 1e-6);
        Assert.Equal(1280 * Config.Model.FlopsPerToken(32) / 1e9, values["train/mfu"], 1e-9);
        Assert.Equal((256, 256 * Config.Model.FlopsPerToken(32)), (values["train/tokens"], values["train/flops"]));
        Assert.InRange(values["system/memory_bytes"], 10e6, 100e9);
        Assert.DoesNotContain("system/device_memory_bytes", values.Keys);
        // The rest will have evaluations as well.
        Assert.Equal(9 * 5.2, first.EtaSeconds!.Value, 1e-6);
        clock.Pass(1000);
        meter.Begin();
        clock.Pass(50);
        Assert.Equal(50, meter.Step(new Progress { Step = 2, Tokens = 512 }, 5, 1, 1e-3).Values["time/step_ms"], 1e-6);
    }

    [Fact]
    public void What_was_reached_is_no_more_than_the_device_can_do()
    {
        TorchRuntime.Load();
        Clock clock = new();
        // Something else kept the device busy when it was measured first.
        Queue<double> rates = new([1e3, 2e3]);
        StepMeter meter = new(Config, clock, 0, [CPU], _ => rates.Dequeue());
        double flops = Config.Model.FlopsPerToken(32) * RunLength.TokensPerStep(Config);
        Assert.Equal(1, Step(1, 200));
        Assert.Empty(rates);
        Assert.Equal(0.5, Step(2, 400), 1e-9);
        Assert.Equal(1, Step(3, 100));
        Assert.Equal(0.5, Step(4, 200), 1e-9);
        Assert.True(flops / 0.4 > 2e3);

        double Step(long step, int milliseconds)
        {
            meter.Begin();
            clock.Pass(milliseconds);
            return meter.Step(new Progress { Step = step }, 5, 1, 1e-3).Values["train/mfu"];
        }
    }

    [Fact]
    public void The_matrix_rate_is_measured_once_and_is_one_that_a_machine_can_have()
    {
        TorchRuntime.Load();
        long start = TimeProvider.System.GetTimestamp();
        double rate = MatrixRate.Of(CPU);
        Assert.InRange(rate, 1e8, 1e14);
        Assert.Equal(rate, MatrixRate.Of(CPU));
        Assert.True(TimeProvider.System.GetElapsedTime(start) < TimeSpan.FromSeconds(10), "it is meant to be brief");
    }

    private static TimeSpan Milliseconds(int count) => TimeSpan.FromMilliseconds(count);

    private sealed class Clock : TimeProvider
    {
        private long _now;

        public override long TimestampFrequency => 1000;

        public override long GetTimestamp() => _now;

        public void Pass(int milliseconds) => _now += milliseconds;
    }
}
