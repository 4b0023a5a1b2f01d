using NopeGpt.Model;

namespace NopeGpt.Jobs.Tests;

public sealed class DeviceRequestTests
{
    [Theory]
    [InlineData("auto", 1)]
    [InlineData("cpu", 1)]
    [InlineData("cuda", 1)]
    [InlineData("cuda:0", 1)]
    [InlineData("cuda:127", 1)]
    [InlineData("cuda:1,cuda:0,cuda:7", 3)]
    [InlineData("cpu,cpu", 2)]
    [InlineData("cuda*1", 1)]
    [InlineData("cuda*3", 3)]
    [InlineData("cuda*64", 64)]
    public void A_device_has_as_many_replicas_as_it_names(string device, int count)
    {
        Assert.Equal(count, new RunConfig { Device = device }.DeviceCount);
        Assert.Empty(Problems(device));
    }

    [Theory]
    [InlineData("cuda*0", "asks for 0 GPUs: use cuda*1 to cuda*64")]
    [InlineData("cuda*65", "asks for 65 GPUs: use cuda*1 to cuda*64")]
    [InlineData("cuda*9999", "asks for 9999 GPUs: use cuda*1 to cuda*64")]
    [InlineData("cuda*2,cuda:0", "has cuda*N in a list, where only named devices can be: use cuda*N alone, or name each device")]
    [InlineData("cuda*1x", "is not a device: use auto, cpu, cuda, cuda:0, several joined by commas, such as cuda:0,cuda:1, or cuda*2 for any two free GPUs")]
    [InlineData("cuda*", "is not a device")]
    [InlineData("cuda*-1", "is not a device")]
    [InlineData("cuda* 2", "is not a device")]
    [InlineData("cuda*99999999999", "is not a device")]
    [InlineData("cpu*2", "is not a device")]
    [InlineData("CUDA:0", "is not a device")]
    [InlineData("cuda:٣", "is not a device")]
    [InlineData("cuda:1000", "is not a device")]
    [InlineData("auto,cpu", "is not a device")]
    [InlineData("cuda:0,", "is not a device")]
    [InlineData("cuda:0\n", "is not a device")]
    [InlineData("", "is not a device")]
    [InlineData("cpu,cuda:0", "mixes CPU and GPUs, of which the CPU would hold up the others: name devices of one kind")]
    [InlineData("cuda:1,cuda:01", "names cuda:1 2 times: name each GPU once")]
    [InlineData("cuda,cuda:0", "names cuda:0 2 times: name each GPU once")]
    public void What_is_wrong_with_a_device_is_said_with_the_cure(string device, string message) => Assert.StartsWith(message, Assert.Single(Problems(device)).Message, StringComparison.Ordinal);

    [Fact]
    public void Micro_batches_are_divided_among_any_gpus_as_among_named_ones()
    {
        RunConfig config = Config("cuda*4");
        Problem problem = Assert.Single((config with { Training = config.Training with { GradientAccumulationSteps = 3 } }).Problems());
        Assert.Equal(("training.gradient_accumulation_steps", "3"), (problem.Field, problem.Value));
        Assert.Contains("4 devices", problem.Message, StringComparison.Ordinal);
    }

    [Fact]
    public void An_evaluation_works_on_one_device()
    {
        RunConfig config = new() { Kind = RunKind.Evaluate, Device = "cuda*2" };
        Assert.Equal("are 2 devices, and an evaluation works on one: name one, or use auto", Assert.Single(config.Problems()).Message);
        Assert.Empty((config with { Device = "cuda*1" }).Problems());
    }

    [Fact]
    public void Devices_that_libtorch_does_not_see_are_named()
    {
        UserException e = Assert.Throws<UserException>(() => ComputeDevice.StartAll(null, "cuda*48"));
        Assert.StartsWith("cuda*48 asks for 48 GPUs: libtorch sees ", e.Message, StringComparison.Ordinal);
        Assert.StartsWith("devices cuda:98 and cuda:99 are not there: libtorch sees ", Assert.Throws<UserException>(() => ComputeDevice.StartAll(null, "cuda:98,cuda:99")).Message, StringComparison.Ordinal);
        Assert.StartsWith("device gpu: is not a device", Assert.Throws<UserException>(() => ComputeDevice.StartAll(null, "gpu")).Message, StringComparison.Ordinal);
        Assert.StartsWith("device cuda*2: one device is needed here", Assert.Throws<UserException>(() => ComputeDevice.Start(null, "cuda*2", 0)).Message, StringComparison.Ordinal);
    }

    private static RunConfig Config(string device) => new() { Device = device, Data = new DataConfig { Dataset = "set" }, Training = new TrainingConfig { GradientAccumulationSteps = 64 } };

    private static IEnumerable<Problem> Problems(string device) => Config(device).Problems();
}
