using NopeGpt.Jobs.Queue;
using NopeGpt.Tests;

namespace NopeGpt.Jobs.Tests.Queue.Devices;

/// <summary>The whole queue over an nvidia-smi of the test's own.</summary>
[Collection(QueueTestsGroup.Name)]
public sealed class DeviceQueueTests : IDisposable
{
    private readonly FakeHost host = new();
    private readonly TemporaryFolder folder = new();

    public void Dispose()
    {
        host.Dispose();
        folder.Dispose();
    }

    [Fact]
    public async Task Two_runs_work_on_two_gpus_at_once_and_a_third_waits_for_either()
    {
        host.Gpus(FakeHost.Gpu(0), FakeHost.Gpu(1));
        await using QueueHarness queue = await StartAsync();
        string first = await AddAsync(queue, "steps:4000 delay:10", "auto"), second = await AddAsync(queue, "steps:4001 delay:10", "cuda"), third = await AddAsync(queue, "steps:2", "auto");
        await queue.UntilAsync(first, RunState.Running);
        RunRow row = await queue.UntilAsync(second, RunState.Running);
        Assert.Equal((RunState.Running, "cuda:0", "cuda:1"), ((await queue.Queue.FindAsync(first))!.State, (await queue.Queue.FindAsync(first))!.Devices, row.Devices));
        const string Reason = "waiting: a free GPU is needed and none is free (cuda:0 is busy with run steps:4000 delay:10, cuda:1 is busy with run steps:4001 delay:10)";
        await queue.UntilAsync(third, r => r.Reason == Reason, Reason);
        Assert.Contains("--detached --device cuda:1, order PCI_BUS_ID\n", File.ReadAllText(queue.Folder(second).LogPath), StringComparison.Ordinal);

        await queue.Queue.StopAsync(second, StopRequest.Save);
        row = await queue.UntilAsync(third, RunState.Completed);
        Assert.Equal("", row.Devices);
        Assert.Contains("--device cuda:1,", File.ReadAllText(queue.Folder(third).LogPath), StringComparison.Ordinal);
        Assert.Equal("auto", queue.Folder(third).Read().Config.Device);
    }

    [Fact]
    public async Task A_run_waits_for_memory_and_starts_when_there_is_enough()
    {
        host.Gpus(FakeHost.Gpu(0, free: 300));
        await using QueueHarness queue = await StartAsync();
        string id = await TrainAsync(queue, "steps:2", "cuda:0");
        RunRow row = await queue.UntilAsync(id, r => r.Reason?.StartsWith("waiting: ", StringComparison.Ordinal) == true, "a reason");
        Assert.Matches(@"\Awaiting: cuda:0 has 0\.3 of \d\.\d GB free that it needs\z", row.Reason);
        host.Gpus(FakeHost.Gpu(0));
        await queue.UntilAsync(id, RunState.Completed);
    }

    [Fact]
    public async Task A_run_that_asks_for_two_gpus_gets_them_together_before_runs_behind_it_take_them_one_by_one()
    {
        host.Gpus(FakeHost.Gpu(0), FakeHost.Gpu(1));
        await using QueueHarness queue = await StartAsync();
        string first = await AddAsync(queue, "steps:4000 delay:10", "cuda:1"), both = await TrainAsync(queue, "steps:4001 delay:10", "cuda*2");
        await queue.UntilAsync(first, RunState.Running);
        await queue.UntilAsync(both, r => r.Reason == "waiting: 2 free GPUs are needed and 1 is free (cuda:1 is busy with run steps:4000 delay:10)", "it waits for one more");
        string behind = await AddAsync(queue, "steps:2", "auto");
        await queue.UntilAsync(behind, r => r.Reason?.Contains("cuda:0 is kept for run steps:4001 delay:10, which comes before it", StringComparison.Ordinal) == true, "it is kept");
        await queue.Queue.StopAsync(first, StopRequest.Save);
        Assert.Equal("cuda:0,cuda:1", (await queue.UntilAsync(both, RunState.Running)).Devices);
        await queue.Queue.StopAsync(both, StopRequest.Save);
        await queue.UntilAsync(behind, RunState.Completed);
    }

    [Fact]
    public async Task A_device_that_is_not_there_is_waited_for_while_others_go_on()
    {
        host.Gpus(FakeHost.Gpu(0), FakeHost.Gpu(1));
        await using QueueHarness queue = await StartAsync();
        string missing = await AddAsync(queue, "steps:2", "cuda:3"), other = await AddAsync(queue, "steps:3", "cuda:1");
        await queue.UntilAsync(other, RunState.Completed);
        await queue.UntilAsync(missing, r => r.Reason == "waiting: cuda:3 is not there: this machine has cuda:0 and cuda:1", "it says so");
    }

    [Fact]
    public async Task The_cpu_works_on_two_runs_where_it_has_two_slots()
    {
        await using QueueHarness queue = await StartAsync(("Jobs:CpuSlots", "2"), ("Jobs:CpuThreads", "1"));
        string first = await AddAsync(queue, "steps:4000 delay:10", "cpu"), second = await AddAsync(queue, "steps:4001 delay:10", "cpu"), third = await AddAsync(queue, "steps:2", "cpu");
        await queue.UntilAsync(first, RunState.Running);
        await queue.UntilAsync(second, RunState.Running);
        await queue.UntilAsync(third, r => r.Reason?.StartsWith("waiting: the CPU's 2 slots are busy with run steps:4000 delay:10 (evaluate", StringComparison.Ordinal) == true, "a reason");
        Assert.Contains("--device cpu --threads 1,", File.ReadAllText(queue.Folder(second).LogPath), StringComparison.Ordinal);
    }

    [Theory]
    [InlineData("CpuSlots", "-1", "from 0 to 64")]
    [InlineData("CpuSlots", "two", "from 0 to 64")]
    [InlineData("PreparationSlots", "0", "from 1 to 64")]
    [InlineData("CpuThreads", "1e3", "from 0 to 1024")]
    public async Task Settings_that_are_wrong_are_told_at_the_start(string name, string value, string range)
    {
        UserException e = await Assert.ThrowsAsync<UserException>(() => StartAsync(("Jobs:" + name, value)));
        Assert.Equal($"Jobs:{name} = {value}: use a whole number {range}", e.Message);
    }

    private Task<QueueHarness> StartAsync(params (string Key, string Value)[] settings) =>
        QueueHarness.StartAsync(folder.Path, [.. settings, ("Jobs:NvidiaSmi", host.NvidiaSmi)]);

    private static async Task<string> AddAsync(QueueHarness queue, string words, string device)
    {
        string model = Directory.CreateDirectory(Path.Combine(queue.Store.Root, "model")).FullName;
        await File.WriteAllTextAsync(Path.Combine(model, "model.safetensors"), "");
        return (await queue.Queue.AddAsync(QueueHarness.Config(words, RunKind.Evaluate) with { Device = device, Evaluate = new EvaluateConfig { Checkpoint = model } })).Id;
    }

    // What waits for another run is not looked at more closely than its values.
    private static async Task<string> TrainAsync(QueueHarness queue, string words, string device)
    {
        string before = await queue.AddAsync("steps:1", RunKind.Prepare);
        RunConfig config = QueueHarness.Config(words, RunKind.Pretrain);
        return (await queue.Queue.AddAsync(config with { Device = device, Model = config.Model with { VocabularySize = 4096 }, Training = config.Training with { MaxSteps = 100, GradientAccumulationSteps = 2 } }, [before])).Id;
    }
}
